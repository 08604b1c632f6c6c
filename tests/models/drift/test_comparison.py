"""Each fault is refused with band and figures; equal spans and seasons pass."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from models.drift import summary as summary_lib
from models.drift.comparison import compare, divergence_noise, jensen_shannon, why_incomparable
from models.drift.config import DriftConfig
from models.drift.patch_columns import PatchColumns
from models.drift.report import Finding, ratio
from models.drift.summary import mean_and_error, units_of
from tests.data.shards import make_summaries
from tests.data.shards.make_summaries import World

CONFIG = DriftConfig()
WORLD = World(num_scenes=40)


@pytest.fixture(scope="module")
def reference():
    return make_summaries.make_span(0, WORLD)


def refused(found: list[Finding]) -> dict[tuple[str, str], Finding]:
    return {
        (one.rule, one.about): one for one in found if one.is_exceeded and one.severity == "refuse"
    }


@pytest.mark.parametrize(
    ("fault", "rule", "band", "change"),
    [
        ("swapped", "polarizations", "VV-VH", lambda old: -old),
        ("doubled", "s1_mean", "VV", lambda old: 2 * old),
        ("doubled", "s1_spread", "VH", lambda old: 2 * old),
        ("halved", "s1_spread", "VV", lambda old: old / 2),
        ("halved", "s1_mean", "VH", lambda old: old / 2),
        ("power", "s1_mean", "VV", lambda old: 0.07),
        ("power", "s1_spread", "VH", lambda old: 0.02),
        ("fewer_pixels", "no_data", "VV", lambda old: 5 * old),
        ("fewer_pixels", "no_data", "B4", lambda old: 5 * old),
        ("scaled", "s2_spread", "B8", lambda old: old / 10),
        ("offset", "s2_offset", None, lambda old: old + 0.1),
    ],
)
def test_a_fault_is_refused_with_band_figures_and_rule(reference, fault, rule, band, change):
    # The same scenes with the fault, so the figures are known.
    found = refused(compare(reference, make_summaries.make_span(0, WORLD, fault), CONFIG))
    # Which band has the smallest common shift is chance.
    key = (rule, band) if band else next(key for key in found if key[0] == rule)
    one = found[key]
    assert one.found == pytest.approx(change(one.reference), rel=0.05, abs=0.06)
    assert one.reason.startswith(f"{key[1]}: ")
    assert one.reason.endswith(f"above the limit {one.limit:.3g} of the rule {rule}")
    for figure in (one.reference, one.found):
        forms = (f"{figure:.1f} dB", f"{figure:.3g}", f"{figure:.3f}", f"{figure:.1%}")
        assert any(form in one.reason for form in forms)
    # Other scenes with the fault are refused for it too.
    others = refused(compare(reference, make_summaries.make_span(1, WORLD, fault), CONFIG))
    assert rule in {key[0] for key in others}


def test_equal_spans_hardly_ever_alarm():
    for world, allowed in ((World(num_scenes=6), 2), (World(num_scenes=24), 0)):
        spans = [make_summaries.make_span(seed, world) for seed in range(100, 131)]
        alarms = [refused(compare(old, new, CONFIG)) for old, new in itertools.pairwise(spans)]
        assert sum(map(bool, alarms)) <= allowed, [list(one) for one in alarms if one]


@pytest.mark.parametrize(
    "season",
    [
        # The wettest and the driest month of the fields in docs/drift.md.
        {"wetter_db": 4.0},
        {"wetter_db": -3.0},
        {"greener": -0.6},
        {"wetter_db": 3.0, "greener": 0.3},
    ],
)
def test_a_season_passes(reference, season):
    new = make_summaries.make_span(2, dataclasses.replace(WORLD, **season))
    assert not refused(compare(reference, new, CONFIG))


def test_shares_of_classes_are_compared_in_bits(reference):
    shares = dict.fromkeys(reference.class_shares, 0.0)
    only_water = dataclasses.replace(reference, class_shares={**shares, "water": 1.0})
    one = refused(compare(reference, only_water, CONFIG))["class_shares", "water"]
    assert one.found == 1.0
    old = np.array(list(reference.class_shares.values()))
    assert one.value == pytest.approx(jensen_shannon(old, (np.arange(len(old)) == 0) * 1.0))
    gone = dataclasses.replace(reference, class_shares=shares)
    assert not [one for one in compare(reference, gone, CONFIG) if one.rule == "class_shares"]


def test_patches_that_the_build_refused_count_as_missing_pixels(reference):
    more = dataclasses.replace(
        reference,
        no_data_refused={
            sensor: dataclasses.replace(one, value=0.3, error=0.02)
            for sensor, one in reference.no_data_refused.items()
        },
    )
    found = refused(compare(reference, more, CONFIG))
    assert set(found) == {("no_data", "s1"), ("no_data", "s2")}
    assert "s1: 30.0% of the patches were refused since pixels are missing, 0.0% in the" in (
        found["no_data", "s1"].reason
    )


def test_the_time_gap_is_compared_in_spreads(reference):
    late = dataclasses.replace(reference.time_gap_hours, value=60.0)
    new = dataclasses.replace(reference, time_gap_hours=late)
    (one,) = refused(compare(reference, new, CONFIG)).values()
    assert (one.rule, one.found) == ("time_gap", 60.0)
    assert one.value == pytest.approx(
        (60.0 - reference.time_gap_hours.value) / reference.time_gap_hours.spread
    )


def test_severity_and_limit_are_settings(reference):
    new = make_summaries.make_span(1, WORLD, "swapped")
    off = compare(reference, new, DriftConfig(severity={"polarizations": "off"}))
    assert "polarizations" not in {one.rule for one in off}
    warns = compare(reference, new, DriftConfig(severity={"polarizations": "warn"}))
    (one,) = [one for one in warns if one.rule == "polarizations"]
    assert one.is_exceeded
    assert ("polarizations", "VV-VH") not in refused(warns)
    wide = compare(reference, new, DriftConfig(limits={"polarizations": 30.0}))
    (one,) = [one for one in wide if one.rule == "polarizations"]
    assert ratio(one) < 0.5


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"severity": {"mean": "warn"}}, r"severity.mean: no rule; known: s1_mean, "),
        ({"limits": {"s1_mean": -1.0}}, "limits.s1_mean must be at least 0, got -1"),
        ({"limits": {"s1_mean": float("nan")}}, "limits.s1_mean must be at least 0, got nan"),
        ({"limits": {"s2_spread": 0.5}}, "limits.s2_spread is a ratio and must be at least 1"),
        ({"noise": -1.0}, "noise must be at least 0, got -1"),
        ({"retrain_score": 0.0}, "retrain_score must be above 0 and at most 1, or null, got 0"),
        ({"retrain_score": 1.5}, "retrain_score must be above 0 and at most 1, or null, got 1.5"),
        ({"num_embedded": 1}, "num_embedded must be at least 2, got 1024 and 1"),
    ],
)
def test_bad_limits_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        DriftConfig(**values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "pairs"}, "the reference has the kind of shards labels, the new data pairs"),
        ({"s2_processing_level": "L1C"}, "the Sentinel-2 processing level L2A, the new data L1C"),
        ({"pixel_size_m": 20.0}, "the pixel size in metres 10.0, the new data 20.0"),
        ({"label_classes": {"0": "dry"}}, "the classes 0 water, 1 trees, .* new data 0 dry"),
    ],
)
def test_data_of_another_config_are_named(reference, change, says):
    assert why_incomparable(reference, reference) is None
    other = dataclasses.replace(reference, **change)
    assert re.search(says, why_incomparable(reference, other) or "")


def test_other_bands_are_named(reference):
    fewer = dataclasses.replace(
        reference, bands={**reference.bands, "s1": reference.bands["s1"][:1]}
    )
    assert why_incomparable(reference, fewer) == (
        "the reference has the bands of s1 VV, VH, the new data VV"
    )


def test_an_absent_sensor_is_not_compared_but_missed(reference):
    absent = tuple(
        dataclasses.replace(one, no_data=1.0, mean=0.0, std=0.0) for one in reference.bands["s2"]
    )
    without = dataclasses.replace(reference, bands={**reference.bands, "s2": absent})
    rules = {one.rule for one in compare(without, reference, CONFIG)}
    assert not {"s2_mean", "s2_offset", "s2_spread"} & rules
    # Nothing is compared with what the reference lacks, and what the new data lack is missed.
    assert not refused(compare(without, reference, CONFIG))
    assert {key[0] for key in refused(compare(reference, without, CONFIG))} == {"no_data"}


def test_the_summary_survives_json(reference):
    assert summary_lib.from_json(reference.to_json()) == reference


def test_errors_of_means_are_those_of_whole_scenes():
    # One value per scene, three times each: the closed form of the mean of 50 values.
    rng = np.random.default_rng(3)
    scene = rng.normal(size=50)
    values, units = np.repeat(scene, 3)[:, None], np.repeat(np.arange(50), 3)
    mean, error = mean_and_error(values, np.ones(150), units)
    assert mean[0] == pytest.approx(scene.mean())
    assert error[0] == pytest.approx(scene.std(ddof=1) / np.sqrt(50))
    # Patches alone would seem to tell far more.
    assert mean_and_error(values, np.ones(150), np.arange(150))[1][0] < 0.6 * error[0]
    assert mean_and_error(values, np.ones(150), np.zeros(150))[1][0] == 0.0


def test_units_are_scenes_then_blocks_then_patches():
    def columns(scene, block):
        empty = {"s1": np.zeros((6, 1)), "s2": np.zeros((6, 1))}
        return PatchColumns(
            mean=empty,
            std=empty,
            valid_fraction={sensor: np.ones(6) for sensor in empty},
            scene={sensor: np.array(scene) for sensor in empty},
            block=np.array(block),
            time_gap_hours=np.zeros(6),
        )

    assert list(units_of(columns(list("aabbcc"), list("uuuuvv")), "s1")) == list("aabbcc")
    assert list(units_of(columns(list("aaabbb"), list("uuvvww")), "s1")) == list("uuvvww")
    assert list(units_of(columns(list("aaabbb"), list("uuuuuu")), "s1")) == list(range(6))


def test_divergences_have_closed_forms_and_known_noise():
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)
    assert jensen_shannon(np.array([0.9, 0.1]), np.array([0.5, 0.5])) == pytest.approx(
        0.1468, abs=1e-4
    )
    rng = np.random.default_rng(0)
    share = np.full(10, 0.1)
    draws = rng.multinomial(200, share, (2, 2000)) / 200.0
    values = [jensen_shannon(one, two) for one, two in zip(*draws, strict=True)]
    assert np.mean(np.array(values) > divergence_noise(10, 200, 200)) < 0.004
    assert np.mean(np.array(values) > 0.6 * divergence_noise(10, 200, 200)) > 0.01
