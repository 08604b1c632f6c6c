"""The index on disk: what was written is read, and nothing else is taken for an index."""

import dataclasses
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from beam_jobs.contracts import locations
from models.health import retrieval
from models.neighbours import index as index_lib
from tests.data.networks import make_index

NUM_PATCHES = 23


@pytest.fixture(scope="module")
def embeddings():
    return make_index.make_embeddings(NUM_PATCHES)


def batches(embeddings, sizes=(9, 0, 14)):
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        patches = [make_index.make_patch(number) for number in range(first, first + size)]
        yield {sensor: array[rows] for sensor, array in embeddings.items()}, patches
        first += size


@pytest.fixture
def folder(embeddings, tmp_path):
    index_lib.write_index(tmp_path / "index", make_index.make_source(), batches(embeddings))
    return tmp_path / "index"


def test_what_was_written_is_read(folder, embeddings):
    index = index_lib.read_index(folder)
    for sensor, expected in embeddings.items():
        rows = index.embeddings[sensor]
        assert isinstance(rows, np.memmap)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, expected)
        # As any other reader of .npy sees it.
        np.testing.assert_array_equal(np.load(folder / f"{sensor}.npy"), expected)
    assert index.patches == [make_index.make_patch(number) for number in range(NUM_PATCHES)]
    assert index.info.source == make_index.make_source()
    assert (index.info.num_patches, index.info.embedding_dim) == (
        NUM_PATCHES,
        make_index.EMBEDDING_DIM,
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.json",
        "patches.csv",
        "s1.npy",
        "s2.npy",
    ]


def test_recall_is_that_of_the_whole_index(folder, embeddings):
    info = index_lib.read_index(folder).info
    assert info.recall == retrieval.recall_metrics(retrieval.cross_modal_ranks(embeddings))
    assert 0 < info.recall["recall_at_1/s1_to_s2"] < 1
    assert info.num_recall_patches == NUM_PATCHES


def test_recall_of_a_large_index_is_of_patches_from_all_over_it(embeddings, tmp_path, monkeypatch):
    monkeypatch.setattr(index_lib, "MAX_RECALL_PATCHES", 3)
    info = index_lib.write_index(tmp_path / "index", make_index.make_source(), batches(embeddings))
    chosen = {sensor: array[[0, 11, 22]] for sensor, array in embeddings.items()}
    assert info.num_recall_patches == 3
    assert info.recall == retrieval.recall_metrics(retrieval.cross_modal_ranks(chosen))


def test_repeated_texts_are_interned(folder):
    patches = index_lib.read_index(folder).patches
    assert patches[0].s1_scene_id is patches[1].s1_scene_id


