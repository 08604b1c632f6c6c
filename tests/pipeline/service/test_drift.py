"""The verb `drift` on made spans, and on folders that lack something.

tests/e2e/test_smoke.py has one on the data and models of a whole run.
"""

import json
import re
import shutil
from contextlib import contextmanager

import pytest
import yaml

from beam_jobs.contracts import manifest, set_aside, settings
from beam_jobs.contracts.set_aside import SetAside
from models.drift.reference import ServedReference, published_files
from models.drift.report import DriftReport, Finding
from models.publishing.publication import Approval, publish
from pipeline.config import load_run_config
from pipeline.service import drift
from pipeline.service.drift import read_version
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline_here
from tests.data.shards import make_poison, make_shards


def make_root(folder):
    """Return the root of a run that has built nothing; its config names another folder."""
    config = load_run_config(
        REPOSITORY / "pipeline/configs/smoke.yaml", ["root=moved/since", "drift.noise=3"], {}
    )
    text = yaml.safe_dump(settings.to_dict(config), sort_keys=False)
    (folder / "config.yaml").write_text(f"# sha256\n{text}")
    return folder


@pytest.fixture
def run_root(tmp_path):
    return make_root(tmp_path)


def error_of(*arguments):
    ended = run_pipeline_here("drift", *arguments)
    (line,) = ended.stderr.strip().splitlines()
    assert ended.stdout == ""
    return ended.returncode, line


def test_a_folder_of_no_run_is_bad_data(tmp_path):
    code, line = error_of("--run", str(tmp_path), "--span", "1")
    assert (code, line) == (
        3,
        f"error: {tmp_path}/config.yaml: no settings of a run: --run must name the root of one",
    )


def test_a_span_that_was_not_built_is_named_with_the_folder(run_root):
    code, line = error_of("--run", str(run_root), "--span", "7")
    assert code == 3
    assert line == (
        f"error: --span 7: no data set of {run_root}/data has it; built are none: build it by "
        "build-pairs, or by run"
    )


def test_a_wrong_setting_names_the_file_of_the_run(run_root):
    code, line = error_of("--run", str(run_root), "--span", "1", "--set", "drift.limits={x: 1}")
    assert code == 2
    assert line.startswith(f"error: {run_root}/config.yaml: drift: limits.x: no rule; known: ")


def shown_by(run_root, span, *options):
    """Exit code and words of the verb."""
    ended = run_pipeline_here("drift", "--run", str(run_root), "--span", str(span), *options)
    return ended.returncode, ended.stdout


