"""The disk cache holds what the shards hold, also with other writers and killed processes."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf

from models.reading.inflated_shards import inflate


def contents(files, compression):
    return [list(tf.data.TFRecordDataset(path, compression).as_numpy_iterator()) for path in files]


def test_copies_hold_the_records_of_their_shards_and_are_made_once(pairs, tmp_path):
    files = pairs.files["train"]
    copies = inflate(files, str(tmp_path))
    assert contents(copies, "") == contents(files, "GZIP")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert inflate(files[::-1], str(tmp_path)) == copies[::-1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_other_content_under_the_same_name_is_another_copy(pairs, tmp_path):
    shard = tmp_path / "part.gz"
    copies = []
    for source in pairs.files["train"]:
        shard.write_bytes(Path(source).read_bytes())
        copies += inflate([str(shard)], str(tmp_path / "cache"))
    assert contents(copies, "") == contents(pairs.files["train"], "GZIP")


def test_what_a_killed_process_left_is_written_anew(pairs, tmp_path):
    path = pairs.files["train"][0]
    name = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    (tmp_path / f".{name}.tfrecord.partial").write_bytes(
        b"half a copy, longer or shorter than the whole" * 10_000
    )
    copies = inflate([path], str(tmp_path))
    assert contents(copies, "") == contents([path], "GZIP")
    assert [found.name for found in tmp_path.iterdir()] == [f"{name}.tfrecord"]


def test_many_at_a_time_make_one_whole_copy(pairs, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: inflate(pairs.files["train"], str(tmp_path)), range(8)))
    assert len(set(made)) == 1
    assert contents(made[0], "") == contents(pairs.files["train"], "GZIP")
    assert sorted(map(str, tmp_path.iterdir())) == sorted(made[0])


def test_a_shard_cut_short_leaves_no_copy(pairs, tmp_path):
    shard = tmp_path / "part.gz"
    shard.write_bytes(Path(pairs.files["train"][0]).read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{shard}: must be a whole gzip file: "):
        inflate([str(shard)], str(tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("*.tfrecord")) == []


def test_a_folder_that_cannot_be_made_is_named(pairs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        inflate(pairs.files["train"], str(tmp_path / "file" / "cache"))
