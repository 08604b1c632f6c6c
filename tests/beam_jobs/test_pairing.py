"""Pairing: the nearest partner in time that overlaps enough, whatever the order; cells that miss no footprint."""

import itertools

import pytest
from shapely.geometry import box, mapping

from beam_jobs import pairing
from beam_jobs.config import PairingConfig
from beam_jobs.scenes import BandSource, Scene

NOON = 1_600_000_000


def scene(scene_id: str, hours: float = 0.0, bounds=(10.0, 45.0, 11.0, 46.0)) -> Scene:
    return Scene(
        scene_id=scene_id,
        sensor="s1" if scene_id.startswith("S1") else "s2",
        acquired_at=NOON + int(hours * 3600),
        footprint=mapping(box(*bounds)),
        bands={"VV": BandSource(path="x.tif", index=1)},
    )


def test_the_gap_is_sentinel_2_minus_sentinel_1():
    assert pairing.time_gap_hours(scene("S1", 2), scene("S2", 5.5)) == 3.5
    assert pairing.time_gap_hours(scene("S1", 2), scene("S2", -1)) == -3.0


@pytest.mark.parametrize("gap", [20, -20])
def test_the_nearest_in_time_wins_before_or_after(gap):
    candidates = [scene("S2_a", 30), scene("S2_b", gap), scene("S2_c", -40)]
    for order in itertools.permutations(candidates):
        best, why = pairing.nearest(scene("S1"), order, PairingConfig())
        assert best is not None
        assert (best.scene_id, why) == ("S2_b", "")


def test_ties_go_to_the_smaller_id_in_any_order():
    candidates = [scene("S2_b", 10), scene("S2_a", -10), scene("S2_c", 10)]
    found = {
        pairing.nearest(scene("S1"), order, PairingConfig())[0].scene_id for order in itertools.permutations(candidates)
    }
    assert found == {"S2_a"}


def test_a_nearer_scene_that_hardly_overlaps_is_passed_over():
    beside = scene("S2_a", 1, (10.9, 45.0, 11.9, 46.0))
    best, _ = pairing.nearest(scene("S1"), [beside, scene("S2_b", 40)], PairingConfig(min_overlap_fraction=0.2))
    assert best is not None
    assert best.scene_id == "S2_b"
    best, _ = pairing.nearest(scene("S1"), [beside, scene("S2_b", 40)], PairingConfig(min_overlap_fraction=0.05))
    assert best is not None
    assert best.scene_id == "S2_a"


@pytest.mark.parametrize(("gap", "paired"), [(72.0, True), (-72.0, True), (72.1, False), (-72.1, False)])
def test_the_largest_gap_is_included(gap, paired):
    best, _ = pairing.nearest(scene("S1"), [scene("S2", gap)], PairingConfig(max_time_gap_hours=72.0))
    assert (best is not None) == paired


def test_too_far_in_time_names_scene_gap_and_limit():
    _, why = pairing.nearest(scene("S1"), [scene("S2_a", -100), scene("S2_b", 200)], PairingConfig())
    assert why == "the nearest Sentinel-2 scene, S2_a, is -100.0 h away; max_time_gap_hours is 72"


@pytest.mark.parametrize("others", [[], [scene("S2_a", 0, (20, 20, 21, 21))]])
def test_no_overlap_names_the_limit(others):
    best, why = pairing.nearest(scene("S1"), others, PairingConfig())
    assert best is None
    assert why == "no Sentinel-2 scene covers at least 0.2 of it"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((10.0, 45.0, 11.0, 46.0), 1.0),
        ((10.5, 45.0, 11.5, 46.0), 0.5),
        ((10.5, 45.5, 11.5, 46.5), 0.25),
        # A small scene inside a large one overlaps wholly.
        ((10.4, 45.4, 10.5, 45.5), 1.0),
        ((11.0, 45.0, 12.0, 46.0), 0.0),
        ((30.0, 45.0, 31.0, 46.0), 0.0),
    ],
)
def test_overlap_is_the_share_of_the_smaller_footprint(bounds, expected):
    other = scene("S2", 0, bounds)
    assert pairing.overlap_fraction(scene("S1"), other) == pytest.approx(expected)
    assert pairing.overlap_fraction(other, scene("S1")) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((10.2, 45.2, 10.8, 45.8), {(10, 45)}),
        ((10.8, 45.8, 11.2, 46.2), {(10, 45), (11, 45), (10, 46), (11, 46)}),
        ((-0.1, -0.1, 0.1, 0.1), {(-1, -1), (0, -1), (-1, 0), (0, 0)}),
        ((-70.5, -33.5, -68.5, -33.2), {(-71, -34), (-70, -34), (-69, -34)}),
    ],
)
def test_cells_are_those_the_footprint_touches(bounds, expected):
    assert set(pairing.cells(scene("S1", 0, bounds))) == expected


def test_scenes_that_overlap_share_a_cell():
    fixed = scene("S1", 0, (9.95, 44.9, 10.3, 45.1))
    for i in range(40):
        west, south = 9.0 + i * 0.05, 44.2 + (i * 7 % 40) * 0.03
        other = scene("S2", 0, (west, south, west + 0.4, south + 0.3))
        if pairing.overlap_fraction(fixed, other) > 0:
            assert set(pairing.cells(fixed)) & set(pairing.cells(other))


def test_of_scenes_of_one_time_the_one_with_most_overlap_wins():
    # Patches of a data set that overlap by half, all with its nominal time: each must find its own partner.
    candidates = [
        scene("S2_a", bounds=(9.5, 45.0, 10.5, 46.0)),
        scene("S2_b"),
        scene("S2_c", bounds=(10.5, 45.0, 11.5, 46.0)),
    ]
    for order in itertools.permutations(candidates):
        best, _ = pairing.nearest(scene("S1"), order, PairingConfig())
        assert best is not None
        assert best.scene_id == "S2_b"


def test_time_goes_before_overlap():
    candidates = [scene("S2_a", 3), scene("S2_b", 2, bounds=(10.0, 45.0, 10.5, 46.0))]
    best, _ = pairing.nearest(scene("S1", bounds=(10.0, 45.0, 11.0, 46.0)), candidates, PairingConfig())
    assert best is not None
    assert best.scene_id == "S2_b"
