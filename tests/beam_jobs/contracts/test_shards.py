"""Damaged shards: the file is named among many, whatever the damage is."""

import gzip
import shutil

import pytest
import tensorflow as tf

from beam_jobs.contracts import layout, manifest, shards
from beam_jobs.data_card import card
from beam_jobs.errors import DataError
from beam_jobs.judging import audit
from tests.data.faults import damage
from tests.data.shards.make_shards import make_version


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_version(tmp_path_factory.mktemp("pairs"), num_patches=8)


@pytest.fixture
def version(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "version")


def paths(version):
    return [str(path) for split in layout.SPLITS for path in layout.shard_paths(version, split)]


def read_all(files):
    for _ in tf.data.TFRecordDataset(files, "GZIP").batch(4):
        pass


def garbage(path):
    with gzip.open(path, "wb") as file:
        file.write(b"no records at all, but a sound gzip stream")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: damage.flip(path, 2), "gzip stream is broken"),
        (lambda path: damage.flip(path, 12), "gzip stream is broken"),
        (damage.flip, "gzip stream is broken"),
        (lambda path: damage.flip(path, -6), "gzip stream is broken"),
        (damage.cut, "gzip stream is broken"),
        (garbage, "it ends within record 0"),
    ],
)
def test_the_damaged_one_of_many_shards_is_named_with_its_cure(version, harm, why):
    files = paths(version)
    harm(files[1])
    with pytest.raises(shards.DamagedShardError) as caught, shards.named_damage(files):
        read_all(files)
    line = str(caught.value)
    assert line.startswith(f"{files[1]}: the shard is damaged: ")
    assert why in line
    assert line.endswith("or build the version again")
    assert "\n" not in line


@pytest.mark.parametrize("harm", [lambda path: damage.cut(path, 0), lambda p: damage.cut(p, -3)])
def test_damage_that_tensorflow_does_not_notice_is_found(version, harm):
    files = paths(version)
    harm(files[2])
    assert shards.find_damaged(files, {}).startswith(f"{files[2]}: the shard is damaged: ")


def test_a_readable_shard_of_another_version_is_known_by_its_hash(version, tmp_path):
    other = make_version(tmp_path / "other", num_patches=8, seed=3)
    files = paths(version)
    shutil.copy(paths(other)[0], files[0])
    entries = manifest.read(version).shards
    assert "its SHA-256 is" in shards.find_damaged(files, entries)
    assert shards.find_damaged(files[1:], entries) is None


def test_a_copy_of_tfx_is_made_again_by_removing_its_folder(version, tmp_path):
    copy = tmp_path / "Split-train" / "data_tfrecord-00000-of-00001.gz"
    copy.parent.mkdir()
    shutil.copy(paths(version)[0], copy)
    entries = manifest.read(version).shards
    assert shards.find_damaged([str(copy)], entries) is None
    damage.flip(copy)
    assert f"remove the folder {tmp_path} and run again" in shards.find_damaged([str(copy)], {})


def test_an_inflated_copy_is_checked_by_the_sums_of_its_records(version, tmp_path):
    copy = tmp_path / "cache.tfrecord"
    with gzip.open(paths(version)[0]) as file:
        copy.write_bytes(file.read())
    assert shards.find_damaged([str(copy)], {}) is None
    damage.flip(copy)
    assert "disk cache: remove it" in shards.find_damaged([str(copy)], {})


def test_other_errors_pass_unchanged_and_read_nothing(version):
    def files():
        raise AssertionError("no file may be read")

    with pytest.raises(KeyError, match="x"), shards.named_damage(files):
        raise KeyError("x")
    with pytest.raises(ValueError, match="incorrect"), shards.named_damage(paths(version)):
        raise ValueError("incorrect, but not for a damaged file")


def test_the_data_card_and_the_audit_name_the_shard(version, tmp_path):
    labels = make_version(tmp_path / "labels", kind="labels", label_schema="water", num_patches=6)
    path = damage.flip(layout.shard_paths(version, "train")[1])
    for read in (
        lambda: card.remake(version),
        lambda: audit.audit([str(version)], [str(labels)]),
    ):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: not a whole shard of patches: its gzip")
        assert "\n" not in str(caught.value)
