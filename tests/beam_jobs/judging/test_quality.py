"""Quality: which patches are refused and why, and the score as a closed form."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.config import LabelConfig, PairingConfig, QualityConfig
from beam_jobs.judging import quality


def pixels(num_bad: int, channels: int = 2) -> np.ndarray:
    """10 x 10 pixels of which `num_bad` lack their last band."""
    values = np.random.default_rng(0).normal(size=(10, 10, channels)).astype(np.float32)
    values.reshape(100, channels)[:num_bad, -1] = np.nan
    return values


def parts(**changes) -> quality.Parts:
    """A patch without any fault, but for the changes."""
    perfect = {
        **dict.fromkeys(("s1_valid_fraction", "s2_valid_fraction"), 1.0),
        **dict.fromkeys(("cloud_fraction", "edge_noise_fraction", "saturated_fraction"), 0.0),
        **dict.fromkeys(("time_gap_hours", "offset_px"), 0.0),
    }
    return quality.Parts(**{**perfect, **changes})


def test_the_parts_are_measured_on_the_pixels_and_the_shift_later():
    s1, s2 = edge(3, -45.0), np.full((64, 64, 3), 0.2, np.float32)
    s2[:4] = np.nan
    s2[4:8, :, 1] = 6.55
    found = quality.measure(s1, s2, 0.25, -3.0)
    assert math.isnan(found.offset_px)
    assert dataclasses.replace(found, offset_px=0.0) == parts(
        s1_valid_fraction=54 / 64,
        s2_valid_fraction=60 / 64,
        cloud_fraction=0.25,
        edge_noise_fraction=pytest.approx(3 / 54),
        saturated_fraction=pytest.approx(4 / 60),
        time_gap_hours=-3.0,
    )


def test_cloud_is_counted_among_valid_pixels():
    mask = np.zeros((10, 10), bool)
    mask[4:7] = True
    # The first 50 pixels, with 10 cloudy ones among them, have no data: 20 of 50 are
    # left.
    assert quality.cloud_fraction(mask, pixels(50), math.nan) == pytest.approx(20 / 50)
    assert quality.cloud_fraction(mask, pixels(0), 0.9) == pytest.approx(0.3)


def test_without_mask_the_catalogs_cloud_share_counts():
    assert quality.cloud_fraction(None, pixels(0), 0.4) == 0.4
    assert math.isnan(quality.cloud_fraction(None, pixels(0), math.nan))


def test_a_patch_without_valid_pixels_has_no_cloud():
    assert quality.cloud_fraction(np.ones((10, 10), bool), pixels(100), 0.5) == 0.0


@pytest.mark.parametrize(
    ("bad_s1", "bad_s2", "clouds", "expected"),
    [
        (30, 30, 0.3, None),
        (31, 0, 0.0, ("s1_no_data", "valid fraction 0.690 is below 0.7")),
        (0, 31, 0.0, ("s2_no_data", "valid fraction 0.690 is below 0.7")),
        (0, 0, 0.31, ("cloudy", "cloud fraction 0.310 is above 0.3")),
        (0, 0, math.nan, None),
    ],
)
def test_patches_are_refused_below_the_limits_with_rule_and_value(bad_s1, bad_s2, clouds, expected):
    found = quality.measure(pixels(bad_s1), pixels(bad_s2, 3), clouds, 0.0)
    assert quality.refusal(found, QualityConfig()) == expected


def test_too_few_labels_are_refused():
    label = np.arange(100, dtype=np.uint8).reshape(10, 10)
    label[:6] = 255
    assert quality.label_refusal(label, 0.4) is None
    assert quality.label_refusal(label, 0.41) == (
        "unlabeled",
        "labelled fraction 0.400 is below 0.41",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1.0),
        ({"s1_valid_fraction": 0.8, "s2_valid_fraction": 0.9}, 0.8),
        ({"cloud_fraction": 0.25}, 0.75),
        ({"cloud_fraction": math.nan}, 1.0),
        ({"edge_noise_fraction": 0.1}, 0.9),
        ({"saturated_fraction": 0.2}, 0.8),
        ({"time_gap_hours": 24.0}, 0.75),
        ({"time_gap_hours": -48.0}, 0.5),
        ({"time_gap_hours": 480.0}, 0.5),
        ({"offset_px": math.nan}, 1.0),
        ({"offset_px": 1.0}, 0.75),
        ({"offset_px": 4.0}, 0.0),
        ({"offset_px": 7.0}, 0.0),
        (
            {
                "s1_valid_fraction": 0.8,
                "cloud_fraction": 0.5,
                "time_gap_hours": -12.0,
                "offset_px": 3.0,
            },
            0.8 * 0.5 * 0.875 * 0.25,
        ),
    ],
)
def test_the_score_is_the_product_of_what_each_part_leaves(changes, expected):
    found = quality.score(
        parts(**changes), PairingConfig(max_time_gap_hours=48.0), QualityConfig(max_offset_px=4.0)
    )
    assert found == pytest.approx(expected)


def test_without_a_limit_the_score_falls_over_the_range_that_is_searched():
    found = [
        quality.score(parts(offset_px=px), PairingConfig(), QualityConfig()) for px in (0, 2, 8)
    ]
    assert found == pytest.approx([1.0, 0.75, 0.0])


SHARE = st.floats(0.0, 1.0)
SOME_PARTS = st.builds(
    quality.Parts,
    s1_valid_fraction=SHARE,
    s2_valid_fraction=SHARE,
    cloud_fraction=st.one_of(SHARE, st.just(math.nan)),
    edge_noise_fraction=SHARE,
    saturated_fraction=SHARE,
    time_gap_hours=st.floats(-100.0, 100.0),
    offset_px=st.one_of(st.floats(0.0, 12.0), st.just(math.nan)),
)


@given(
    SOME_PARTS, st.sampled_from([field.name for field in dataclasses.fields(quality.Parts)]), SHARE
)
def test_the_score_is_a_share_and_never_rises_when_a_part_gets_worse(before, name, step):
    value = getattr(before, name)
    if name.endswith("valid_fraction"):
        worse = value * step
    elif name == "time_gap_hours":
        worse = value + math.copysign(100.0 * step, value)
    else:
        # What is unknown counts as none, so anything measured is no better.
        worse = (0.0 if math.isnan(value) else value) + step
        worse = worse if name == "offset_px" else min(worse, 1.0)
    after = dataclasses.replace(before, **{name: worse})
    configs = PairingConfig(), QualityConfig(full_weight_quality=0.7)
    scores = [quality.score(found, *configs) for found in (before, after)]
    assert 0.0 <= scores[1] <= scores[0] <= 1.0
    assert (
        0.0 <= quality.weight(scores[1], configs[1]) <= quality.weight(scores[0], configs[1]) <= 1.0
    )


def test_a_pair_counts_in_full_from_the_limit_on_and_in_proportion_below_it():
    config = QualityConfig(full_weight_quality=0.8)
    assert [quality.weight(score, config) for score in (0.0, 0.2, 0.8, 1.0)] == pytest.approx(
        [0.0, 0.25, 1.0, 1.0]
    )


def test_a_score_below_the_least_one_is_refused():
    config = QualityConfig(min_quality=0.3)
    assert quality.score_refusal(0.3, config) is None
    assert quality.score_refusal(0.299, config) == ("low_quality", "score 0.299 is below 0.3")
    with pytest.raises(ValueError, match="full_weight_quality must be above 0, got 0"):
        QualityConfig(full_weight_quality=0.0)


def edge(num_columns: int, noise_db: float, gap: int = 0) -> np.ndarray:
    """Radar, 64 x 64 px: 10 columns of no data, `gap` good ones, then columns of noise in VH."""
    rng = np.random.default_rng(0)
    s1 = rng.normal([-11.0, -17.0], 1.5, (64, 64, 2)).astype(np.float32)
    s1[:, :10] = np.nan
    s1[:, 10 + gap : 10 + gap + num_columns, 1] = noise_db
    return s1


def test_edge_noise_is_what_is_very_dark_beside_no_data():
    assert quality.edge_noise_fraction(edge(3, -45.0)) == pytest.approx(3 / 54)
    assert quality.edge_noise_fraction(edge(3, -39.0)) == 0.0
    # Columns 8 and 9 beyond the edge are within reach, the third is not.
    assert quality.edge_noise_fraction(edge(3, -45.0, gap=8)) == pytest.approx(2 / 54)
    assert quality.edge_noise_fraction(edge(3, -45.0, gap=10)) == 0.0


def test_dark_water_in_a_whole_patch_is_no_edge_noise():
    s1 = edge(0, 0.0)[:, 10:]
    s1[:, :30] = -48.0
    assert quality.edge_noise_fraction(s1) == 0.0


def test_a_patch_without_any_data_has_neither_edge_noise_nor_saturation():
    nothing = np.full((8, 8, 2), np.nan, np.float32)
    assert quality.edge_noise_fraction(nothing) == 0.0
    assert quality.saturated_fraction(nothing) == 0.0


@pytest.mark.parametrize("top", [6.5535, 6.4535])
def test_a_pixel_is_saturated_at_the_top_of_its_numbers_with_and_without_the_offset(top):
    s2 = np.abs(pixels(20, 3))
    s2[8, :5, 1] = top
    s2[9, 0, 2] = 6.4
    assert quality.saturated_fraction(s2) == pytest.approx(5 / 80)


def test_edge_noise_and_saturation_above_their_limits_are_refused():
    s2 = np.full((64, 64, 3), 0.2, np.float32)
    config = QualityConfig(max_edge_noise_fraction=0.05, max_saturated_fraction=0.02)
    assert quality.refusal(quality.measure(edge(2, -45.0), s2, 0.0, 0.0), config) is None
    assert quality.refusal(quality.measure(edge(3, -45.0), s2, 0.0, 0.0), config) == (
        "edge_noise",
        "edge noise fraction 0.056 is above 0.05",
    )
    s2[:2, :, 0] = 6.55
    assert quality.refusal(quality.measure(edge(2, -45.0), s2, 0.0, 0.0), config) == (
        "saturated",
        "saturated fraction 0.031 is above 0.02",
    )


def test_only_a_measured_shift_beyond_the_limit_is_refused():
    assert quality.offset_refusal(2.5, 2.0) == (
        "misregistered",
        "Sentinel-2 lies 2.50 px beside Sentinel-1, more than 2",
    )
    assert quality.offset_refusal(2.0, 2.0) is None
    assert quality.offset_refusal(math.nan, 2.0) is None
    assert quality.offset_refusal(7.0, None) is None


def test_a_limit_without_a_measurement_is_a_contradiction():
    with pytest.raises(ValueError, match="max_offset_px needs measure_offset, got 2 without it"):
        QualityConfig(max_offset_px=2.0, measure_offset=False)
    with pytest.raises(ValueError, match="max_offset_px must be above 0, got 0"):
        QualityConfig(max_offset_px=0.0)


FAULTY_S2 = parts(s2_valid_fraction=0.1, saturated_fraction=0.5, cloud_fraction=0.9, offset_px=5.0)
FAULTY_S1 = parts(s1_valid_fraction=0.1, edge_noise_fraction=0.5)


@pytest.mark.parametrize(
    ("found", "sensors", "label_from", "reason"),
    [
        (FAULTY_S2, ("s1",), "s1", None),
        # A label that was made from the optical scene may show its clouds.
        (FAULTY_S2, ("s1",), "s2", "cloudy"),
        (FAULTY_S2, ("s2",), "s2", "s2_no_data"),
        (FAULTY_S2, (), "s1", "s2_no_data"),
        (FAULTY_S2, ("s1", "s2"), "s1", "s2_no_data"),
        (FAULTY_S1, ("s2",), "s2", None),
        (FAULTY_S1, ("s2",), "s1", None),
        (FAULTY_S1, ("s1",), "s2", "s1_no_data"),
    ],
)
def test_faults_of_a_sensor_that_no_task_uses_refuse_no_patch(found, sensors, label_from, reason):
    label = LabelConfig(schema="water", sensors=sensors, label_from=label_from)
    judged = quality.without_unused(found, label)
    refusal = quality.refusal(judged, QualityConfig())
    assert (refusal[0] if refusal else None) == reason
    if reason is None:
        perfect = quality.score(parts(), PairingConfig(), QualityConfig())
        assert quality.score(judged, PairingConfig(), QualityConfig()) == perfect


def test_pretraining_uses_both_sensors():
    assert quality.without_unused(FAULTY_S2, None) == FAULTY_S2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensors": ("s1", "s1")}, "sensors must be distinct"),
        ({"sensors": ("s3",)}, "sensors must be distinct"),
        ({"sensors": ("s1",), "partner": "optional"}, "gives patches of s2 alone"),
    ],
)
def test_sensors_of_labels_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        LabelConfig(schema="water", **changes)