def test_a_source_that_fails_leaves_nothing_to_be_seen(embeddings, tmp_path):
    def failing():
        yield next(batches(embeddings))
        raise RuntimeError("the encoder died")

    with pytest.raises(RuntimeError, match="the encoder died"):
        index_lib.write_index(tmp_path / "index", make_index.make_source(), failing())
    assert list((tmp_path / "index").iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no finished index"):
        index_lib.read_index(tmp_path / "index")


@pytest.mark.parametrize("num_appeared", range(4))
def test_killed_while_its_files_appear_it_is_no_index_and_can_be_written_again(
    embeddings, tmp_path, monkeypatch, num_appeared
):
    replaced = []

    def replace(source, target):
        if len(replaced) == num_appeared:
            raise OSError("killed")
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(locations.os, "replace", replace)
    with pytest.raises(OSError, match="killed"):
        index_lib.write_index(tmp_path / "index", make_index.make_source(), batches(embeddings))
    assert len(replaced) == num_appeared
    with pytest.raises(FileNotFoundError, match="no finished index"):
        index_lib.read_index(tmp_path / "index")
    monkeypatch.undo()
    index_lib.write_index(tmp_path / "index", make_index.make_source(), batches(embeddings))
    assert len(index_lib.read_index(tmp_path / "index").patches) == NUM_PATCHES


def test_an_index_is_never_overwritten(folder, embeddings):
    with pytest.raises(
        FileExistsError, match="holds an index already, and an index is never overwritten"
    ):
        index_lib.write_index(folder, make_index.make_source(), batches(embeddings))


def test_an_embedding_that_is_not_finite_is_refused_with_its_patch(embeddings, tmp_path):
    broken = {sensor: array.copy() for sensor, array in embeddings.items()}
    broken["s2"][12, 3] = np.nan
    with pytest.raises(ValueError, match="patch patch-012: its s2 embedding must be finite"):
        index_lib.write_index(tmp_path / "index", make_index.make_source(), batches(broken))


@pytest.mark.parametrize("sizes", [(), (0, 0)])
def test_an_index_without_patches_is_refused(embeddings, tmp_path, sizes):
    with pytest.raises(
        ValueError,
        match="needs at least one patch with data in both sensors, got none in 40 records",
    ):
        index_lib.write_index(
            tmp_path / "index", make_index.make_source(), batches(embeddings, sizes)
        )


def cut_rows(folder):
    os.truncate(folder / "s2.npy", (folder / "s2.npy").stat().st_size - 1)


def empty_rows(folder):
    os.truncate(folder / "s1.npy", 0)


def other_rows(folder):
    np.save(folder / "s1.npy", np.zeros((NUM_PATCHES, 3), np.float32))


def other_file(folder):
    (folder / "s1.npy").write_bytes(pickle.dumps([1.0]))


def objects(folder):
    np.save(folder / "s1.npy", np.full((NUM_PATCHES, 8), None))


def cut_table(folder):
    lines = (folder / "patches.csv").read_text().splitlines(keepends=True)
    (folder / "patches.csv").write_text("".join(lines[:-1]))


def cut_line(folder):
    text = (folder / "patches.csv").read_text()
    (folder / "patches.csv").write_text(text[: text.rindex(",")])


def other_columns(folder):
    text = (folder / "patches.csv").read_text()
    (folder / "patches.csv").write_text(text.replace("patch_id", "id", 1))


def change_info(**changes):
    def change(folder):
        values = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(values | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_rows, r"s2\.npy: must be a complete \.npy of \(23, 8\)"),
        (empty_rows, r"s1\.npy: must be a complete \.npy of \(23, 8\)"),
        (
            other_rows,
            r"s1\.npy: must be float32 \(23, 8\) as in index\.json, got float32 \(23, 3\)",
        ),
        (other_file, r"s1\.npy: must be a complete \.npy of \(23, 8\)"),
        (objects, r"s1\.npy: must be float32 \(23, 8\) as in index\.json, got object \(23, 8\)"),
        (cut_table, r"patches\.csv: must have 23 patches, got 22"),
        (cut_line, r"patches\.csv: line 24: must have a value for each column"),
        (other_columns, r"patches\.csv: its first line must be patch_id,split,"),
        (change_info(format_version=9), "format_version must be 1, got 9: make the index again"),
        (change_info(colour="red"), "index.colour: unknown key"),
        (lambda folder: (folder / "index.json").write_text('{"num'), r"index\.json: must be JSON"),
    ],
)
def test_files_that_do_not_belong_together_are_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        index_lib.read_index(folder)
    assert "\n" not in str(caught.value)


def test_an_index_may_lie_on_an_object_store(s3_folder, embeddings):
    index_lib.write_index(f"{s3_folder}/index", make_index.make_source(), batches(embeddings))
    index = index_lib.read_index(f"{s3_folder}/index")
    for sensor, expected in embeddings.items():
        np.testing.assert_array_equal(index.embeddings[sensor], expected)
    assert index.patches[-1] == make_index.make_patch(NUM_PATCHES - 1)
    with pytest.raises(FileNotFoundError, match="no finished index"):
        index_lib.read_index(f"{s3_folder}/other")


def test_files_without_their_info_are_no_index(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("index.json"))
    with pytest.raises(FileNotFoundError, match="no finished index"):
        index_lib.read_index(copy)


def test_the_info_tells_what_the_index_was_made_of(folder):
    values = json.loads((folder / "index.json").read_text())
    source = dataclasses.asdict(make_index.make_source())
    assert values["source"] == source | {"splits": ["eval"]}
    assert values["format_version"] == index_lib.FORMAT_VERSION
    assert values["code_version"]
