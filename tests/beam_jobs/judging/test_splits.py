"""Splits: block sizes in km on the ground, shares of the splits, no patch in two
splits.
"""

import dataclasses
import math

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.config import SplitConfig
from beam_jobs.judging import splits
from beam_jobs.scenes import grids

PROJECTIONS = {
    crs: pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    for crs in ("EPSG:32633", "EPSG:32634", "EPSG:3035")
}


def haversine_km(lon0, lat0, lon1, lat1):
    a = (
        math.sin(math.radians(lat1 - lat0) / 2) ** 2
        + math.cos(math.radians(lat0))
        * math.cos(math.radians(lat1))
        * math.sin(math.radians(lon1 - lon0) / 2) ** 2
    )
    return 2 * 6371.0 * math.asin(math.sqrt(a))


def run_length(values: list[str]) -> tuple[int, int]:
    """First and last index of the second run of equal values: a block that is whole."""
    changes = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    return changes[0], changes[1]


@pytest.mark.parametrize("lat", [0.3, 45.0, -70.0])
@pytest.mark.parametrize("size_km", [2.56, 10.0])
def test_blocks_have_their_size_on_the_ground(lat, size_km):
    step = 0.0005
    lons = [20.0 + i * step for i in range(4000)]
    first, end = run_length([splits.block_id(lon, lat, size_km) for lon in lons])
    assert haversine_km(lons[first], lat, lons[end], lat) == pytest.approx(size_km, rel=0.03)
    lats = [lat + i * step / 4 for i in range(4000)]
    first, end = run_length([splits.block_id(20.0, value, size_km) for value in lats])
    assert haversine_km(20.0, lats[first], 20.0, lats[end]) == pytest.approx(size_km, rel=0.03)


def test_all_places_of_a_row_share_the_columns():
    # Two latitudes of one row: the column edge must be at the same longitude, or blocks
    # would overlap.
    size = 2.56
    row_height = size / splits.KM_PER_DEGREE
    low, high = 45.0 // row_height * row_height + 1e-6, (45.0 // row_height + 1) * row_height - 1e-6
    lons = np.linspace(10.0, 11.0, 3000)
    assert [splits.block_id(x, low, size) for x in lons] == [
        splits.block_id(x, high, size) for x in lons
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(15.0, 17.9), st.floats(40.0, 60.0))
def test_the_block_of_a_place_does_not_depend_on_the_crs_it_came_through(lon, lat):
    ids = set()
    for crs, project in PROJECTIONS.items():
        back = grids.to_lonlat(crs, *project.transform(lon, lat))
        # A place within a hair of an edge may fall to either side; round as far as a
        # millimetre.
        ids.add(
            splits.block_id(
                round(float(back[0]), 8) + 1e-10, round(float(back[1]), 8) + 1e-10, 2.56
            )
        )
    assert len(ids) == 1


def test_blocks_of_other_sizes_are_other_blocks():
    assert splits.block_id(10, 10, 2.56) != splits.block_id(10, 10, 5.12)


def test_splits_have_their_share_of_blocks():
    config = SplitConfig(eval_fraction=0.2, test_fraction=0.1)
    found = [
        splits.split_of(f"2.56km_{row}_{col}", config) for row in range(100) for col in range(100)
    ]
    assert found.count("eval") / 10_000 == pytest.approx(0.2, abs=0.015)
    assert found.count("test") / 10_000 == pytest.approx(0.1, abs=0.012)
    assert found.count("train") == 10_000 - found.count("eval") - found.count("test")


def test_neighbouring_blocks_are_assigned_independently():
    config = SplitConfig(eval_fraction=0.25, test_fraction=0.25)
    table = np.array(
        [[splits.split_of(f"2.56km_{row}_{col}", config) for col in range(80)] for row in range(80)]
    )
    # Independent neighbours agree with probability 0.5^2 + 2 * 0.25^2.
    assert (table[:, 1:] == table[:, :-1]).mean() == pytest.approx(0.375, abs=0.03)
    assert (table[1:] == table[:-1]).mean() == pytest.approx(0.375, abs=0.03)


def test_the_seed_moves_blocks_and_the_same_seed_does_not():
    blocks = [f"2.56km_{i}_{i * 7}" for i in range(500)]
    one = [splits.split_of(block, SplitConfig(seed=1)) for block in blocks]
    assert one == [splits.split_of(block, SplitConfig(seed=1)) for block in blocks]
    two = [splits.split_of(block, SplitConfig(seed=2)) for block in blocks]
    assert 0.2 < np.mean([a != b for a, b in zip(one, two, strict=True)]) < 0.7


