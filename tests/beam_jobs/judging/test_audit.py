"""The audit over built shards: silent on the project's own splits, loud on every kind of leak."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs import config as c
from beam_jobs.__main__ import run
from beam_jobs.build.driver import build_labels, build_pairs
from beam_jobs.contracts import layout, manifest, records
from beam_jobs.errors import DataError
from beam_jobs.judging.audit import audit

pytestmark = pytest.mark.e2e

GZIP = tf.io.TFRecordOptions(compression_type="GZIP")


def read_split(version: Path, split: str) -> list[records.PairedPatch]:
    files = [str(path) for path in layout.shard_paths(version, split)]
    return [
        records.decode(raw) for raw in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    ]


def settings(split_seed: int, **more) -> c.BuildConfig:
    return c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(
            min_valid_fraction=0.05, max_cloud_fraction=1.0, measure_offset=False
        ),
        split=c.SplitConfig(
            block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3, seed=split_seed
        ),
        **more,
    )


@pytest.fixture(scope="module")
def pairs(simulated, tmp_path_factory) -> Path:
    """Root of pairs of split seed 0."""
    root = tmp_path_factory.mktemp("pairs")
    build_pairs(settings(0), [simulated], root)
    return root


@pytest.fixture(scope="module")
def labels(simulated, tmp_path_factory) -> Path:
    """Version of labels of the same split."""
    config = settings(
        0, label=c.LabelConfig(schema="water", label_from="s1", min_labeled_fraction=0.0)
    )
    return build_labels(config, [simulated], tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def other_labels(simulated, tmp_path_factory) -> Path:
    """Version of labels of another split."""
    config = settings(
        1, label=c.LabelConfig(schema="water", label_from="s1", min_labeled_fraction=0.0)
    )
    return build_labels(config, [simulated], tmp_path_factory.mktemp("other"))


def test_one_split_config_for_pairs_and_labels_leaks_nothing(pairs, labels, tmp_path, capsys):
    code = run(
        [
            "audit",
            "--pairs",
            str(pairs),
            "--labels",
            str(labels),
            "--output",
            str(tmp_path / "a" / "report.json"),
        ]
    )
    assert code == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    version = layout.version_dir(pairs, 1, 1)
    counted = manifest.read(labels).num_examples
    assert report["overlaps"] == []
    assert report["num_overlaps"] == 0
    assert report["num_pair_patches"] == manifest.read(version).num_examples["train"]
    assert report["num_label_patches"] == counted["eval"] + counted["test"]
    assert report["manifests_sha256"][str(version)] == manifest.read(version).sha256
    assert "no overlap" in capsys.readouterr().out


def test_another_split_of_the_same_places_leaks_and_every_pair_is_named(
    pairs, other_labels, tmp_path, capsys
):
    arguments = [
        "audit",
        "--pairs",
        str(pairs),
        "--labels",
        str(other_labels),
        "--output",
        str(tmp_path / "r.json"),
    ]
    assert run(arguments) == 4
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    report = json.loads((tmp_path / "r.json").read_text())
    train = {
        patch.patch_id: patch for patch in read_split(layout.version_dir(pairs, 1, 1), "train")
    }
    judged = {
        p.patch_id: (split, p)
        for split in ("eval", "test")
        for p in read_split(other_labels, split)
    }
    # Patches of one scene pair lie on one grid: the same window has the same id in both
    # builds.
    same = {patch_id for patch_id in train if patch_id in judged}
    assert same
    found = {
        (entry["pair_patch_id"], entry["label_patch_id"]): entry for entry in report["overlaps"]
    }
    assert len(found) == report["num_overlaps"] == len(report["overlaps"])
    assert {(patch_id, patch_id) for patch_id in same} <= set(found)
    for (one, two), entry in found.items():
        assert entry["label_split"] == judged[two][0]
        assert entry["distance_m"] < 320 * 2**0.5 + 1
        assert entry["footprints_overlap"] or entry["hash_distance"] is not None
        if one == two:
            assert entry["distance_m"] == 0.0
            assert entry["hash_distance"] in (0, None)
    assert report["num_leaking_pair_patches"] == len({one for one, _ in found})
    assert (
        f"{report['num_leaking_pair_patches']} of {len(train)} unlabeled train patches overlap"
        in error
    )


def test_a_buffer_finds_neighbours_across_the_border_of_blocks(pairs, labels):
    assert audit([pairs], [labels], buffer_m=700.0).num_footprint_overlaps > 0


def test_the_same_pixels_under_another_place_are_found_by_their_looks(pairs, labels, tmp_path):
    root = tmp_path / "pairs"
    shutil.copytree(pairs, root)
    with_hash = [p for p in read_split(labels, "test") if abs(p.s2.mean(-1)).std() > 0.01]
    copies = {}
    shard = layout.shard_paths(layout.version_dir(root, 1, 1), "train")[0]
    kept = [raw for raw in tf.data.TFRecordDataset([str(shard)], "GZIP").as_numpy_iterator()]
    with tf.io.TFRecordWriter(str(shard), GZIP) as writer:
        for raw in kept:
            writer.write(raw)
        for number, patch in enumerate(with_hash):
            values = {
                f.name: getattr(patch, f.name) for f in dataclasses.fields(records.PairedPatch)
            }
            values.update(patch_id=f"copy-{number}", lon=patch.lon + 5.0, lat=patch.lat - 3.0)
            copies[f"copy-{number}"] = patch.patch_id
            writer.write(records.encode(records.PairedPatch(**values)))
    report = audit([root], [labels])
    found = {overlap.pair_patch_id: overlap for overlap in report.overlaps}
    assert found
    assert report.num_footprint_overlaps == 0
    for name, overlap in found.items():
        assert overlap.label_patch_id == copies[name]
        assert overlap.hash_distance == 0
        assert overlap.distance_m > 300_000


def test_what_cannot_be_compared_is_said_in_one_line(pairs, labels, tmp_path):
    with pytest.raises(DataError, match="holds 'labels', needs 'pairs'"):
        audit([labels], [labels])
    with pytest.raises(DataError, match="neither a version directory nor a folder that holds one"):
        audit([tmp_path / "nowhere"], [labels])
    shutil.copytree(pairs, tmp_path / "cut")
    shard = layout.shard_paths(layout.version_dir(tmp_path / "cut", 1, 1), "train")[0]
    shard.write_bytes(shard.read_bytes()[:-500])
    with pytest.raises(DataError, match="not a whole shard of patches"):
        audit([tmp_path / "cut"], [labels])
    shard.unlink()
    with pytest.raises(DataError, match="not a whole shard of patches"):
        audit([tmp_path / "cut"], [labels])
    tf.io.TFRecordWriter(str(shard), GZIP).close()
    with pytest.raises(DataError, match="holds no patch to compare"):
        audit([tmp_path / "cut"], [labels])
    with pytest.raises(ValueError, match="buffer_m must be 0 or above, got -1"):
        audit([pairs], [labels], buffer_m=-1)
    with pytest.raises(ValueError, match="max_hash_distance must be 0-127, got 128"):
        audit([pairs], [labels], max_hash_distance=128)
