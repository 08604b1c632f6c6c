"""TFDV's comparators and the reference's schema decide, with thresholds of ours."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl

from components.watched_statistics import (
    compare_statistics,
    parse_schema,
    parse_statistics,
    schema_text,
)
from models.drift.config import DriftConfig
from models.drift.reference import DataReference
from tests.data.shards import make_summaries

CONFIG = DriftConfig()


@pytest.fixture(scope="module")
def figures():
    """A summary of many scenes, so that chance adds little to the thresholds."""
    found = make_summaries.make_span(0, make_summaries.World(num_scenes=4))
    return dataclasses.replace(found, num_units={"s1": 1000, "s2": 1000})


def statistics_of(seed, *, factor=1.0, ascending=0.5, num_bands=2, orbit=b"descending"):
    rng = np.random.default_rng(seed)
    count = 400
    s1 = factor * (np.array([-12.0, -19.0])[:num_bands] + rng.normal(0, 3, (count, num_bands)))
    columns = {
        "s1_mean": s1.astype(np.float32),
        "s1_std": rng.normal(4 * factor, 0.5, (count, num_bands)).astype(np.float32),
        "s2_mean": rng.uniform(0, 0.4, (count, 3)).astype(np.float32),
        "s2_std": rng.uniform(0, 0.1, (count, 3)).astype(np.float32),
        "time_gap_hours": rng.uniform(-30, 30, (count, 1)).astype(np.float32),
    }
    orbits = np.where(rng.random(count) < ascending, b"ascending", orbit)
    batch = pa.RecordBatch.from_arrays(
        [*(pa.array(list(one)) for one in columns.values()), pa.array([[one] for one in orbits])],
        [*columns, "orbit_state"],
    )
    return stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())


def reference_of(figures, statistics):
    return DataReference(
        summary=figures,
        statistics=statistics.SerializeToString(),
        schema=schema_text(tfdv.infer_schema(statistics, infer_feature_shape=True)),
    )


@pytest.fixture(scope="module")
def reference(figures):
    return reference_of(figures, statistics_of(0))


def compare(reference, statistics, config=CONFIG, judged=None):
    new = reference_of(reference.summary, statistics)
    judged = judged or statistics
    found, notes = compare_statistics(reference, new, judged.SerializeToString(), config)
    return {(one.rule, one.about): one for one in found}, notes


def exceeded(found):
    return sorted(key for key, one in found.items() if one.is_exceeded)


def test_equal_statistics_pass_and_every_compared_feature_has_a_figure(reference):
    found, notes = compare(reference, statistics_of(1))
    assert not exceeded(found)
    assert not notes
    names = {about for rule, about in found if rule == "statistics"}
    assert names == {about for rule, about in found if rule == "skew"}
    assert names == {"s1_mean", "s1_std", "s2_mean", "s2_std", "time_gap_hours", "orbit_state"}
    assert all(0.0 <= one.value < 0.1 for one in found.values())


def test_doubled_decibels_exceed_the_drift_comparator(reference):
    found, _ = compare(reference, statistics_of(1, factor=2.0))
    assert exceeded(found) == [("statistics", "s1_mean"), ("statistics", "s1_std")]
    one = found["statistics", "s1_mean"]
    assert one.severity == "refuse"
    assert one.limit == pytest.approx(0.5, abs=0.02)
    assert one.reason.startswith("s1_mean: TFDV's Jensen-Shannon divergence of the train split ")
    assert one.reason.endswith(f"is {one.value:.3f}, above the limit 0.51 of the rule statistics")


def test_the_shares_of_orbits_are_compared_by_their_largest_change(reference):
    found, _ = compare(reference, statistics_of(1, ascending=0.0))
    one = found["statistics", "orbit_state"]
    assert one.value == pytest.approx(0.5, abs=0.06)
    assert "largest change of a share" in one.reason
    config = DriftConfig(limits={"statistics": 0.3})
    assert exceeded(compare(reference, statistics_of(1, ascending=0.0), config)[0]) == [
        ("statistics", "orbit_state")
    ]


def test_an_orbit_that_the_reference_lacks_is_no_anomaly_but_nonsense_is(figures):
    reference = reference_of(figures, statistics_of(0, ascending=1.0))
    assert "descending" not in reference.schema
    mild, _ = compare(reference, statistics_of(1, ascending=0.8))
    assert not exceeded(mild)
    found, _ = compare(reference, statistics_of(1, ascending=0.8, orbit=b"sideways"))
    assert exceeded(found) == [("schema", "orbit_state")]
    assert "sideways" in found["schema", "orbit_state"].reason


def test_another_number_of_bands_contradicts_the_schema(reference):
    found, _ = compare(reference, statistics_of(1, num_bands=1))
    assert {("schema", "s1_mean"), ("schema", "s1_std")} <= set(exceeded(found))
    assert not exceeded(
        compare(reference, statistics_of(1, num_bands=1), DriftConfig(limits={"schema": 1.0}))[0]
    )


def test_skew_between_the_splits_warns(reference):
    found, _ = compare(reference, statistics_of(1), judged=statistics_of(2, factor=2.0))
    assert exceeded(found) == [("skew", "s1_mean"), ("skew", "s1_std")]
    assert found["skew", "s1_mean"].severity == "warn"
    assert "of the train split from the eval split" in found["skew", "s1_mean"].reason


def test_too_few_scenes_are_noted_and_rules_can_be_off(reference):
    few = dataclasses.replace(
        reference, summary=dataclasses.replace(reference.summary, num_units={"s1": 4, "s2": 4})
    )
    found, notes = compare(few, statistics_of(1, factor=2.0))
    assert not exceeded(found)
    assert [note.partition(":")[0] for note in notes] == ["statistics", "skew"]
    assert "4 scenes are too few" in notes[0]
    off = DriftConfig(severity={"statistics": "off", "skew": "off", "schema": "off"})
    assert compare(reference, statistics_of(1, num_bands=1), off) == ({}, [])


def test_an_absent_sensor_has_no_comparator(reference):
    absent = tuple(dataclasses.replace(one, no_data=1.0) for one in reference.summary.bands["s2"])
    summary = dataclasses.replace(
        reference.summary, bands={**reference.summary.bands, "s2": absent}
    )
    found, _ = compare(dataclasses.replace(reference, summary=summary), statistics_of(1))
    assert {about for rule, about in found if rule == "statistics"} == {
        "s1_mean",
        "s1_std",
        "orbit_state",
    }


def test_damaged_protocol_buffers_are_value_errors():
    with pytest.raises(ValueError, match="no schema of TFDV"):
        parse_schema("feature {")
    with pytest.raises(ValueError, match="no statistics of TFDV"):
        parse_statistics(b"\xff\xff")
