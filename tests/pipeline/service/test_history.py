"""The history of a serving folder: who served when, as a table and as a page."""

import datetime
import json
import sqlite3
from contextlib import closing

import pytest

from beam_jobs.contracts import layout, published, set_aside, windows
from beam_jobs.contracts.manifest import WindowEntry
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.terminal import program
from models.publishing import labels, publication, rollback
from models.publishing.publication import Approval
from models.publishing.rollback import Steps
from pipeline import metadata_file
from pipeline.report.run_record import ArtifactRecord, ComponentRecord, RunRecord
from pipeline.service import attempts, history
from pipeline.service.cleaning import clean


@pytest.fixture
def months(monkeypatch):
    """A clock that goes on by a month with each look."""
    now = iter(f"{2026 + month // 12}-{month % 12 + 1:02}-01" for month in range(24))
    monkeypatch.setattr(labels, "now", lambda: next(now))


def make_model(folder, word, started_from=""):
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(word)
    card = {
        "inputs": {},
        "data_span": 2,
        "data_version": 1,
        "data_manifest_sha256": "0123456789abcdef",
        "started_from": {"s1": started_from} if started_from else {},
    }
    (folder / "assets.extra" / "model_card.json").write_text(json.dumps(card))
    return str(folder)


@pytest.fixture
def serving(tmp_path, months):
    """Three versions of a flood model; the third was rolled back to the second."""
    verdict = {"outcome": "blessed", "champion": "", "reasons": ["better <on> water"]}
    approval = Approval(reason="better", document=json.dumps(verdict))
    folder = tmp_path / "run" / "serving"
    for word in ("first", "second", "third"):
        model = make_model(tmp_path / word, word)
        publication.publish(model, str(folder / "flood"), approval)
    rollback.roll_back(
        folder / "flood",
        2,
        "misses rivers",
        Steps(check=lambda _: None, follow=lambda: None, withdraw=True),
    )
    return folder


def test_periods_of_service_follow_each_other(serving):
    found = history.read_history(str(serving), [])
    assert [(one.number, one.is_withdrawn, one.served) for one in found.versions] == [
        (1, False, (("2026-01-01", "2026-02-01"),)),
        (2, False, (("2026-02-01", "2026-03-01"), ("2026-04-01", ""))),
        (3, True, (("2026-03-01", "2026-04-01"),)),
    ]
    assert {(one.span, one.data_sha256, one.gate) for one in found.versions} == {
        ("2.1", "0123456789ab", "better <on> water")
    }
    assert [(change.action, change.old, change.new) for _, change in found.changes] == [
        ("publish", None, 1),
        ("publish", 1, 2),
        ("publish", 2, 3),
        ("rollback", 3, 2),
    ]


def test_a_clock_that_was_set_back_changes_no_order(tmp_path, monkeypatch):
    times = iter(["2026-03-01", "2020-01-01", "2026-02-01"])
    monkeypatch.setattr(labels, "now", lambda: next(times))
    for model, word in (("flood", "first"), ("flood", "second"), ("snow", "third")):
        publication.publish(
            make_model(tmp_path / word, word),
            str(tmp_path / "serving" / model),
            Approval(reason="better"),
        )
    assert published.in_service(tmp_path / "serving" / "flood").name == "2"
    found = history.read_history(str(tmp_path / "serving"), [])
    assert [(model, change.new) for model, change in found.changes if model == "flood"] == [
        ("flood", 1),
        ("flood", 2),
    ]
    assert [one.served[-1][1] for one in found.versions] == ["2020-01-01", "", ""]


WINDOW = windows.to_json(
    [
        WindowEntry(span=1, version=3, sha256="a", splits=windows.JUDGED),
        WindowEntry(span=2, version=1, sha256="b", splits=layout.SPLITS),
    ]
)


@pytest.mark.parametrize(
    ("window", "told"), [({}, "2.1"), ({"window": WINDOW}, "2.1; eval and test of 1.3")]
)
def test_a_run_tells_its_data_and_where_it_failed(window, told):
    examples = ArtifactRecord(uri="x", properties={"span": 2, "version": 1, **window})
    record = RunRecord(
        started_at=datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc),
        components=(
            ComponentRecord(
                component_id="ImportExampleGen-flood",
                is_cached=True,
                is_complete=True,
                num_seconds=0.0,
                outputs={"examples": examples},
            ),
            ComponentRecord(
                component_id="Trainer-flood",
                is_cached=False,
                is_complete=False,
                num_seconds=1.0,
                outputs={},
            ),
        ),
    )
    (run,) = history.read_history("nowhere", [record]).runs
    assert run == history.Run(
        started_at="2026-03-01T00:00:00+00:00",
        spans={"flood": told},
        num_ran=0,
        num_cached=1,
        failed=("Trainer-flood",),
    )


