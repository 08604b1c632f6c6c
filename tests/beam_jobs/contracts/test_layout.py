"""Path grammar: what is a version, which is the newest, how shards are called."""

import fnmatch
from pathlib import Path

import pytest

from beam_jobs.contracts import layout


def make(root: Path, name: str, manifest: bool = True) -> None:
    (root / name).mkdir(parents=True)
    if manifest:
        (root / name / "manifest.json").write_text("{}")


def test_version_and_building_directories_are_siblings():
    assert layout.version_dir("out", 3, 12) == Path("out/span-3/version-12")
    assert layout.building_dir("out", 3, 12).parent == layout.version_dir("out", 3, 12).parent


def test_a_version_being_built_matches_no_version_pattern():
    name = layout.building_dir("out", 1, 2).name
    assert not fnmatch.fnmatch(name, "version-*")
    assert name.startswith(".")


def test_the_newest_version_is_that_of_the_largest_numbers_not_texts(tmp_path):
    for name in ("span-2/version-9", "span-2/version-10", "span-1/version-11"):
        make(tmp_path, name)
    assert layout.list_versions(tmp_path) == [(1, 11), (2, 9), (2, 10)]


def test_a_directory_without_manifest_is_no_version(tmp_path):
    make(tmp_path, "span-1/version-1")
    make(tmp_path, "span-1/version-2", manifest=False)
    make(tmp_path, "span-1/.building-version-3")
    make(tmp_path, "span-1/version-4.bak")
    make(tmp_path, "span-x/version-5")
    assert layout.list_versions(tmp_path) == [(1, 1)]


def test_an_empty_or_absent_root_has_no_version(tmp_path):
    assert layout.list_versions(tmp_path) == []
    assert layout.list_versions(tmp_path / "absent") == []


def test_shard_names_have_five_digits():
    assert layout.shard_name("eval", 7, 12) == "eval/part-00007-of-00012.tfrecord.gz"


@pytest.mark.parametrize(
    ("split", "shard", "num_shards", "message"),
    [
        ("valid", 0, 1, "got 'valid'"),
        ("train", 3, 3, "got 3 of 3"),
        ("train", -1, 3, "got -1"),
        ("test", 0, 0, "0 of 0"),
    ],
)
def test_shard_names_outside_the_grammar_are_refused(split, shard, num_shards, message):
    with pytest.raises(ValueError, match=message):
        layout.shard_name(split, shard, num_shards)


def test_shards_are_listed_in_order_and_nothing_else_is(tmp_path):
    for name in (
        "part-00001-of-00002.tfrecord.gz",
        "part-00000-of-00002.tfrecord.gz",
        "part-00000-of-00002.tmp",
    ):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / name).touch()
    names = [path.name for path in layout.shard_paths(tmp_path, "train")]
    assert names == ["part-00000-of-00002.tfrecord.gz", "part-00001-of-00002.tfrecord.gz"]
    assert layout.shard_paths(tmp_path, "test") == []


def test_the_example_gen_pattern_matches_the_shards_of_its_split_only():
    pattern = layout.split_pattern("eval").format(SPAN=1, VERSION=2)
    root = layout.version_dir("", 1, 2)
    assert fnmatch.fnmatch(str(root / layout.shard_name("eval", 0, 1)), pattern)
    assert not fnmatch.fnmatch(str(root / layout.shard_name("train", 0, 1)), pattern)
    assert "{SPAN}" in layout.split_pattern("eval")
