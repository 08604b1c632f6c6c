"""Pusher: a model is visible as a whole or not at all."""

import os
import resource
from types import SimpleNamespace

import pytest
from tfx.proto.pusher_pb2 import PushDestination
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components import pusher
from components.blessing import write_blessing
from components.publishing import find_published
from models.publishing import store

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


def published_content(version):
    """Return the files of a version without those that the publication adds."""
    return {
        name: value
        for name, value in content(version).items()
        if name not in (store.RECORD, store.GATE)
    }


def test_a_full_disk_leaves_nothing_and_the_next_push_works(model, tmp_path, full_disk):
    serving = tmp_path / "serving" / "flood"
    with pytest.raises(OSError, match="File too large"):
        store.push(str(model), str(serving))
    assert list(serving.iterdir()) == []
    full_disk.end()
    assert published_content(store.push(str(model), str(serving))) == FILES


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
        assert published_content(found) == content(tmp_path / "pushed") == FILES
        assert pushed.get_string_custom_property("pushed_destination") == str(found)
        assert pushed.get_string_custom_property("pushed_version") == found.name
