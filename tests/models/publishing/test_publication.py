"""Publishing, rollback and retention: labels, history, and what a kill leaves."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from beam_jobs.contracts import published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.terminal import program
from models.publishing import labels, publication, retention, rollback, store
from models.publishing.publication import Approval, publish
from models.publishing.rollback import RollbackError, Steps, roll_back
from tests.data.faults.file_limit import file_limit

APPROVAL = Approval(reason="better", document="{}\n", since="s0", run="test")


def steps(withdraw=True, check=lambda _: None, follow=lambda: None):
    return Steps(check=check, follow=follow, withdraw=withdraw)


@pytest.fixture
def base(tmp_path):
    return str(tmp_path / "serving" / "flood")


@pytest.fixture
def three(base, make_model):
    """Versions 1 to 3 of three models; 3 is in service."""
    for word in ("first", "second", "third"):
        publish(make_model(word), base, APPROVAL)
    return base


def actions(base):
    return [(one.action, one.old, one.new) for one in labels.read_history(base)]


def test_a_model_is_published_once_and_labelled(make_model, base):
    model = make_model()
    first = publish(model, base, APPROVAL)
    assert publish(model, base, Approval(reason="again", since="s1")) == first
    assert published.in_service(base) == first
    assert actions(base) == [("publish", None, 1)]
    assert published.read_labels(base).since == "s0"
    assert publication.is_in_service(model, base)
    assert not publication.is_in_service(make_model("second"), base)


def test_an_old_model_that_is_published_again_gets_a_new_number(make_model, three):
    again = publish(make_model("first"), three, APPROVAL)
    assert again.name == "4"
    assert published.in_service(three) == again
    assert actions(three)[-1] == ("publish", 3, 4)


@pytest.mark.parametrize("killed_after", ["push", "note"])
def test_publishing_goes_on_where_it_was_killed(make_model, base, monkeypatch, killed_after):
    publish(make_model("first"), base, APPROVAL)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(labels, "note" if killed_after == "push" else "put", die)
        with pytest.raises(KeyboardInterrupt):
            publish(make_model("second"), base, APPROVAL)
    # The old version is in service until the last step.
    assert published.in_service(base).name == "1"
    assert publish(make_model("second"), base, APPROVAL).name == "2"
    assert actions(base) == [("publish", None, 1), ("publish", 1, 2)]
    assert published.in_service(base).name == "2"


def test_a_version_that_somebody_removed_is_published_anew(make_model, three):
    """It is the cure for a damaged one."""
    shutil.rmtree(Path(three) / "3")
    assert published.in_service(three) is None
    again = publish(make_model("third"), three, APPROVAL)
    assert again.name == "4"
    assert published.in_service(three) == again
    assert actions(three)[-1] == ("publish", None, 4)


def test_what_a_killed_push_left_goes_although_nothing_is_copied(make_model, base):
    first = publish(make_model("first"), base, APPROVAL)
    (Path(base) / f"{store.HIDDEN}2" / "variables").mkdir(parents=True)
    assert publish(make_model("first"), base, APPROVAL) == first
    assert not list(Path(base).glob(f"{store.HIDDEN}*"))


def test_a_rollback_tries_the_version_then_moves_the_label(three):
    order = []
    done = roll_back(
        three,
        1,
        "floods  in\nGhana are missed",
        steps(
            check=lambda path: order.append(("check", path.name, published.in_service(three).name)),
            follow=lambda: order.append(("follow", published.in_service(three).name)),
        ),
    )
    assert order == [("check", "1", "3"), ("follow", "1")]
    assert done == published.in_service(three)
    assert [path.name for path in published.versions(three)] == ["1"]
    last = labels.read_history(three)[-1]
    assert (last.action, last.old, last.new) == ("rollback", 3, 1)
    assert last.reason == "floods in Ghana are missed"
    # A second time nothing is left to do.
    roll_back(three, 1, "again", steps())
    assert len(labels.read_history(three)) == 4


@pytest.mark.parametrize("killed_before", ["note", "put"])
def test_a_rollback_that_is_killed_has_one_line_in_the_end(three, monkeypatch, killed_before):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(labels, killed_before, die)
        with pytest.raises(KeyboardInterrupt):
            roll_back(three, 1, "worse", steps())
    # The old version is in service until the last step.
    assert published.in_service(three).name == "3"
    roll_back(three, 1, "worse", steps())
    assert published.in_service(three).name == "1"
    assert actions(three)[3:] == [("rollback", 3, 1)]


def test_a_rollback_moves_all_aside_that_a_server_would_take_before(three):
    for name in ("9", "007", "latest", "v8", "01"):
        (Path(three) / name / "variables").mkdir(parents=True)
    roll_back(three, 1, "worse", steps())
    left = {path.name for path in Path(three).iterdir() if path.is_dir()}
    assert left == {"1", "01", "latest", "v8", store.WITHDRAWN}
    # Only complete versions can be served again.
    with pytest.raises(RollbackError, match="it has 1, 2, 3"):
        roll_back(three, 9, "better", steps())
    assert roll_back(three, 3, "better", steps()).name == "3"


def test_servers_that_read_labels_keep_the_newer_folders(three):
    roll_back(three, 2, "worse", steps(withdraw=False))
    assert [path.name for path in published.versions(three)] == ["1", "2", "3"]
    assert published.in_service(three).name == "2"


def test_a_withdrawn_version_can_be_served_again(three):
    roll_back(three, 1, "worse", steps())
    assert rollback.was_rolled_back(three, store.model_sha256(store.locate(three) / ".withdrawn/3"))
    roll_back(three, 3, "it was the data", steps())
    assert published.in_service(three).name == "3"
    assert rollback.was_rolled_back(three, store.model_sha256(published.in_service(three))) is None


def test_the_model_that_was_rolled_back_is_known_by_its_content(make_model, three):
    roll_back(three, 2, "misses rivers", steps())
    why = rollback.was_rolled_back(three, tree_sha256(make_model("third")))
    assert why.startswith("version 3 was rolled back at ")
    assert why.endswith(": misses rivers")
    assert rollback.was_rolled_back(three, tree_sha256(make_model("first"))) is None


def test_a_version_that_cannot_be_served_stays_out(three):
    def refuse(_):
        raise RollbackError("it does not load")

    with pytest.raises(RollbackError, match="does not load"):
        roll_back(three, 1, "worse", steps(check=refuse))
    assert published.in_service(three).name == "3"
    with pytest.raises(RollbackError, match=r"--to 9: .* no complete version 9; it has 1, 2, 3"):
        roll_back(three, 9, "worse", steps())
    with pytest.raises(RollbackError, match="--reason"):
        roll_back(three, 1, " ", steps())


def test_the_state_is_that_of_before_and_changes_with_a_rollback(make_model, base):
    assert labels.state_of(base) != labels.state_of(base)
    publish(make_model(), base, APPROVAL)
    assert labels.state_of(base) == "s0"
    publish(make_model("second"), base, Approval(reason="x", since="s1"))
    assert labels.state_of(base) == "s1"
    roll_back(base, 1, "worse", steps())
    assert labels.state_of(base) not in ("s0", "s1")
    assert labels.state_of(base) == labels.state_of(base)


def test_retention_keeps_what_is_needed(make_model, three):
    publish(make_model("fourth"), three, APPROVAL)
    publish(make_model("fifth"), three, APPROVAL)
    roll_back(three, 2, "worse", steps(withdraw=False))
    # 2 is in service, 1 was before it, and 5 is the newest.
    gone = retention.removable(three, 1, needed={3})
    assert [path.name for path in gone] == ["4"]
    retention.remove(gone[0], "retention")
    assert actions(three)[-1] == ("remove", None, 4)
    assert [path.name for path in published.versions(three)] == ["1", "2", "3", "5"]
    assert store.next_number(three) == 6
    with pytest.raises(ValueError, match="keep_versions"):
        retention.removable(three, 0)


@pytest.mark.parametrize(
    ("num_bytes", "numbers"), [(500, [1]), (10_000, [1, 2])], ids=["copy", "history"]
)
def test_a_full_disk_leaves_the_old_version_in_service(make_model, base, num_bytes, numbers):
    first = publish(make_model("first"), base, APPROVAL)
    history = store.locate(base) / labels.HISTORY_NAME
    history.write_text(history.read_text() * 100)
    with file_limit(num_bytes), pytest.raises(OSError, match="File too large"):
        publish(make_model("second"), base, APPROVAL)
    assert published.in_service(base) == first
    assert store.numbers(base) == numbers
    assert sorted(path.name for path in Path(base).glob(".*")) == []
    # With space again, the next run does what is missing.
    assert publish(make_model("second"), base, APPROVAL).name == "2"
    assert published.in_service(base).name == "2"
    assert store.numbers(base) == [1, 2]


@pytest.fixture
def public():
    """A folder that other users can reach; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory(prefix="terrapair-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def read_only(folder):
    """Take the rights to write below a folder. Root becomes another user meanwhile."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    user = os.geteuid()
    for path in folders:
        path.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in folders:
            path.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_noticed_before_a_training(public):
    serving = public / "run/serving"
    serving.mkdir(parents=True)
    store.check_writable(serving / "flood")
    # Nothing is left, and no folder of a model is made.
    assert list(serving.iterdir()) == []
    with read_only(serving):
        for folder in (serving / "flood", serving):
            with pytest.raises(store.UnwritableError) as refused:
                store.check_writable(folder)
            assert str(refused.value) == (
                f"{serving}: must be writable, so that models can be published in {folder}, got: "
                "Permission denied: give this user the right to write there; nothing was built or "
                "trained"
            )


def test_a_store_that_cannot_be_written_is_noticed_before_a_training(s3_folder):
    store.check_writable(f"{s3_folder}/flood")
    assert not store.locate(s3_folder).exists()
    nowhere = "s3://terrapair-no-such-bucket/serving/flood"
    with pytest.raises(store.UnwritableError, match=f"^{nowhere}: must be writable, "):
        store.check_writable(nowhere)


def test_a_folder_that_cannot_be_written_goes_on_serving(make_model, public, capsys):
    base = public / "run/serving/flood"
    first, second = (
        shutil.copytree(make_model(word), public / word) for word in ("first", "second")
    )
    version = publish(str(first), str(base), APPROVAL)
    publish(str(second), str(base), APPROVAL)
    with read_only(public / "run"):
        with pytest.raises(PermissionError, match=f"'{base}/"):
            publish(str(first), str(base), APPROVAL)
        with pytest.raises(PermissionError, match=f"'{base}/"):
            roll_back(base, 1, "worse", steps())
        assert program.run(["gc", "--run", str(public / "run")]) == 1
        # This version is in service already, so nothing is written.
        assert publish(str(second), str(base), APPROVAL) == base / "2"
        assert published.in_service(base) == base / "2"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {public}/run/")
    assert "permission denied" in line
    assert store.numbers(base) == [1, 2]
    assert roll_back(base, 1, "worse", steps()) == version
