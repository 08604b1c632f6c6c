"""Versions: numbers grow, and a version is there whole or not at all."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from beam_jobs.contracts import published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import list_tree, locate
from models.publishing import store


def test_numbers_grow_whatever_the_clock_and_other_folders_say(make_model, tmp_path, monkeypatch):
    base = tmp_path / "serving" / "flood"
    for name in ("²", "latest", "v2", "-1", "01", "1764490000", "9" * 30):
        (base / name).mkdir(parents=True)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    first = store.push(make_model(), str(base))
    second = store.push(make_model("second"), str(base))
    assert [first.name, second.name] == ["1764490001", "1764490002"]
    assert published.versions(base) == [first, second]
    # A server takes these names for numbers, too: absl::SimpleAtoi.
    assert store.numbers(base) == [-1, 1, 1764490000, 1764490001, 1764490002]


@pytest.mark.parametrize(
    ("name", "number"),
    [("007", 8), ("+6", 7), ("-1", 1), ("²", 1), ("latest", 1), ("v2", 1), ("1_0", 1), ("٣", 1)],
)
def test_a_new_version_is_above_all_that_a_server_takes_for_one(make_model, tmp_path, name, number):
    """A server of the largest number would otherwise go on with the folder of others."""
    (tmp_path / name).mkdir()
    version = store.push(make_model(), str(tmp_path))
    assert version.name == str(number)
    assert published.in_service(tmp_path) == version


def test_a_removed_number_is_not_used_again(make_model, tmp_path):
    base = tmp_path / "flood"
    store.push(make_model(), str(base))
    store.forget(store.push(make_model("second"), str(base)))
    assert store.push(make_model("third"), str(base)).name == "3"
    assert [path.name for path in published.versions(base)] == ["1", "3"]


def test_a_withdrawn_version_comes_back_and_keeps_its_number(make_model, tmp_path):
    base = tmp_path / "flood"
    version = store.push(make_model(), str(base))
    before = list_tree(version)
    aside = store.withdraw(version)
    assert published.versions(base) == []
    assert store.next_number(base) == 2
    assert list_tree(store.restore(aside)) == before
    assert published.versions(base) == [version]


def test_the_record_has_the_hash_of_the_model(make_model, tmp_path):
    model = make_model()
    version = store.push(model, str(tmp_path / "flood"), {store.GATE: b"{}\n"})
    assert store.model_sha256(version) == tree_sha256(model)
    assert (version / store.GATE).read_text() == "{}\n"
    # A version of an earlier release has no record.
    (version / store.RECORD).unlink()
    (version / store.GATE).unlink()
    assert store.model_sha256(version) == tree_sha256(model)


def kill_at(step: int, model: str, base: str) -> None:
    """Push in a child process that dies without a word at its n-th file operation."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return call

        for name in ("rename", "mkdir", "fsync", "open"):
            setattr(os, name, counted(getattr(os, name)))
        store.locations.copy_file = counted(store.locations.copy_file)
        store.push(model, base)
        os._exit(0)
    os.waitpid(child, 0)


def test_a_push_that_is_killed_anywhere_leaves_no_part_of_a_version(make_model, tmp_path):
    model, base = make_model(), tmp_path / "flood"
    names = set(list_tree(locate(model)))
    seen = set()
    for step in range(1, 40):
        kill_at(step, model, str(base))
        numbers = store.numbers(base)
        seen.add(len(numbers))
        for number in numbers:
            assert set(list_tree(base / str(number))) == {*names, store.RECORD}
    # Early kills leave nothing; later ones come after the version is there.
    assert 0 in seen
    assert max(seen) > 1
    left = store.push(model, str(base))
    assert not [path for path in base.iterdir() if path.name.startswith(store.HIDDEN)]
    assert published.versions(base)[-1] == left


def test_a_store_shows_what_a_server_loads_first_and_the_card_last(
    make_model, s3_folder, monkeypatch
):
    copied = []
    real = store.locations.copy_file

    def watched(source, target):
        copied.append(os.fspath(target).removeprefix(f"{s3_folder}/flood/"))
        real(source, target)

    monkeypatch.setattr(store.locations, "copy_file", watched)
    model = Path(make_model())
    (model / "assets.extra" / "tf_serving_warmup_requests").write_text("requests")
    version = store.push(str(model), f"{s3_folder}/flood", {store.GATE: b"{}"})
    numbered = [name for name in copied if name.startswith("1/")]
    # The numbered folder is filled from the store itself, when all is uploaded.
    assert copied.index(numbered[0]) == len(copied) - len(numbered)
    # A graph without variables would load, and answer nothing.
    assert numbered[0] == f"1/{store.RECORD}"
    assert numbered[1:] == [
        "1/assets.extra/tf_serving_warmup_requests",
        "1/variables/variables.data-00000-of-00001",
        "1/saved_model.pb",
        f"1/{store.GATE}",
        "1/assets.extra/model_card.json",
    ]
    assert published.versions(f"{s3_folder}/flood") == [version]


def test_what_a_killed_push_left_on_a_store_is_removed(make_model, s3_folder):
    base = locate(f"{s3_folder}/flood")
    (base / "1" / store.RECORD).parent.mkdir(parents=True)
    (base / "1" / store.RECORD).write_text(json.dumps({"sha256": "0"}))
    # Not ours: somebody copies a model there by hand.
    (base / "2" / "variables").mkdir(parents=True)
    (base / "2" / "variables" / "index").write_text("x")
    version = store.push(make_model(), f"{s3_folder}/flood")
    assert sorted(published.server_number(path.name) or 0 for path in base.iterdir()) == [0, 2, 3]
    assert published.versions(base) == [version]


def test_the_number_of_a_version_left_half_on_a_store_is_not_used_again(make_model, s3_folder):
    # A server that tried to load it does not try this number again.
    base = locate(f"{s3_folder}/flood")
    (base / "1" / store.RECORD).write_text(json.dumps({"sha256": "0"}))
    assert store.remove_unfinished(base) == ["1"]
    assert store.numbers(base) == []
    assert store.push(make_model(), f"{s3_folder}/flood").name == "2"


@pytest.mark.parametrize("num_removed", [0, 1, 2, 3])
def test_a_removal_on_a_store_that_is_killed_is_finished_by_the_next_push(
    make_model, s3_folder, monkeypatch, num_removed
):
    base = locate(f"{s3_folder}/flood")
    model = make_model()
    version = store.push(model, str(base))
    left = [num_removed]
    real = type(version).unlink

    def unlink(path):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path)

    monkeypatch.setattr(type(version), "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        store.forget(version)
    monkeypatch.undo()
    # The card goes first, the graph after all that a server does not load.
    assert (version / "assets.extra/model_card.json").exists() == (num_removed == 0)
    assert (version / "saved_model.pb").exists() == (num_removed < 2)
    assert store.push(model, str(base)).name == "2"
    assert store.numbers(base) == ([1, 2] if num_removed == 0 else [2])


def test_a_model_that_is_gone_makes_no_version(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        store.push(str(tmp_path / "gone"), f"{tmp_path}/serving/flood")
    assert store.numbers(tmp_path / "serving" / "flood") == []
