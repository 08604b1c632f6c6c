"""Pusher: a model is visible as a whole or not at all."""

import os
import resource
from types import SimpleNamespace

import pytest
from tfx.proto.pusher_pb2 import PushDestination
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from beam_jobs.contracts.locations import locate
from components import pusher
from components.artifacts import list_tree
from components.blessing import write_blessing
from components.publishing import find_published

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": os.urandom(300_000),
    "assets.extra/model_card.json": b"{}",
}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def full_disk():
    """No file may grow beyond 100 kB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield SimpleNamespace(end=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_push_is_a_new_version_with_all_files(model, tmp_path):
    first, second = (pusher.push(str(model), f"{tmp_path}/serving/flood") for _ in range(2))
    assert content(first) == content(second) == FILES
    assert int(second.name) > int(first.name)
    assert find_published(str(tmp_path / "serving"), "flood") == second


def test_a_full_disk_leaves_nothing_and_the_next_push_works(model, tmp_path, full_disk):
    serving = tmp_path / "serving" / "flood"
    with pytest.raises(OSError, match="File too large"):
        pusher.push(str(model), str(serving))
    assert list(serving.iterdir()) == []
    full_disk.end()
    assert content(pusher.push(str(model), str(serving))) == FILES


def test_what_a_killed_push_left_is_removed_and_no_version(model, tmp_path):
    left = tmp_path / "serving" / "flood" / ".pushing-17"
    (left / "assets.extra").mkdir(parents=True)
    (left / "assets.extra" / "model_card.json").write_text("{}")
    assert find_published(str(tmp_path / "serving"), "flood") is None
    pushed = pusher.push(str(model), str(left.parent))
    assert os.listdir(left.parent) == [pushed.name]


def test_a_model_goes_from_a_store_to_a_store_with_all_files(model, s3_folder):
    pusher.copy_model(model, locate(f"{s3_folder}/model"))
    target = pusher.push(f"{s3_folder}/model", f"{s3_folder}/serving/flood")
    sizes = {name: len(content) for name, content in FILES.items()}
    assert list_tree(target) == list_tree(locate(f"{s3_folder}/model")) == sizes
    assert list_tree(model) == sizes
    assert list_tree(locate(f"{s3_folder}/none")) == {}
    assert find_published(f"{s3_folder}/serving", "flood") == target


def test_a_model_that_is_gone_makes_no_version(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model"):
        pusher.push(str(tmp_path / "gone"), f"{tmp_path}/serving/flood")
    assert find_published(str(tmp_path / "serving"), "flood") is None


def test_files_that_make_a_model_visible_come_last(model, tmp_path, monkeypatch):
    copied = []
    monkeypatch.setattr(pusher.locations, "copy_file", lambda source, _: copied.append(source.name))
    pusher.copy_model(model, tmp_path / "copy")
    assert copied[-2:] == ["saved_model.pb", "model_card.json"]
    assert len(copied) == len(FILES)


@pytest.mark.parametrize("is_blessed", [True, False])
def test_only_a_blessed_model_is_pushed(model, tmp_path, is_blessed):
    (tmp_path / "trained").mkdir()
    model.rename(tmp_path / "trained" / "Format-Serving")
    trained, blessing, pushed = (
        standard_artifacts.Model(),
        standard_artifacts.ModelBlessing(),
        standard_artifacts.PushedModel(),
    )
    trained.uri, blessing.uri, pushed.uri = (
        str(tmp_path / name) for name in ("trained", "blessing", "pushed")
    )
    write_blessing(blessing, trained, is_blessed)
    base = str(tmp_path / "serving" / "flood")
    destination = PushDestination(filesystem=PushDestination.Filesystem(base_directory=base))
    pusher.Executor().Do(
        {"model": [trained], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    found = find_published(str(tmp_path / "serving"), "flood")
    assert pushed.get_int_custom_property("pushed") == int(is_blessed)
    assert (found is not None) == is_blessed
    if is_blessed:
        assert content(found) == content(tmp_path / "pushed") == FILES
        assert pushed.get_string_custom_property("pushed_destination") == str(found)
        assert pushed.get_string_custom_property("pushed_version") == found.name
