import io
import json
import os
import shutil

import keras
import make_shards
import pytest
from rich.console import Console

from beam_jobs.contracts import layout, manifest
from beam_jobs.errors import DataError
from models.config import EncoderConfig
from models.published import export
from models.published.card import Provenance
from models.scores.scoring import score_patches
from models.segment import build_segmenter
from models.segment_config import SegmentConfig
from pipeline.serving import check, probe

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two segmenters of one architecture with different weights."""
    version = make_shards.make_version(
        tmp_path_factory.mktemp("data"), kind="labels", label_schema="water", num_patches=4
    )
    config = SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=EncoderConfig(backbone="small", embedding_dim=8),
        num_steps=1,
        decoder_channels=(8, 8, 8, 8),
    )
    folders = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        folder = tmp_path_factory.mktemp(f"model{seed}")
        data = manifest.read(version)
        model = build_segmenter(config, data, None)
        files = [str(path) for path in layout.shard_paths(version, "eval")]
        export.export_segmenter(
            model,
            str(folder),
            provenance=Provenance(
                name="flood", config=config, manifest=data, metrics={}, started_from={}
            ),
            scores=score_patches(model, files, ("dry", "water"), batch_size=2),
        )
        folders.append(folder)
    return folders


def test_tampered_model_fails(exported, tmp_path):
    first, second = exported
    serving = tmp_path / "serving"
    tampered = serving / "flood" / "1"
    shutil.copytree(first, tampered)
    shutil.copy(second / "assets.extra" / "model.keras", tampered / "assets.extra" / "model.keras")
    results = check.check_published(serving, os.environ)
    assert {(result.model, result.version) for result in results} == {("flood", "1")}
    assert not any(result.is_ok for result in results)
    assert all(result.difference > result.tolerance for result in results)
    console = Console(file=io.StringIO(), width=160)
    console.print(check.render(results))
    assert console.file.getvalue().count("failed") == len(results)


def test_model_whose_process_dies_fails_with_its_last_words(exported, tmp_path, monkeypatch):
    shutil.copytree(exported[0], tmp_path / "flood" / "1")
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho first >&2\necho out of memory >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(dying))
    (result,) = check.check_published(tmp_path, os.environ)
    assert (result.error, result.is_ok) == ("out of memory", False)


def test_untouched_model_passes_on_every_signature_and_size(exported):
    answer = json.loads(probe.probe(str(exported[0])))
    assert {item["signature"] for item in answer} == set(export.SEGMENTER_SIGNATURES)
    assert len({str(item["input_shapes"]) for item in answer}) >= 2
    assert all(item["max_abs_difference"] <= item["tolerance"] for item in answer)


def test_empty_serving_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no published model"):
        check.check_published(tmp_path, os.environ)
