"""Label subsets: nested, spread over the blocks, with unchanged records."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts import layout, manifest
from beam_jobs.contracts.shards import DamagedShardError
from beam_jobs.errors import DataError
from pipeline.claim_check import label_subsets
from tests.data.shards import make_shards


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 100))
def test_every_length_takes_about_the_same_share_of_each_block(blocks, seed):
    block = np.array(blocks)
    order = label_subsets.nested_order(block, seed)
    assert sorted(order) == list(range(len(block)))
    for length in range(1, len(block) + 1):
        taken = np.bincount(block[order[:length]], minlength=7)
        share = length / len(block)
        # Systematic sampling at one threshold is within one patch of each block's
        # share; the threshold itself varies.
        for number, size in zip(taken, np.bincount(block, minlength=7), strict=True):
            assert abs(number - share * size) <= 2.5


def test_another_seed_draws_other_labels():
    block = np.repeat(np.arange(5), 20)
    first, same, other = (label_subsets.nested_order(block, seed)[:10] for seed in (0, 0, 1))
    assert list(first) == list(same)
    assert set(first) != set(other)


def test_a_fraction_without_a_patch_is_refused():
    assert label_subsets.num_labelled(0.1, 30, "flood") == 3
    assert label_subsets.num_labelled(1.0, 30, "flood") == 30
    with pytest.raises(
        DataError,
        match=r"claim\.fractions: 0\.01 of the 30 .* patches of 'flood' is less than one patch",
    ):
        label_subsets.num_labelled(0.01, 30, "flood")


def test_subsets_hold_records_as_they_were_and_are_nested(tmp_path):
    water_version = make_shards.make_version(
        tmp_path / "labels", kind="labels", label_schema="water"
    )
    found = manifest.read(water_version)
    files = [str(path) for path in layout.shard_paths(water_version, "train")]
    everything = set(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    previous: set[bytes] = set()
    for number in (2, 5, found.num_examples["train"]):
        path = tmp_path / "subsets" / f"{number}.tfrecord.gz"
        label_subsets.write_subset(water_version, number, 3, path)
        records = list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())
        assert len(records) == len(set(records)) == number
        assert previous <= set(records) <= everything
        previous = set(records)
        assert [item.name for item in path.parent.iterdir() if item.name.startswith(".")] == []
    written = path.stat().st_mtime_ns
    label_subsets.write_subset(water_version, number, 3, path)
    assert path.stat().st_mtime_ns == written


def test_permuted_labels_belong_to_other_patches(tmp_path):
    version = make_shards.make_version(tmp_path / "labels", kind="labels", label_schema="water")
    features = {}
    for is_permuted in (False, True):
        path = tmp_path / str(is_permuted)
        label_subsets.write_subset(version, 9, 0, path, is_permuted=is_permuted)
        examples = [
            tf.train.Example.FromString(record).features.feature
            for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
        ]
        features[is_permuted] = [
            {name: item[name].bytes_list.value[0] for name in ("patch_id", "s1", "label")}
            for item in examples
        ]
    true, permuted = features[False], features[True]
    assert [item["patch_id"] for item in true] == [item["patch_id"] for item in permuted]
    assert [item["s1"] for item in true] == [item["s1"] for item in permuted]
    assert sorted(item["label"] for item in true) == sorted(item["label"] for item in permuted)
    assert all(one["label"] != other["label"] for one, other in zip(true, permuted, strict=True))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 100))
def test_units_are_taken_one_after_the_other(units, seed):
    unit = np.array(units)
    order = label_subsets.nested_units(unit, seed)
    assert sorted(order) == list(range(len(unit)))
    taken = unit[order]
    # Each unit is one run: it begins only where the one before it is used up.
    assert (taken[1:] != taken[:-1]).sum() == len(set(units)) - 1


def test_labels_are_drawn_by_scene_or_by_event(tmp_path):
    version = make_shards.make_version(tmp_path / "labels", kind="labels", label_schema="water")

    def drawn(name, draw, number):
        path = tmp_path / f"{name}-{draw}-{number}"
        label_subsets.write_subset(version, number, 3, path, draw=draw)
        return [
            tf.train.Example.FromString(record).features.feature[name].bytes_list.value[0]
            for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
        ]

    num_all = manifest.read(version).num_examples["train"]
    scenes = drawn("s1_scene_id", "scene", num_all)
    by_scene = drawn("s1_scene_id", "scene", 5)
    whole = [scene for scene in set(by_scene) if by_scene.count(scene) == scenes.count(scene)]
    assert len(whole) >= len(set(by_scene)) - 1
    with pytest.raises(DataError, match=r"claim\.draw is event, but \d+ of \d+ train patches"):
        drawn("event", "event", 5)


def test_a_damaged_shard_is_named(tmp_path):
    version = make_shards.make_version(tmp_path / "labels", kind="labels", label_schema="water")
    shard = next(iter(layout.shard_paths(version, "train")))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedShardError, match=shard.name):
        label_subsets.write_subset(version, 5, 3, tmp_path / "subset")
