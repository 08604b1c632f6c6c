"""SEN12MS' split lists: text of scenes or patches, given or found; pickles are never run."""

import pickle

import pytest

from beam_jobs.catalogs import sen12ms, sen12ms_splits
from beam_jobs.errors import DataError
from tests.data.scenes.make_datasets import make_sen12ms, scenes_of


def test_listed_scenes_are_held_out_with_all_their_patches_and_sensors(tmp_path):
    make_sen12ms(tmp_path)
    (tmp_path / "SEN12MS_holdOutScenes.txt").write_text(
        "ROIs1158_spring/s1_106\nROIs1868_summer/s1_43\n"
    )
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "ValidationScenes.txt").write_text("ROIs2017_winter/s2_1")
    found = {name: scene.split for name, scene in scenes_of("sen12ms", tmp_path).items()}
    for sensor in ("s1", "s2"):
        for patch in (30, 31):
            assert found[f"ROIs1158_spring_{sensor}_106_p{patch}"] == "test"
            assert found[f"ROIs2017_winter_{sensor}_1_p{patch}"] == "eval"
            assert found[f"ROIs1158_spring_{sensor}_1_p{patch}"] == "train"


def test_lists_of_patches_count_patch_by_patch_and_given_lists_go_before_found_ones(tmp_path):
    make_sen12ms(tmp_path)
    (tmp_path / "SEN12MS_holdOutScenes.txt").write_text("ROIs1158_spring/s1_106\n")
    given = tmp_path / "elsewhere" / "test_list.txt"
    given.parent.mkdir()
    given.write_text("ROIs1158_spring_s2_1_p31.tif\n")
    found = {
        item.id: item.properties["terrapair:split"]
        for item in sen12ms.read_sen12ms(tmp_path, [given])
    }
    assert {name for name, split in found.items() if split == "test"} == {
        "ROIs1158_spring_s1_1_p31",
        "ROIs1158_spring_s2_1_p31",
    }
    assert set(found.values()) == {"train", "test"}


def test_without_lists_nothing_is_declared(tmp_path):
    assert {scene.split for scene in scenes_of("sen12ms", make_sen12ms(tmp_path)).values()} == {
        None
    }


class _Harmful:
    def __reduce__(self):
        return exec, ("raise SystemError('the pickle ran')",)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "test_list.pkl"
    for protocol in (0, 4):
        path.write_bytes(pickle.dumps([_Harmful()], protocol))
        with pytest.raises(
            DataError,
            match=r"test_list\.pkl: a pickle can run code and is not read; use the \.txt list",
        ):
            sen12ms_splits.read(tmp_path)
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s2_1_p31.tif\n")
    assert sen12ms_splits.read(tmp_path) == {"ROIs1158_spring_1_31": "test"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test_list.txt", "a.tif", "must list scenes .* or patches, got 'a.tif'"),
        ("my_scenes.txt", "", "its name must say which split it lists"),
        (
            "train_list.txt",
            "ROIs1158_spring_s1_1_p31.tif",
            "lists ROIs1158_spring_1_31 for train, another list for test",
        ),
    ],
)
def test_lists_that_do_not_tell_are_named(tmp_path, name, text, message):
    first, path = tmp_path / "first_test_list.txt", tmp_path / name
    first.write_text("ROIs1158_spring_s2_1_p31.tif")
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        sen12ms_splits.read(tmp_path, [first, path])
    with pytest.raises(DataError, match=r"gone_test\.txt: cannot read the split list"):
        sen12ms_splits.read(tmp_path, [tmp_path / "gone_test.txt"])