def in_one_line(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Root with span 1 in service, span 2 with doubled decibels, and span 3 without VH.

    Nothing can load the encoder in service, which has no embeddings to compare.
    """
    root = make_root(tmp_path_factory.mktemp("served"))
    pairs = root / "data" / "pairs"
    made = {"size_px": 16, "s2_bands": ("B2", "B3", "B4")}
    good = make_shards.make_version(pairs, num_patches=48, seed=1, span=1, **made)
    make_poison.poison_version(good, pairs, 2, "doubled")
    make_shards.make_version(pairs, num_patches=8, span=3, s1_bands=("VV",), **made)
    config = load_run_config(root / "config.yaml", [f"root={root}"], {})
    model = root / "model"
    (model / "assets.extra").mkdir(parents=True)
    (model / "assets.extra" / "model_card.json").write_text('{"inputs": {}}')
    (model / "saved_model.pb").write_text("graph")
    files = published_files(read_version("pairs", good, config).reference)
    publish(str(model), f"{root}/serving/encoder", Approval(reason="first", files=files))
    return root


@pytest.mark.e2e
def test_without_a_model_in_service_there_is_no_reference_and_no_refusal(run_root):
    make_shards.make_version(run_root / "data" / "pairs", num_patches=8, size_px=16)
    code, text = shown_by(run_root, 1)
    assert (code, in_one_line(text)) == (
        0,
        "pairs 1.1: no reference yet no model in service has a reference of its data: nothing to "
        "compare with",
    )


@pytest.mark.e2e
def test_a_poisoned_span_has_a_score_a_table_and_exit_code_4(served):
    code, text = shown_by(served, 2)
    assert code == 4
    assert re.search(r"pairs 2.1: refused, score \d+\.\d+ of 1 against span 1.1 of ", text)
    assert f"{served}/serving/encoder/1" in in_one_line(text)
    assert "pairs: the 12 figures nearest to their limits" in in_one_line(text)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    rows = [row for row in rows if row and row[0].startswith("s1_")]
    about = [tuple(row[:2]) for row in rows]
    assert {("s1_mean", "VH"), ("s1_spread", "VV"), ("s1_spread", "VV within a patch")} <= {*about}
    assert len(about) == len(set(about))
    # The score of the span is that of the first row.
    assert f"score {rows[0][6]} of 1" in text
    for _, _, before, after, value, limit, quotient, mark in rows:
        assert (float(value) > float(limit)) == (float(quotient) > 1.0) == (mark == "refused")
        assert float(before) != float(after)


@pytest.mark.e2e
def test_a_reference_of_another_config_is_refused_with_both_values(served):
    code, text = shown_by(served, 3)
    assert code == 4
    assert "the reference has the bands of s1 VV, VH, the new data VV" in in_one_line(text)
    code, text = shown_by(served, 3, "--set", "drift.accept_spans=[3]")
    assert code == 0
    assert "pairs 3.1: accepted by drift.accept_spans" in in_one_line(text)


@pytest.fixture
def drifting(tmp_path, monkeypatch):
    """Return a function: the data sets of a run that must be trained on.

    Span 1 of the pairs is in service; span 2 has figures that the test names.
    """
    root = make_root(tmp_path)
    pairs = root / "data" / "pairs"
    for span in (1, 2):
        folder = pairs / f"span-{span}" / "version-1"
        make_shards.make_version(pairs, num_patches=4, size_px=16, span=span)
        assert folder.exists()
    monkeypatch.setattr(drift, "find_served", lambda _: SERVED)
    monkeypatch.setattr(drift, "read_version", lambda name, *_: name)

    def find(score=0.7, outcome="passed", tried=(), settings=("spans=all",)):
        figure = Finding(
            rule="s1_mean",
            about="VV",
            reference=None,
            found=None,
            value=score,
            limit=1.0,
            severity="refuse",
            reason="VV has moved",
        )
        report = DriftReport(
            data="pairs",
            span=2,
            version=1,
            reference="serving/encoder/1",
            reference_span="1.1",
            outcome=outcome,
            findings=(figure,),
            refusals=("VV has moved",) if outcome == "refused" else (),
            refused_spans=("2.1",) if score > 1.0 else (),
        )
        monkeypatch.setattr(drift, "judge", lambda *_: report)
        config = load_run_config(root / "config.yaml", [f"root={root}", *settings], {})
        return [one.version for one in drift.find_drifted(config, {*tried}, stage)]

    find.root = root
    return find


SERVED = ServedReference(version_dir="serving/encoder/1", data=None)


@contextmanager
def stage(_):
    yield


@pytest.mark.parametrize(
    ("given", "is_due"),
    [
        ({"score": 0.49}, False),
        ({"score": 0.5}, True),
        ({"score": 0.49, "settings": ("drift.retrain_score=0.3",)}, True),
        ({"score": 0.9, "settings": ("drift.retrain_score=null",)}, False),
        ({"tried": [("pairs", "2.1")]}, False),
        ({"tried": [("pairs", "1.1"), ("flood", "2.1")]}, True),
        # The run's own gate refuses it, with exit code 4.
        ({"score": 1.2, "outcome": "refused"}, True),
        # Other bands: the settings are at fault.
        ({"score": 0.0, "outcome": "refused"}, False),
        ({"score": 0.0, "outcome": "accepted"}, True),
        ({"outcome": "same_data"}, False),
    ],
)
def test_a_span_that_no_model_knows_is_trained_on_from_a_score(drifting, given, is_due):
    assert drifting(**given) == (["2.1"] if is_due else [])


@pytest.mark.parametrize("is_withdrawn", [False, True])
def test_a_span_of_a_published_model_starts_nothing_also_after_a_rollback(drifting, is_withdrawn):
    model_dir = drifting.root / "serving" / "encoder"
    version = model_dir / (".withdrawn/2" if is_withdrawn else "2")
    (version / "assets.extra").mkdir(parents=True)
    sha256 = manifest.read(drifting.root / "data/pairs/span-2/version-1").sha256
    card = {"inputs": {}, "data_span": 2, "data_version": 1, "data_manifest_sha256": sha256}
    (version / "assets.extra" / "model_card.json").write_text(json.dumps(card))
    assert drifting() == []


def test_what_was_set_aside_starts_nothing_before_it_is_put_back(drifting):
    pairs = drifting.root / "data" / "pairs"
    record = SetAside(span=2, version=1, at="2026-02-01", reasons=("VV has moved",))
    set_aside.add(pairs, record)
    # With a window the span before it is read, which no model knows either.
    assert drifting(tried=[("pairs", "1.1")]) == []
    assert drifting(settings=("spans=null",)) == []
    set_aside.put_back(pairs, [2], "2026-03-01")
    assert drifting(settings=("spans=null",)) == ["2.1"]


@pytest.mark.e2e
def test_drift_of_shards_is_found_from_the_score_of_the_settings(served, tmp_path, monkeypatch):
    root = make_root(tmp_path)
    shutil.copytree(served / "serving", root / "serving")
    pairs, span_1 = root / "data" / "pairs", served / "data/pairs/span-1"
    shutil.copytree(span_1, pairs / "span-1")
    # A shift of both bands: more than a season, less than the limits.
    monkeypatch.setitem(
        make_poison.FAULTS, "brighter", lambda one, _: {**one, "s1": one["s1"] + 12.0}
    )
    make_poison.poison_version(span_1 / "version-1", pairs, 2, "brighter")
    config = load_run_config(root / "config.yaml", [f"root={root}"], {})
    (found,) = drift.find_drifted(config, (), stage)
    assert (found.report.data, found.version, found.report.outcome) == ("pairs", "2.1", "passed")
    assert 0.7 < found.report.score < 1.0
    assert found.sentence == (
        "pairs: no scene is new, but no published model was trained on 2.1, and it drifted: score "
        f"{found.report.score:.2f}, a training starts at 0.5 (drift.retrain_score)"
    )
    higher = ["drift.retrain_score=0.95"]
    config = load_run_config(root / "config.yaml", [f"root={root}", *higher], {})
    assert drift.find_drifted(config, (), stage) == []
