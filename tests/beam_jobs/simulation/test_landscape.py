"""Terrain and land cover: water where it must be, floods that grow, all classes."""

import numpy as np
import pytest
from scipy import ndimage

from beam_jobs.simulation.landscape import BARE, BUILT, CLASS_IDS, WATER, make_landscape
from beam_jobs.simulation.terrain import make_terrain, slope_east


def test_river_crosses_the_place_from_edge_to_edge_at_normal_level() -> None:
    for seed in range(6):
        water = make_terrain(np.random.default_rng(seed), 128).water_mask(0.0)
        parts, _ = ndimage.label(water, np.ones((3, 3)))
        edges = [parts[0], parts[-1], parts[:, 0], parts[:, -1]]
        north, south, west, east = (set(np.unique(edge)) - {0} for edge in edges)
        assert (north & south) | (west & east), f"seed {seed}"
        assert 0.01 < water.mean() < 0.6


def test_flood_level_floods_the_share_of_dry_land_asked_for() -> None:
    terrain = make_terrain(np.random.default_rng(1), 200)
    dry = ~terrain.water_mask(0.0)
    assert terrain.level_for_flood_m(0.0) == 0.0
    for fraction in (0.05, 0.2):
        level_m = terrain.level_for_flood_m(fraction)
        assert level_m > 0
        assert terrain.water_mask(level_m)[dry].mean() == pytest.approx(fraction, abs=0.01)
        # A flood keeps what was water before.
        assert terrain.water_mask(level_m)[~dry].all()


def test_label_is_the_water_of_the_level_over_the_dry_land_cover() -> None:
    landscape = make_landscape(2, 1, 100)
    level_m = landscape.terrain.level_for_flood_m(0.15)
    label = landscape.label(level_m)
    flooded = landscape.terrain.water_mask(level_m)
    assert (label[flooded] == WATER).all()
    np.testing.assert_array_equal(label[~flooded], landscape.land_cover[~flooded])
    assert (landscape.label(0.0) == WATER).sum() < (label == WATER).sum()


def test_all_classes_occur_and_none_besides() -> None:
    seen = np.zeros(256, int)
    for index in range(4):
        seen += np.bincount(make_landscape(0, index, 128).label(0.0).ravel(), minlength=256)
    share = seen / seen.sum()
    assert set(np.flatnonzero(seen)) == set(CLASS_IDS)
    assert share[list(CLASS_IDS)].min() > 0.02
    assert share.max() < 0.6


def test_parcels_are_compact_and_differ_in_phase() -> None:
    landscape = make_landscape(0, 0, 256)
    parts, num_parts = ndimage.label(landscape.parcel_phase == landscape.parcel_phase[128, 128])
    assert num_parts == 1
    assert 100 < (parts > 0).sum() < 2_500
    assert len(np.unique(landscape.parcel_phase)) > 30


def test_bright_points_stand_in_towns_only() -> None:
    landscape = make_landscape(0, 2, 128)
    assert landscape.bright_point.sum() > 5
    assert (landscape.land_cover[landscape.bright_point] == BUILT).all()


def test_some_places_have_a_coast_with_a_beach() -> None:
    coasts = [make_landscape(0, index, 96) for index in range(12)]
    coasts = [landscape for landscape in coasts if landscape.terrain.coast_distance_px.min() < 0]
    assert 1 <= len(coasts) <= 9
    for landscape in coasts:
        sea = landscape.terrain.coast_distance_px < -3
        assert landscape.terrain.water_mask(0.0)[sea].mean() > 0.95
        beach = (np.abs(landscape.terrain.coast_distance_px) < 3) & (
            landscape.terrain.height_m < 1.2
        )
        assert (landscape.land_cover[beach] == BARE).all()


def test_slope_of_a_plane_is_its_gradient() -> None:
    plane = np.add.outer(np.arange(5) * 7.0, np.arange(6) * 2.0).astype(np.float32)
    np.testing.assert_allclose(slope_east(plane, 10.0), 0.2, rtol=1e-6)
