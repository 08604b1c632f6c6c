"""Passes: gaps, spacing, orbits, floods that recede; season."""

from itertools import combinations

import numpy as np
import pytest

from beam_jobs.simulation.acquisitions import draw_pairs, recede
from beam_jobs.simulation.phenology import crop_cover, season_greenness
from beam_jobs.simulation.places import make_place


def test_pairs_are_1_to_40_hours_apart_of_either_sign_and_dates_12_days() -> None:
    gaps = []
    for index in range(8):
        pairs = draw_pairs(0, make_place(index, 0, 64), 10, "L2A")
        gaps += [(s2.acquired_at - s1.acquired_at).total_seconds() / 3600 for s1, s2 in pairs]
        for a, b in combinations(pairs, 2):
            days = min(
                abs((x.acquired_at - y.acquired_at).total_seconds()) / 86400 for x in a for y in b
            )
            assert days >= 12
        assert all(scene.acquired_at.year in (2023, 2024) for pair in pairs for scene in pair)
    assert np.abs(gaps).min() >= 1
    assert np.abs(gaps).max() <= 40
    assert min(gaps) < 0 < max(gaps)


def test_radar_passes_are_at_dawn_or_dusk_and_optical_ones_in_the_morning() -> None:
    states = set()
    for index in range(6):
        place = make_place(index, 0, 64)
        for s1, s2 in draw_pairs(0, place, 6, "L2A"):
            lon = place.centre()[0]
            local = [
                (t.acquired_at.hour + t.acquired_at.minute / 60 + lon / 15) % 24 for t in (s1, s2)
            ]
            assert local[0] == pytest.approx(18 if s1.orbit_state == "ascending" else 6, abs=0.8)
            assert local[1] == pytest.approx(10.5, abs=0.3)
            assert s2.orbit_state == "descending"
            states.add(s1.orbit_state)
    assert states == {"ascending", "descending"}


def test_one_relative_orbit_has_one_orbit_state() -> None:
    tracks: dict[int, set[str]] = {}
    for s1, _ in draw_pairs(1, make_place(0, 1, 64), 12, "L2A"):
        tracks.setdefault(s1.relative_orbit, set()).add(s1.orbit_state)
    assert all(len(states) == 1 for states in tracks.values())


def test_each_place_has_a_flooded_and_a_dry_date_and_the_later_pass_sees_less() -> None:
    for index in range(10):
        pairs = draw_pairs(0, make_place(index, 0, 64), 2, "L2A")
        peaks = sorted(max(s1.flooded_fraction, s2.flooded_fraction) for s1, s2 in pairs)
        assert peaks[0] == 0.0
        assert peaks[1] >= 0.06
        for pair in pairs:
            first, second = sorted(pair, key=lambda scene: scene.acquired_at)
            assert first.flooded_fraction >= second.flooded_fraction


def test_recede_follows_the_order_of_the_passes() -> None:
    assert recede(0.2, 24.0) == (0.2, pytest.approx(0.2 * np.exp(-0.1)))
    assert recede(0.2, -24.0) == (pytest.approx(0.2 * np.exp(-0.1)), 0.2)


def test_too_many_dates_are_refused() -> None:
    with pytest.raises(ValueError, match="num_dates must be at most 48, got 49"):
        draw_pairs(0, make_place(0, 0, 64), 49, "L2A")


def test_season_peaks_in_summer_of_each_hemisphere() -> None:
    assert season_greenness(180, 48.0) > 0.99
    assert season_greenness(180, -30.0) < 0.26
    assert season_greenness(363, -30.0) > 0.99


def test_crops_peak_early_or_late_by_phase_and_across_new_year() -> None:
    phase = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_allclose(crop_cover(180, 48.0, phase)[0, 1], 1.0, atol=1e-3)
    assert crop_cover(80, 48.0, phase)[0].argmax() == 0
    assert crop_cover(280, 48.0, phase)[0].argmax() == 2
    # In the south the peak of middle crops is at day 362.6: days 355 and 5 are near to
    # it.
    assert crop_cover(5, -30.0, phase)[0, 1] > 0.9
    assert crop_cover(355, -30.0, phase)[0, 1] > 0.9
