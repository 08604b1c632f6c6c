"""Quality: which patches are refused and why, and the score as a closed form."""

import math

import numpy as np
import pytest

from beam_jobs import quality
from beam_jobs.config import PairingConfig, QualityConfig


def pixels(num_bad: int, channels: int = 2) -> np.ndarray:
    """10 x 10 pixels of which `num_bad` lack their last band."""
    values = np.random.default_rng(0).normal(size=(10, 10, channels)).astype(np.float32)
    values.reshape(100, channels)[:num_bad, -1] = np.nan
    return values


def test_cloud_is_counted_among_valid_pixels():
    mask = np.zeros((10, 10), bool)
    mask[4:7] = True
    # The first 50 pixels, with 10 cloudy ones among them, have no data: 20 of 50 are left.
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
    assert quality.refusal(pixels(bad_s1), pixels(bad_s2, 3), clouds, QualityConfig()) == expected


def test_too_few_labels_are_refused():
    label = np.arange(100, dtype=np.uint8).reshape(10, 10)
    label[:6] = 255
    assert quality.label_refusal(label, 0.4) is None
    assert quality.label_refusal(label, 0.41) == ("unlabeled", "labelled fraction 0.400 is below 0.41")


@pytest.mark.parametrize(
    ("bad_s1", "bad_s2", "clouds", "gap", "expected"),
    [
        (0, 0, 0.0, 0.0, 1.0),
        (20, 10, 0.0, 0.0, 0.8),
        (0, 0, 0.25, 0.0, 0.75),
        (0, 0, math.nan, 0.0, 1.0),
        (0, 0, 0.0, 24.0, 0.75),
        (0, 0, 0.0, -48.0, 0.5),
        (0, 0, 0.0, 480.0, 0.5),
        (20, 0, 0.5, -12.0, 0.8 * 0.5 * 0.875),
    ],
)
def test_the_score_is_validity_times_clearness_times_closeness(bad_s1, bad_s2, clouds, gap, expected):
    config = PairingConfig(max_time_gap_hours=48.0)
    assert quality.score(pixels(bad_s1), pixels(bad_s2), clouds, gap, config) == pytest.approx(expected)