def test_a_split_without_share_gets_nothing():
    config = SplitConfig(eval_fraction=0.0, test_fraction=0.3)
    assert {splits.split_of(str(i), config) for i in range(300)} == {"train", "test"}


def test_the_split_of_a_block_is_the_same_for_good():
    # Published splits must not move when code changes: positions by `printf '0|BLOCK' |
    # sha256sum`, first 16 bits.
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.15)
    positions = {
        "2.56km_0_0": 0xD97A,
        "2.56km_-7_12": 0x608E,
        "2.56km_3_4": 0x1547,
        "2.56km_3_3": 0xADDD,
    }
    expected = [
        "test" if p / 65536 < 0.15 else "eval" if p / 65536 < 0.45 else "train"
        for p in positions.values()
    ]
    assert expected == ["train", "eval", "test", "train"]
    assert [splits.split_of(block, config) for block in positions] == expected


def square(lon: float, lat: float, half: float) -> tuple[list[float], list[float]]:
    return [lon, lon - half, lon + half, lon + half, lon - half], [
        lat,
        lat - half,
        lat - half,
        lat + half,
        lat + half,
    ]


def test_a_patch_is_refused_exactly_when_it_reaches_into_another_split():
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.3)
    rng = np.random.default_rng(2)
    refused = same_split_two_blocks = 0
    for lon, lat in rng.uniform([10, 40], [12, 42], (600, 2)):
        lons, lats = square(lon, lat, 0.003)
        blocks = [
            splits.block_id(x, y, config.block_size_km) for x, y in zip(lons, lats, strict=True)
        ]
        found = {splits.split_of(block, config) for block in blocks}
        found_place = splits.assign(lons, lats, config)
        split = found_place.split
        assert found_place.block == blocks[0]
        assert found_place.reason == (None if split else "straddles_splits")
        assert (split is None) == (len(found) > 1)
        if split is not None:
            assert split == splits.split_of(blocks[0], config)
        refused += split is None
        same_split_two_blocks += split is not None and len(set(blocks)) > 1
    assert refused > 50
    assert same_split_two_blocks > 20


def test_two_kept_patches_that_overlap_are_never_in_different_splits():
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.3)
    rng = np.random.default_rng(3)
    for lon, lat in rng.uniform([10, 40], [12, 42], (400, 2)):
        one = splits.assign(*square(lon, lat, 0.003), config).split
        two = splits.assign(*square(lon + 0.002, lat - 0.004, 0.003), config).split
        assert one is None or two is None or one == two


def test_a_declared_split_goes_before_the_block_which_is_told_all_the_same():
    config = SplitConfig()
    lon, lat = [10.0], [45.0]
    undeclared = splits.assign(lon, lat, config)
    for declared in ("train", "eval", "test"):
        expected = splits.Assignment(block=undeclared.block, split=declared)
        assert splits.assign(lon, lat, config, frozenset({declared})) == expected


def test_a_patch_whose_scenes_declare_different_splits_has_none():
    found = splits.assign([10.0], [45.0], SplitConfig(), frozenset({"train", "test"}))
    assert (found.split, found.reason) == (None, "straddles_splits")
    assert found.detail == "its scenes declare test and train"
    assert found.block == splits.block_id(10.0, 45.0, SplitConfig().block_size_km)


# The buffer: patches of different splits keep their distance.

SIDE_M = 320.0


def patch_at(crs: str, x: float, y: float) -> tuple[list[float], list[float]]:
    """Centre and corners of a patch of SIDE_M whose centre is at (x, y) of a projection."""
    half = SIDE_M / 2
    lon, lat = grids.to_lonlat(
        crs,
        [x, x - half, x + half, x + half, x - half],
        [y, y - half, y - half, y + half, y + half],
    )
    return lon.tolist(), lat.tolist()


def random_patches(
    lon: float, lat: float, seed: int, number: int = 900
) -> list[tuple[list[float], list[float]]]:
    """Patches within 4 km of a place, half of them on the grid of the neighbouring UTM zone."""
    rng = np.random.default_rng(seed)
    zones = [grids.utm_crs(lon, lat), grids.utm_crs((lon + 6 + 180) % 360 - 180, lat)]
    centres = [
        pyproj.Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(lon, lat)
        for zone in zones
    ]
    offsets = rng.uniform(-4000, 4000, (number, 2))
    return [
        patch_at(zones[i % 2], centres[i % 2][0] + dx, centres[i % 2][1] + dy)
        for i, (dx, dy) in enumerate(offsets)
    ]


