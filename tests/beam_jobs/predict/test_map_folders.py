"""Maps are visible when they are whole, and replace nothing but maps."""

import json

import pytest

from beam_jobs.build.patches import Rejection
from beam_jobs.errors import DataError
from beam_jobs.predict import map_folders, rejections, stac
from beam_jobs.storage import files

NAMES = ("class.tif", "probability.tif", "map.png")


def build(folder, made_from, names=NAMES):
    """The files of a map; each holds what it was made from."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"{name} {made_from}")
    item = {
        "properties": {stac.MADE_FROM: made_from},
        "assets": {name: {"href": f"./{name}"} for name in names},
    }
    (folder / stac.ITEM_FILE).write_text(json.dumps(item))
    return folder


def stage(output, built):
    """Its files beside the maps, as workers leave them."""
    staged = f"{output}/.predicting/{built.name}"
    expected = contents(str(built))
    map_folders.stage(built, staged)
    assert contents(staged) == expected
    return staged


def contents(folder):
    return {
        path[len(folder) + 1 :]: files.read_bytes(path).decode()
        for path in files.list_files(folder)
    }


@pytest.fixture(params=["here", "store"])
def output(request, tmp_path):
    """A folder of maps on this machine, then one on an object store."""
    if request.param == "here":
        (tmp_path / "maps").mkdir()
        return str(tmp_path / "maps")
    return request.getfixturevalue("s3_folder")


def test_a_map_replaces_an_older_one_with_other_files(output, tmp_path):
    folder = f"{output}/S1_a"
    assert map_folders.made_from(folder) is None
    older = build(tmp_path / "1", "one", (*NAMES, "polygons.gpkg"))
    map_folders.publish(stage(output, older), folder, (*NAMES, "polygons.gpkg"))
    map_folders.publish(stage(output, build(tmp_path / "3", "elsewhere")), f"{output}/S1_b", NAMES)
    map_folders.check_replaceable(folder)
    map_folders.publish(stage(output, build(tmp_path / "2", "two")), folder, NAMES)
    assert map_folders.made_from(folder) == "two"
    expected = build(tmp_path / "same", "two")
    assert contents(folder) == contents(str(expected))
    assert list(map_folders.items(output)) == ["S1_a/item.json", "S1_b/item.json"]
    assert not files.list_files(f"{output}/.predicting")


def test_a_publication_that_was_killed_is_no_map_and_can_be_repeated(
    s3_folder, tmp_path, monkeypatch
):
    folder = f"{s3_folder}/S1_a"
    older = build(tmp_path / "1", "one", (*NAMES, "polygons.gpkg"))
    map_folders.publish(stage(s3_folder, older), folder, (*NAMES, "polygons.gpkg"))
    move = files.move_files

    def move_one(source, target, names):
        move(source, target, names[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "move_files", move_one)
    staged = stage(s3_folder, build(tmp_path / "2", "two"))
    with pytest.raises(KeyboardInterrupt):
        map_folders.publish(staged, folder, NAMES)
    # Files of two maps lie there now, so there is no item.
    assert map_folders.made_from(folder) is None
    assert map_folders.items(s3_folder) == {}
    monkeypatch.undo()
    map_folders.check_replaceable(folder)
    expected = contents(str(build(tmp_path / "same", "two")))
    map_folders.publish(staged, folder, NAMES)
    assert contents(folder) == expected
    assert not files.list_files(staged)


def test_what_predict_did_not_write_is_never_replaced(tmp_path):
    folder = tmp_path / "S1_a"
    map_folders.publish(str(build(tmp_path / "1", "one")), str(folder), NAMES)
    (folder / "class.tif.aux.xml").write_text("of a viewer")
    map_folders.check_replaceable(str(folder))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"did not write \(notes\.txt\): choose another") as caught:
        map_folders.check_replaceable(str(folder))
    assert caught.value.exit_code == 2
    # A folder of a scene with the same name.
    scene = tmp_path / "S1_b"
    (scene / "granule").mkdir(parents=True)
    (scene / "granule/VV.tif").write_bytes(b"pixels")
    with pytest.raises(DataError, match="granule/VV"):
        map_folders.check_replaceable(str(scene))
    # The item of somebody else.
    other = tmp_path / "S1_c"
    other.mkdir()
    (other / "item.json").write_text(json.dumps({"properties": {"datetime": None}}))
    with pytest.raises(DataError, match=r"item\.json"):
        map_folders.check_replaceable(str(other))
    assert "S1_c/item.json" not in map_folders.items(str(tmp_path))
    (tmp_path / "S1_d").write_text("a file")
    with pytest.raises(DataError, match="a file"):
        map_folders.check_replaceable(str(tmp_path / "S1_d"))


def test_a_damaged_item_is_no_map_and_is_made_again(tmp_path):
    folder = str(tmp_path / "S1_a")
    map_folders.publish(str(build(tmp_path / "1", "one")), folder, NAMES)
    (tmp_path / "S1_a/item.json").write_text('{"properties": ')
    assert map_folders.made_from(folder) is None
    map_folders.check_replaceable(folder)
    map_folders.publish(str(build(tmp_path / "2", "one")), folder, NAMES)
    assert map_folders.made_from(folder) == "one"


def test_a_rejection_is_remembered_for_what_was_tried(output):
    refused = Rejection(kind="scenes", id="S1_a", reason="unreadable_raster", detail="why")
    assert rejections.recall(output, "S1_a", "one") is None
    rejections.remember(output, "S1_a", "one", refused)
    assert rejections.recall(output, "S1_a", "one") == refused
    # Another file of the scene, another setting, or another scene.
    assert rejections.recall(output, "S1_a", "two") is None
    assert rejections.recall(output, "S1_b", "one") is None
    rejections.forget(output, "S1_a")
    rejections.forget(output, "S1_a")
    assert rejections.recall(output, "S1_a", "one") is None
    rejections.remember(output, "S1_a", "one", refused)
    rejections.forget_all(output)
    assert rejections.recall(output, "S1_a", "one") is None
    files.write_bytes(f"{output}/.rejected/S1_a.json", b"{")
    assert rejections.recall(output, "S1_a", "one") is None
