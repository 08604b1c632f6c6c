"""The verb `drift` on made spans, and on folders that lack something.

tests/e2e/test_smoke.py has one on the data and models of a whole run.
"""

import re

import make_poison
import make_shards
import pytest
import yaml
from repository import REPOSITORY
from run_pipeline import run_pipeline_here

from beam_jobs.contracts import settings
from models.drift.reference import published_files
from models.publishing.publication import Approval, publish
from pipeline.config import load_run_config
from pipeline.service.drift import read_version


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
    (model / "assets.extra" / "model_card.json").write_text("{}")
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