def test_the_verb_writes_a_page_with_the_same_facts(serving, capsys):
    attempts.begin(serving.parent, "0123")
    pairs = serving.parent / "data" / "pairs"
    folder = layout.version_dir(pairs, 4, 1)
    folder.mkdir(parents=True)
    (folder / layout.MANIFEST_NAME).write_text("{}")
    record = SetAside(span=4, version=1, at="2026-04-02", reasons=("VH <moved> by 6.15 spreads",))
    set_aside.add(pairs, record)
    assert program.run(["history", "--run", str(serving.parent)]) == 0
    shown = capsys.readouterr().out
    assert "misses rivers" in shown
    page = (serving.parent / "report" / "history.html").read_text()
    assert "better &lt;on&gt; water" in page
    assert "2026-03-01 to 2026-04-01" in page
    assert "killed, or still at work" in page
    refused = "<td>pairs 4.1</td><td>2026-04-02</td><td>not put back</td>"
    assert f"{refused}<td>VH &lt;moved&gt; by 6.15 spreads</td>" in page
    assert program.run(["history", "--run", str(serving.parent), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["set_aside"]
    assert (told["data"], told["span"], told["reasons"]) == ("pairs", 4, list(record.reasons))


def test_gc_keeps_what_serves_and_the_encoders_it_started_from(serving, tmp_path, capsys):
    encoders = [
        publication.publish(
            make_model(tmp_path / f"encoder-{word}", word),
            str(serving / "encoder"),
            Approval(reason="ok"),
        )
        for word in ("a", "b", "c", "d")
    ]
    model = make_model(tmp_path / "fourth", "fourth", started_from=str(tmp_path / "encoder-a"))
    publication.publish(model, str(serving / "flood"), Approval(reason="ok"))
    would = clean(str(serving), 1, is_dry=True)
    # encoder 1 is the ancestor of the segmenter in service, 3 was before 4.
    assert [(one.model, one.version) for one in would] == [
        ("encoder", 2),
        ("flood", 1),
        ("flood", 3),
    ]
    assert all(path.exists() for path in encoders)
    arguments = ["gc", "--run", str(serving.parent), "--keep-versions", "1", "--json"]
    assert program.run(arguments) == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 3
    assert [path.exists() for path in encoders] == [True, False, True, True]
    assert clean(str(serving), 1, is_dry=False) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "snow", "--to", "1"], 3, "versions of the model"),
        (["--model", "flood", "--to", "9"], 2, "--to 9: "),
        (["--model", "flood", "--to", "0"], 2, "--to"),
    ],
)
def test_a_rollback_to_nothing_is_one_line(serving, capsys, arguments, code, message):
    run = ["rollback", "--run", str(serving.parent), "--reason", "x", *arguments]
    assert program.run(run) == code
    assert message in capsys.readouterr().err


def other_version(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE MLMDEnv (schema_version INTEGER)")
        database.execute("INSERT INTO MLMDEnv VALUES (7)")
        database.commit()


@pytest.mark.parametrize(
    ("harm", "code", "message"),
    [
        (lambda path: path.write_text("text, and no database " * 9), 3, "not a database"),
        (other_version, 3, "needs tables of version 10, got tables of version 7"),
        (None, 1, "another process holds the metadata"),
    ],
    ids=["damaged", "version", "locked"],
)
def test_metadata_that_cannot_be_read_is_one_line(
    serving, monkeypatch, capsys, harm, code, message
):
    path = serving.parent / "metadata.sqlite"
    monkeypatch.setattr(metadata_file, "_WAIT_SECONDS", 0.2)
    with closing(sqlite3.connect(path)) as other:
        if harm is None:
            other.execute("CREATE TABLE a (b)")
            other.commit()
            other.execute("BEGIN EXCLUSIVE")
        else:
            harm(path)
        assert program.run(["history", "--run", str(serving.parent)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert message in line
