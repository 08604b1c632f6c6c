import io
import json
import os
import shutil

import keras
import make_shards
import pytest
from rich.console import Console

from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError
from models import export
from models.config import EncoderConfig, SegmentConfig
from models.segment import build_segmenter
from pipeline.serving import check, probe


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
        export.export_segmenter(
            build_segmenter(config, data, None), str(folder), config=config, manifest=data, metrics={}
        )
        folders.append(folder)
    return folders


def test_tampered_and_unfinished_models_fail(exported, tmp_path):
    first, second = exported
    serving = tmp_path / "serving"
    tampered, unfinished = serving / "flood" / "1", serving / "flood" / "2"
    shutil.copytree(first, tampered)
    shutil.copy(second / "assets.extra" / "model.keras", tampered / "assets.extra" / "model.keras")
    shutil.copytree(first, unfinished)
    (unfinished / "assets.extra" / "model_card.json").unlink()
    results = check.check_published(serving, os.environ)
    assert {result.version for result in results} == {"1", "2"}
    assert not any(result.is_ok for result in results)
    assert all(result.difference > check.TOLERANCE["float32"] for result in results if result.version == "1")
    (broken,) = [result for result in results if result.version == "2"]
    assert "no model card" in broken.error
    console = Console(file=io.StringIO(), width=160)
    console.print(check.render(results))
    assert console.file.getvalue().count("failed") == len(results)


def test_untouched_model_passes_on_every_signature_and_size(exported):
    answer = json.loads(probe.probe(str(exported[0])))
    assert {item["signature"] for item in answer["comparisons"]} == set(export.SEGMENTER_SIGNATURES)
    assert len({str(item["input_shapes"]) for item in answer["comparisons"]}) >= 2
    assert all(item["max_abs_difference"] <= check.TOLERANCE[answer["precision"]] for item in answer["comparisons"])


def test_empty_serving_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no published model"):
        check.check_published(tmp_path, os.environ)
