"""A run that meets refused spans, with a function in place of the pipeline."""

import pytest

from beam_jobs.contracts import layout, set_aside
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.errors import NothingNewError, RefusedError
from beam_jobs.terminal.session import Session
from pipeline import data_build
from pipeline.config import load_run_config
from pipeline.data_build import BuiltData
from pipeline.refused_spans import read_refused
from pipeline.runners import local, whole_run
from tests.data.runs.repository import REPOSITORY


@pytest.fixture
def config(tmp_path):
    path = REPOSITORY / "pipeline/configs/smoke.yaml"
    found = load_run_config(path, [f"root={tmp_path / 'run'}", "spans=all"], {})
    for name, spans in (("pairs", (1, 2)), ("flood", (1, 2)), ("landcover", (1,))):
        for span in spans:
            folder = layout.version_dir(f"{found.root}/data/{name}", span, 1)
            folder.mkdir(parents=True)
            (folder / layout.MANIFEST_NAME).write_text("{}")
    return found


def runs(config, *refused):
    """Return a pipeline that refuses these data sets one after another, and its calls."""
    rest, calls = list(refused), []

    def run():
        calls.append(len(calls))
        if not rest:
            return
        name, span = rest.pop(0)
        if span is not None:
            record = SetAside(span=span, version=1, at="2026-02-01", reasons=(f"{name} is odd",))
            set_aside.add(f"{config.root}/data/{name}", record)
        raise RefusedError(f"{name} is odd", "data_drift")

    return run, calls


def good_spans(config, new, *refused):
    run, calls = runs(config, *refused)
    told = []
    try:
        return whole_run.run_good_spans(config, new, run, told.append), told, len(calls)
    except RefusedError as error:
        return str(error), told, len(calls)


def test_a_run_goes_on_with_what_else_is_new_and_tells_what_was_refused(config):
    assert good_spans(config, ("pairs", "flood")) == ((), [], 1)
    # The pairs of the month are refused, its labels are good.
    found = good_spans(config, ("pairs", "flood"), ("pairs", 2))
    assert found == (("pairs is odd",), ["pairs is odd"], 2)


def test_an_older_span_that_is_refused_late_does_not_stop_the_newest(config):
    assert good_spans(config, ("pairs",), ("pairs", 1)) == (
        ("pairs is odd",),
        ["pairs is odd"],
        2,
    )


def test_a_run_ends_and_names_all_when_nothing_new_is_left(config):
    found = good_spans(config, ("pairs", "flood"), ("pairs", 2), ("flood", 2))
    aside = "set aside in this run: flood 2.1, pairs 2.1: `terrapair history` shows all reasons"
    assert found == (f"flood is odd; {aside}", ["pairs is odd"], 2)


def test_another_gate_ends_a_run_that_went_on_without_some_data(config):
    found = good_spans(config, ("landcover", "flood"), ("landcover", 1), ("a model", None))
    aside = "set aside in this run: landcover 1.1: `terrapair history` shows all reasons"
    assert found == (f"a model is odd; {aside}", ["landcover is odd"], 2)


@pytest.mark.parametrize(
    ("new", "refused"),
    [
        # `run` without --new-span has nothing new: it shows the refusal.
        ((), ("pairs", 2)),
        # The settings are at fault, or another gate refuses: again would be the same.
        (("pairs",), ("pairs", None)),
    ],
)
def test_a_refusal_that_another_run_would_meet_again_ends_it(config, new, refused):
    assert good_spans(config, new, refused) == ("pairs is odd", [], 1)


def test_what_was_set_aside_is_told_in_a_sentence(config):
    root = f"{config.root}/data/pairs"
    reasons = ("VH: the mean is -30 dB", "VV: the mean is -20 dB", "a third")
    set_aside.add(root, SetAside(span=1, version=1, at="2026-02-01", reasons=reasons))
    (one,) = read_refused(config.root)
    assert (one.data, one.is_newest, one.is_left_out) == ("pairs", False, True)
    assert one.sentence == (
        "pairs: span 1.1 was set aside 2026-02-01 (windows leave it out): VH: the mean is -30 dB; "
        "and 2 more"
    )
    set_aside.put_back(root, [1], "2026-03-01")
    (one,) = read_refused(config.root)
    assert not one.is_left_out
    assert "(put back 2026-03-01): VH" in one.sentence
    # A second look does not move the time.
    set_aside.put_back(root, [1], "2026-04-01")
    assert read_refused(config.root) == (one,)


@pytest.mark.parametrize(
    ("rule", "new", "drifted", "is_run"),
    [
        ("new", (), (), False),
        ("new", (), ("flood: drifted",), True),
        # Nobody looks for drift where scenes are new, or where the newest span is read.
        ("new", ("flood",), None, True),
        ("newest", (), None, True),
        ("new_or_newest", (), None, True),
    ],
)
def test_a_run_without_new_scenes_goes_on_only_for_drift(
    config, monkeypatch, capsys, rule, new, drifted, is_run
):
    built = BuiltData(pairs=None, tasks={}, new=new)
    calls = []
    monkeypatch.setattr(data_build, "build_data", lambda *_, **__: built)
    monkeypatch.setattr(local, "run_local", lambda *_: calls.append("run"))
    monkeypatch.setattr(whole_run, "read_finished", lambda *_, **__: "finished")

    def find_drift(stage):
        assert drifted is not None
        calls.append("look")
        return drifted

    def run():
        return whole_run.run_whole(
            config, config.metadata_path, Session(), rule, find_drift=find_drift
        )

    if is_run:
        assert run() == "finished"
    else:
        with pytest.raises(NothingNewError, match="every scene is in an earlier span"):
            run()
    assert calls == ["look"] * (drifted is not None) + ["run"] * is_run
    assert ("flood: drifted" in capsys.readouterr().err) == bool(drifted)
