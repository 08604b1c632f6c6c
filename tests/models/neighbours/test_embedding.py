"""A version embedded with an untrained encoder: its rows, and what is refused."""

import dataclasses
import hashlib
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import layout, manifest, records
from beam_jobs.contracts.bands import SENSORS
from models.health.embeddings import Embedder
from models.neighbours.embedding import embed_version
from models.neighbours.index import read_index
from tests.data.networks import make_encoder

pytestmark = pytest.mark.usefixtures("eager_steps")


@pytest.fixture(scope="module")
def dual_encoder(pairs):
    return make_encoder.make_dual_encoder(pairs.manifest)


@pytest.fixture(scope="module")
def encoder(dual_encoder, tmp_path_factory):
    return make_encoder.publish_keras_half(dual_encoder, tmp_path_factory.mktemp("encoder") / "1")


@pytest.fixture
def version(pairs, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(pairs.path, tmp_path / "version")


def record_at(path, number):
    return list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())[number]


def rewrite(version, name, change):
    """A shard whose records went through `change`, with a manifest that knows it."""
    path = version / name
    patches = [
        records.decode(item)
        for item in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
    ]
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for number, patch in enumerate(patches):
            writer.write(records.encode(change(number, patch)))
    document = manifest.read(version)
    content = path.read_bytes()
    entry = dataclasses.replace(
        document.shards[name], num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    changed = dataclasses.replace(document, shards={**document.shards, name: entry})
    (version / layout.MANIFEST_NAME).write_text(changed.to_json())


def test_each_row_is_the_embedding_of_the_record_that_its_line_names(
    encoder, dual_encoder, pairs, tmp_path
):
    steps = []
    info = embed_version(
        encoder,
        str(pairs.path),
        str(tmp_path / "index"),
        splits=layout.SPLITS,
        batch_size=7,
        on_progress=lambda *step: steps.append(step),
    )
    index = read_index(tmp_path / "index")
    assert index.info == info
    assert info.num_patches == len(index.patches) == sum(pairs.manifest.num_examples.values()) == 40
    assert steps == [(7, 40), (14, 40), (21, 40), (28, 40), (35, 40), (40, 40)]
    embedder = Embedder(dual_encoder)
    for row, line in enumerate(index.patches):
        patch = records.decode(record_at(pairs.path / line.shard, line.record))
        assert line.patch_id == patch.patch_id
        assert (line.split, line.block) == (line.shard.split("/")[0], patch.block)
        assert (line.lon, line.lat) == pytest.approx((patch.lon, patch.lat), abs=1e-5)
        assert (line.s1_scene_id, line.s2_scene_id) == (patch.s1_scene_id, patch.s2_scene_id)
        assert (line.acquired_at("s1"), line.acquired_at("s2")) == (
            patch.s1_acquired_at,
            patch.s2_acquired_at,
        )
        encoded = embedder.encode(
            {sensor: tf.constant(getattr(patch, sensor)[np.newaxis]) for sensor in SENSORS}
        )
        for sensor in SENSORS:
            ours = index.embeddings[sensor][row]
            np.testing.assert_allclose(ours, encoded[f"{sensor}_embedding"][0], atol=1e-5)
            assert np.linalg.norm(ours) == pytest.approx(1.0, abs=1e-5)
    assert len({line.patch_id for line in index.patches}) == 40


def test_the_index_tells_what_it_was_made_of_from_any_folder(encoder, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(pairs.path.parent)
    source = embed_version(encoder, pairs.path.name, str(tmp_path / "index")).source
    assert source.pairs == str(pairs.path.resolve())
    assert source.encoder == os.path.realpath(encoder)
    assert source.manifest_sha256 == pairs.manifest.sha256
    assert (source.splits, source.num_records) == (("eval",), 8)


def test_a_patch_without_data_in_one_sensor_is_left_out(encoder, version, tmp_path):
    names = sorted(path.relative_to(version).as_posix() for path in (version / "eval").iterdir())
    emptied = []

    def empty(number, patch):
        if number != 2:
            return patch
        emptied.append(patch.patch_id)
        return dataclasses.replace(patch, s1=np.full_like(patch.s1, np.nan))

    rewrite(version, names[0], empty)
    info = embed_version(encoder, str(version), str(tmp_path / "index"), batch_size=3)
    assert (info.num_patches, info.source.num_records) == (7, 8)
    index = read_index(tmp_path / "index")
    assert not set(emptied) & {line.patch_id for line in index.patches}
    assert [line.record for line in index.patches] == [0, 1, 3, 4, 5, 6, 7]


def refusal(encoder, version, tmp_path, error=ValueError):
    with pytest.raises(error, match=r"\A[^\n]+\Z") as caught:
        embed_version(
            str(encoder), str(version), str(tmp_path / "index"), splits=layout.SPLITS, batch_size=2
        )
    assert not list(tmp_path.glob("index/*"))
    return str(caught.value)


def test_shards_of_other_bands_are_refused(encoder, version, tmp_path):
    document = manifest.read(version)
    statistics = tuple(
        dataclasses.replace(entry, band=band)
        for entry, band in zip(document.s1_statistics, ("HH", "HV"), strict=True)
    )
    changed = dataclasses.replace(document, s1_bands=("HH", "HV"), s1_statistics=statistics)
    (version / layout.MANIFEST_NAME).write_text(changed.to_json())
    message = (
        f"{encoder}: the encoder does not fit {version}: "
        "it takes s1 bands VV, VH, but the patches hold HH, HV"
    )
    assert refusal(encoder, version, tmp_path) == message


def test_a_missing_shard_is_refused(encoder, version, tmp_path):
    shard = max((version / "train").iterdir())
    shard.unlink()
    message = f"{shard}: the shard is missing, though the manifest names it"
    assert refusal(encoder, version, tmp_path) == message


def test_a_record_that_is_not_whole_is_refused(encoder, version, tmp_path):
    shard = min((version / "train").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    shard.write_bytes(content)
    message = refusal(encoder, version, tmp_path)
    assert message.startswith(f"{shard}: the shard is damaged: its gzip stream is broken")


def test_a_later_patch_of_another_size_is_refused(encoder, version, tmp_path):
    name = min(path.relative_to(version).as_posix() for path in (version / "train").iterdir())
    rewrite(
        version,
        name,
        lambda number, patch: dataclasses.replace(patch, s1=patch.s1[:16], s2=patch.s2[:16])
        if number == 5
        else patch,
    )
    assert "records of patches" in refusal(encoder, version, tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model_card.json", "no model card, so this is no finished model"),
        ("s1_*.keras", "must hold encoders of s1 and s2, got s2 without s1"),
        ("*.keras", "no such Keras model, so this is not the published model expected"),
    ],
)
def test_what_is_no_whole_encoder_is_refused(encoder, pairs, tmp_path, missing, message):
    copy = shutil.copytree(encoder, tmp_path / "copy", ignore=shutil.ignore_patterns(missing))
    assert message in refusal(copy, pairs.path, tmp_path, FileNotFoundError)


def test_what_is_no_version_is_refused(encoder, tmp_path):
    message = refusal(encoder, tmp_path / "items.ndjson", tmp_path, FileNotFoundError)
    assert message.endswith("no manifest, so this is no finished version")
