"""Locations: the same calls on a folder of this machine and on a loopback S3 server."""

import pickle
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs.contracts import layout, locations, manifest


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_folder")


def test_a_path_is_a_pathlib_path_and_a_uri_stays_whole_through_joins_and_pickles():
    assert type(locations.parse("a/b")) is type(Path("a/b"))
    found = pickle.loads(pickle.dumps(locations.parse("s3://bucket/a") / "b" / "c.txt"))
    assert str(found) == "s3://bucket/a/b/c.txt"
    assert (str(found.parent), found.name, found.parent.name) == ("s3://bucket/a/b", "c.txt", "b")
    with pytest.raises(ValueError, match=r"https://x/y: must be a path, or a URI of one of s3, gs"):
        locations.parse("https://x/y")


def test_a_staged_file_appears_whole_or_not_at_all(folder):
    path = locations.locate(folder) / "deep" / "file.bin"
    with pytest.raises(IsADirectoryError), locations.staged(path) as partial:
        partial.write_bytes(b"half") and partial.parent.read_bytes()
    assert not path.exists()
    for data in (b"first", b"second, longer"):
        with locations.staged(path) as partial:
            partial.write_bytes(data)
        assert path.read_bytes() == data
    assert [found.name for found in path.parent.glob("*")] == ["file.bin"]
    assert locations.size(path) == len(b"second, longer")
    assert locations.size(path.parent / "absent") is None


def test_tensorflow_loads_a_model_below_a_folder_that_looks_like_a_pattern(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable([2.0, 3.0])
    path = tmp_path / "runs [v1] {a,b}*?" / "model"
    tf.saved_model.save(module, str(path))
    with pytest.raises((FileNotFoundError, tf.errors.NotFoundError)):
        tf.saved_model.load(str(path))
    with locations.without_pattern(path) as readable:
        assert tf.saved_model.load(readable).weight.numpy().tolist() == [2.0, 3.0]
    assert not Path(readable).exists()
    with locations.without_pattern(tmp_path) as readable:
        assert readable == str(tmp_path)


def test_only_the_pattern_is_a_pattern(folder):
    names = ("runs [v1] {a,b}*?", "runs v {a,b}x!", "runs 1")
    for name in names:
        for file in ("a.json", "b.txt", "deep/c.json"):
            with locations.staged(f"{folder}/{name}/{file}") as partial:
                partial.write_text(name)
    for name in names:
        found = locations.glob(f"{folder}/{name}", "*.json")
        assert [str(path) for path in found] == [f"{folder}/{name}/a.json"]
        (deep,) = locations.glob(f"{folder}/{name}", "d*/c.json")
        assert deep.read_text() == name
        assert locations.glob(f"{folder}/{name}", "*/none.json") == []
    assert locations.glob(f"{folder}/none [1]", "*") == []


@pytest.mark.parametrize("name", ["data", "data [v1]*?"])
def test_what_has_no_manifest_is_not_a_version(folder, name):
    folder = f"{folder}/{name}"
    root = locations.locate(folder)
    assert layout.list_versions(folder) == []
    files = {
        "span-1/version-2/train/part-00000-of-00002.tfrecord.gz": b"b",
        "span-1/version-2/train/part-00001-of-00002.tfrecord.gz": b"a",
        "span-1/version-2/manifest.json": b"{}",
        # What a job leaves that was killed while it moved objects, and one that is
        # still building.
        "span-1/version-3/train/part-00000-of-00001.tfrecord.gz": b"x",
        "span-1/.building-version-4/manifest.json": b"{}",
        "span-10/version-1/manifest.json": b"{}",
    }
    for name, data in files.items():
        with locations.staged(root / name) as partial:
            partial.write_bytes(data)
    assert layout.list_versions(folder) == [(1, 2), (10, 1)]
    shards = layout.shard_paths(layout.version_dir(folder, 1, 2), "train")
    assert [path.read_bytes() for path in shards] == [b"b", b"a"]
    with pytest.raises(
        FileNotFoundError,
        match=r"version-3/manifest.json: no manifest, so this is no finished version",
    ):
        manifest.read(layout.version_dir(folder, 1, 3))


def test_copy_and_remove_tree_work_alike_on_disk_and_store(folder):
    root = locations.locate(folder)
    for name in ("a/step-2/y.txt", "a/step-10/x.txt"):
        with locations.staged(root / name) as partial:
            partial.write_text(name)
    locations.copy_file(root / "a/step-2/y.txt", root / "a/step-10/x.txt")
    assert (root / "a/step-10/x.txt").read_text() == "a/step-2/y.txt"
    locations.remove_tree(f"{folder}/a/step-2")
    assert [str(found) for found in (root / "a").glob("*/*")] == [f"{folder}/a/step-10/x.txt"]
    locations.remove_tree(f"{folder}/none")


def test_a_local_file_is_copied_to_a_store_and_back(s3_folder, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    locations.copy_file(tmp_path / "file", f"{s3_folder}/copy")
    locations.copy_file(f"{s3_folder}/copy", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
