"""Versions: numbers grow, and a version is there whole or not at all."""

import collections
import functools
import itertools
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from beam_jobs.contracts import object_store, published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import list_tree, locate
from models.publishing import store
from tests.data.servers import s3_server


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


def test_a_version_that_was_moved_aside_is_removed_and_its_number_is_not_used_again(
    make_model, tmp_path
):
    version = store.withdraw(store.push(make_model(), str(tmp_path)))
    store.forget(version)
    assert not version.exists()
    assert store.push(make_model(), str(tmp_path)).name == "2"


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


CARD = "assets.extra/model_card.json"


def numbers_in(state):
    """Return number -> its files, in a state of a model's folder on a store."""
    found = collections.defaultdict(dict)
    for path, content in state.items():
        name, _, below = path.partition("/")
        if published.server_number(name) is not None:
            found[int(name)][below] = content
    return dict(found)


def marked_in(state):
    """Return the numbers that the next push looks at."""
    return {int(path.split("/")[0].removeprefix(".pushing-")) for path in state if ".pu" in path}


@functools.cache
def loads(files):
    """Return whether the model of these files loads, and multiplies by two."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files:
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        times = tf.saved_model.load(folder).signatures["serving_default"]
        return float(times(number=tf.constant(3.0))["product"]) == 6.0


def assert_numbers_load(states):
    for state in states:
        for files in numbers_in(state).values():
            # No loader reads other files.
            assert loads(
                tuple(
                    (name, content)
                    for name, content in sorted(files.items())
                    if name == "saved_model.pb" or name.startswith("variables/")
                )
            )


@pytest.fixture(scope="module")
def life(s3_environment, saved_model):
    """Return a function, which is called in a test: a fixture cannot skip a machine.

    It returns what is on a store after each request while a version comes, is moved
    aside, comes back and is removed.
    """

    @functools.cache
    def live():
        base = locate(f"{s3_server.new_folder('states')}/flood")
        s3_server.states(base)
        version = store.push(saved_model, str(base))
        store.forget(store.restore(store.withdraw(version)))
        return s3_server.states(base)

    return live


def test_at_any_moment_each_number_on_a_store_loads(life, saved_model):
    states = life()
    assert_numbers_load(states)
    shown = [sorted(numbers_in(state)) for state in states]
    assert [one for one, _ in itertools.groupby(shown)] == [[], [1], [], [1], []]
    whole = set(list_tree(locate(saved_model))) | {store.RECORD}
    for state in states:
        for number, files in numbers_in(state).items():
            # The card says that all is there. Without it, the next push looks at it.
            assert set(files) == whole if CARD in files else number in marked_in(state)


def test_what_a_process_that_was_killed_left_on_a_store_is_removed(life, s3_folder):
    kinds = collections.defaultdict(list)
    for state in life():
        if marked_in(state):
            cards = tuple(path for path in state if path.endswith(f"/{CARD}"))
            kinds[cards, tuple(numbers_in(state))].append(state)
    assert len(kinds) > 8
    for position, kind in enumerate(kinds.values()):
        state = kind[len(kind) // 2]
        base = locate(f"{s3_folder}/{position}")
        for path, content in state.items():
            (base / path).write_bytes(content)
        s3_server.states(base)
        store.remove_unfinished(base)
        seen = s3_server.states(base)
        assert_numbers_load(seen)
        complete = [number for number, files in numbers_in(state).items() if CARD in files]
        assert store.numbers(base) == complete
        assert not marked_in(seen[-1])
        # A version lies at its number or aside, never in both places.
        assert len(published.versions(base / store.WITHDRAWN)) <= 1 - len(complete)
        if numbers_in(state) or published.versions(base / store.WITHDRAWN):
            assert store.next_number(base) == 2


def test_folders_of_others_on_a_store_stay(saved_model, s3_folder):
    base = locate(f"{s3_folder}/flood")
    # Somebody copies a model there by hand.
    (base / "2" / "variables" / "index").write_text("x")
    # Ours, of a killed push; the graph is not what it was.
    (base / "1" / "saved_model.pb").write_text("no graph")
    (base / ".pushing-1" / "saved_model.pb").write_text("no graph")
    version = store.push(saved_model, str(base))
    assert sorted(published.server_number(path.name) or 0 for path in base.iterdir()) == [0, 2, 3]
    assert published.versions(base) == [version]


def test_a_model_that_is_no_single_file_is_refused_before_a_number_is_there(make_model, s3_folder):
    # Not at the top: what is forked above would carry TensorFlow along.
    from models.published.one_file import OneFileError

    with pytest.raises(OneFileError, match=r"model-first: must load from one file .*: "):
        store.push(make_model(), f"{s3_folder}/flood")
    assert not locate(f"{s3_folder}/flood").is_dir()


def test_uploads_that_a_killed_push_began_are_aborted(saved_model, s3_folder):
    import boto3

    client = boto3.client("s3")
    for model in ("flood", "floods"):
        key = f"{s3_folder}/{model}/.pushing-1/weights".removeprefix(f"s3://{s3_server.BUCKET}/")
        client.create_multipart_upload(Bucket=s3_server.BUCKET, Key=key)
    (locate(f"{s3_folder}/flood") / ".pushing-1" / store.RECORD).write_text("{}")
    store.push(saved_model, f"{s3_folder}/flood")
    left = client.list_multipart_uploads(Bucket=s3_server.BUCKET)["Uploads"]
    assert [one["Key"].split("/")[1] for one in left if s3_folder.split("/")[-1] in one["Key"]] == [
        "floods"
    ]


def test_a_push_goes_on_where_uploads_cannot_be_listed(s3_environment, caplog):
    assert object_store.abort_uploads("s3://terrapair-no-such-bucket/flood") == 0
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "s3://terrapair-no-such-bucket/flood: what killed uploads left cannot be removed "
        "(NoSuchBucket): give this user the rights s3:ListBucketMultipartUploads and "
    )


def test_a_model_that_is_gone_makes_no_version(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        store.push(str(tmp_path / "gone"), f"{tmp_path}/serving/flood")
    assert store.numbers(tmp_path / "serving" / "flood") == []
