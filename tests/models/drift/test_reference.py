"""The reference lies with its version: a rollback brings back the older one."""

import pytest

from beam_jobs.contracts.locations import DamagedFileError
from models.drift import report as report_lib
from models.drift.reference import FOLDER, DataReference, find_served, published_files
from models.drift.report import DriftReport, Finding
from models.publishing.publication import Approval, publish
from models.publishing.rollback import Steps, roll_back
from tests.data.shards import make_summaries


def reference_of(span: int) -> DataReference:
    world = make_summaries.World(num_scenes=4)
    return DataReference(
        summary=make_summaries.make_span(span, world, span=span), statistics=b"s", schema="schema"
    )


@pytest.fixture
def served(tmp_path):
    """Two versions in service one after the other, of spans 1 and 2."""
    base = tmp_path / "serving" / "flood"
    for span in (1, 2):
        model = tmp_path / f"model-{span}"
        (model / "assets.extra").mkdir(parents=True)
        (model / "saved_model.pb").write_text(f"graph {span}")
        (model / "assets.extra" / "model_card.json").write_text('{"inputs": {}}')
        files = published_files(reference_of(span))
        publish(str(model), str(base), Approval(reason="better", files=files))
    return base


def test_the_reference_follows_what_is_in_service(served):
    found = find_served(served)
    assert found.version_dir == str(served / "2")
    assert found.data == reference_of(2)
    roll_back(served, 1, "worse", Steps(check=lambda _: None, follow=lambda: None, withdraw=False))
    assert find_served(served).data.summary.span == 1


def test_nothing_in_service_and_a_version_without_reference_have_none(served, tmp_path):
    assert find_served(tmp_path / "empty") is None
    for path in (served / "2" / FOLDER).iterdir():
        path.unlink()
    assert find_served(served) is None


@pytest.mark.parametrize("name", ["summary.json", "statistics.pb", "schema.pbtxt"])
def test_a_damaged_reference_is_named_with_the_cure(served, name):
    path = served / "2" / FOLDER / name
    if name == "summary.json":
        path.write_text("{")
    else:
        path.unlink()
    with pytest.raises(DamagedFileError) as caught:
        find_served(served)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("or publish it again")
    assert "\n" not in str(caught.value)


def test_damaged_embeddings_are_named(served):
    path = served / "2" / FOLDER / "embeddings.npz"
    path.write_bytes(b"PK no archive")
    with pytest.raises(DamagedFileError, match=r"embeddings\.npz: its content is damaged"):
        find_served(served)


def finding(value, severity="refuse", reason="a", rule="s1_mean"):
    return Finding(
        rule=rule,
        about="VV",
        reference=1.0,
        found=2.0,
        value=value,
        limit=2.0,
        severity=severity,
        reason=reason,
    )


@pytest.mark.parametrize("rule", ["s1_mean", "s1_spread"])
def test_a_ratio_is_1_at_the_limit_of_each_rule(rule):
    assert report_lib.ratio(finding(2.0, rule=rule)) == 1.0


def test_equal_spreads_have_the_ratio_0_though_their_quotient_is_1():
    assert report_lib.ratio(finding(1.0, rule="s2_spread")) == 0.0
    # Half the way in decibels, or in any other logarithm.
    assert report_lib.ratio(finding(2.0**0.5, rule="s2_spread")) == pytest.approx(0.5)


def test_the_score_is_the_largest_ratio_of_what_refuses():
    report = DriftReport(
        data="pairs",
        span=2,
        version=1,
        reference="serving/encoder/1",
        reference_span="1.1",
        outcome="refused",
        findings=(finding(3.0), finding(1.0), finding(9.0, "warn", "b")),
        refusals=("a",),
    )
    assert report.score == 1.5
    assert report.warnings == ("b",)
    assert report_lib.from_json(report.to_json()) == report
    with pytest.raises(ValueError, match="refused report"):
        DriftReport(
            data="pairs",
            span=2,
            version=1,
            reference="",
            reference_span="",
            outcome="refused",
        )