def plane_around(lon: float, lat: float) -> pyproj.CRS:
    return pyproj.CRS.from_proj4(f"+proj=aeqd +lon_0={lon} +lat_0={lat} +datum=WGS84")


def on_a_plane(
    lon: float, lat: float, patches: list[tuple[list[float], list[float]]]
) -> list[shapely.Polygon]:
    """The patches in metres around a place."""
    project = pyproj.Transformer.from_crs("EPSG:4326", plane_around(lon, lat), always_xy=True)
    return [
        shapely.Polygon(list(zip(*project.transform(x[1:], y[1:]), strict=True)))
        for x, y in patches
    ]


def closest_of_different_splits(shapes: list[shapely.Polygon], found: list[str | None]) -> float:
    kept = {
        split: [s for s, f in zip(shapes, found, strict=True) if f == split]
        for split in ("train", "eval", "test")
    }
    assert min(len(kept["train"]), len(kept["eval"]) + len(kept["test"])) > 10
    return min(
        shapely.distance(np.array(kept[one])[:, None], np.array(kept[two])[None]).min(
            initial=np.inf
        )
        for one, two in (("train", "eval"), ("train", "test"), ("eval", "test"))
    )


PLACES = [(14.9, 47.0), (-179.99, -17.0), (20.5, 69.5), (179.98, 0.001)]


@pytest.mark.parametrize(("lon", "lat"), PLACES)
@pytest.mark.parametrize(("buffer_m", "fraction"), [(200.0, 0.2), (700.0, 0.07)])
def test_no_two_patches_of_different_splits_are_closer_than_the_buffer(
    lon, lat, buffer_m, fraction
):
    config = SplitConfig(
        block_size_km=1.0, eval_fraction=fraction, test_fraction=fraction, buffer_m=buffer_m, seed=1
    )
    without = dataclasses.replace(config, buffer_m=0.0)
    patches = random_patches(lon, lat, seed=4)
    shapes = on_a_plane(lon, lat, patches)
    found = [splits.assign(*patch, config).split for patch in patches]
    unbuffered = [splits.assign(*patch, without).split for patch in patches]
    assert closest_of_different_splits(shapes, unbuffered) < 50
    assert closest_of_different_splits(shapes, found) >= buffer_m
    for split, before in zip(found, unbuffered, strict=True):
        # The buffer moves no patch to another split, and judged patches are too few to
        # lose: test keeps all of its own.
        assert split in (before, None)
        assert split == before or before != "test"


def test_patches_far_from_other_splits_stay_and_the_reason_names_what_is_near():
    config = SplitConfig(block_size_km=1.0, eval_fraction=0.2, test_fraction=0.2, buffer_m=300.0)
    lon, lat = PLACES[0]
    patches = random_patches(lon, lat, seed=5)
    shapes = on_a_plane(lon, lat, patches)
    found = [splits.assign(*patch, config) for patch in patches]
    dense = [
        (lon + x, lat + y)
        for x in np.linspace(-0.08, 0.08, 120)
        for y in np.linspace(-0.055, 0.055, 120)
    ]
    judged = [
        place for place in dense if splits.split_of(splits.block_id(*place, 1.0), config) != "train"
    ]
    project = pyproj.Transformer.from_crs("EPSG:4326", plane_around(lon, lat), always_xy=True)
    judged = shapely.MultiPoint(np.transpose(project.transform(*np.transpose(judged))))
    left_out = [one for one in found if one.reason == "in_buffer"]
    assert len(left_out) > 30
    for one in left_out:
        assert "is within 300 m of " in one.detail
        assert one.split is None
    # The corners of what the buffer looks at are further than the buffer; the places of
    # `dense` are 100 m apart.
    clear = [
        f for s, f in zip(shapes, found, strict=True) if s.distance(judged) > 300 * 2**0.5 + 100
    ]
    assert len(clear) > 10
    assert {one.split for one in clear} == {"train"}


def test_a_buffer_larger_than_a_block_is_refused():
    with pytest.raises(ValueError, match="buffer_m must be within 0 and block_size_km, got 2600"):
        SplitConfig(buffer_m=2600.0)
    with pytest.raises(ValueError, match="buffer_m must be within 0 and block_size_km, got -1"):
        SplitConfig(buffer_m=-1.0)
