"""Splits: blocks have their size in km on the ground, splits their share, and no patch reaches into two splits."""

import math

import numpy as np
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs import grids, splits
from beam_jobs.config import SplitConfig

PROJECTIONS = {
    crs: pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    for crs in ("EPSG:32633", "EPSG:32634", "EPSG:3035")
}


def haversine_km(lon0, lat0, lon1, lat1):
    a = (
        math.sin(math.radians(lat1 - lat0) / 2) ** 2
        + math.cos(math.radians(lat0)) * math.cos(math.radians(lat1)) * math.sin(math.radians(lon1 - lon0) / 2) ** 2
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
    # Two latitudes of one row: the column edge must be at the same longitude, or blocks would overlap.
    size = 2.56
    row_height = size / splits.KM_PER_DEGREE
    low, high = 45.0 // row_height * row_height + 1e-6, (45.0 // row_height + 1) * row_height - 1e-6
    lons = np.linspace(10.0, 11.0, 3000)
    assert [splits.block_id(x, low, size) for x in lons] == [splits.block_id(x, high, size) for x in lons]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(15.0, 17.9), st.floats(40.0, 60.0))
def test_the_block_of_a_place_does_not_depend_on_the_crs_it_came_through(lon, lat):
    ids = set()
    for crs, project in PROJECTIONS.items():
        back = grids.to_lonlat(crs, *project.transform(lon, lat))
        # A place within a hair of an edge may fall to either side; round as far as a millimetre.
        ids.add(splits.block_id(round(float(back[0]), 8) + 1e-10, round(float(back[1]), 8) + 1e-10, 2.56))
    assert len(ids) == 1


def test_blocks_of_other_sizes_are_other_blocks():
    assert splits.block_id(10, 10, 2.56) != splits.block_id(10, 10, 5.12)


def test_splits_have_their_share_of_blocks():
    config = SplitConfig(eval_fraction=0.2, test_fraction=0.1)
    found = [splits.split_of(f"2.56km_{row}_{col}", config) for row in range(100) for col in range(100)]
    assert found.count("eval") / 10_000 == pytest.approx(0.2, abs=0.015)
    assert found.count("test") / 10_000 == pytest.approx(0.1, abs=0.012)
    assert found.count("train") == 10_000 - found.count("eval") - found.count("test")


def test_neighbouring_blocks_are_assigned_independently():
    config = SplitConfig(eval_fraction=0.25, test_fraction=0.25)
    table = np.array([[splits.split_of(f"2.56km_{row}_{col}", config) for col in range(80)] for row in range(80)])
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
    # Published splits must not move when code changes: positions by `printf '0|BLOCK' | sha256sum`, first 16 bits.
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.15)
    positions = {"2.56km_0_0": 0xD97A, "2.56km_-7_12": 0x608E, "2.56km_3_4": 0x1547, "2.56km_3_3": 0xADDD}
    expected = ["test" if p / 65536 < 0.15 else "eval" if p / 65536 < 0.45 else "train" for p in positions.values()]
    assert expected == ["train", "eval", "test", "train"]
    assert [splits.split_of(block, config) for block in positions] == expected


def square(lon: float, lat: float, half: float) -> tuple[list[float], list[float]]:
    return [lon, lon - half, lon + half, lon + half, lon - half], [lat, lat - half, lat - half, lat + half, lat + half]


def test_a_patch_is_refused_exactly_when_it_reaches_into_another_split():
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.3)
    rng = np.random.default_rng(2)
    refused = same_split_two_blocks = 0
    for lon, lat in rng.uniform([10, 40], [12, 42], (600, 2)):
        lons, lats = square(lon, lat, 0.003)
        blocks = [splits.block_id(x, y, config.block_size_km) for x, y in zip(lons, lats, strict=True)]
        found = {splits.split_of(block, config) for block in blocks}
        block, split = splits.assign(lons, lats, config)
        assert block == blocks[0]
        assert (split is None) == (len(found) > 1)
        if split is not None:
            assert split == splits.split_of(block, config)
        refused += split is None
        same_split_two_blocks += split is not None and len(set(blocks)) > 1
    assert refused > 50
    assert same_split_two_blocks > 20


def test_two_kept_patches_that_overlap_are_never_in_different_splits():
    config = SplitConfig(eval_fraction=0.3, test_fraction=0.3)
    rng = np.random.default_rng(3)
    for lon, lat in rng.uniform([10, 40], [12, 42], (400, 2)):
        _, one = splits.assign(*square(lon, lat, 0.003), config)
        _, two = splits.assign(*square(lon + 0.002, lat - 0.004, 0.003), config)
        assert one is None or two is None or one == two


def test_a_declared_split_goes_before_the_block_which_is_told_all_the_same():
    config = SplitConfig()
    lon, lat = [10.0], [45.0]
    block, hashed = splits.assign(lon, lat, config)
    for declared in ("train", "eval", "test"):
        assert splits.assign(lon, lat, config, frozenset({declared})) == (block, declared)
    assert splits.assign(lon, lat, config, frozenset()) == (block, hashed)


def test_a_patch_whose_scenes_declare_different_splits_has_none():
    found = splits.assign([10.0], [45.0], SplitConfig(), frozenset({"train", "test"}))
    assert found == (splits.block_id(10.0, 45.0, SplitConfig().block_size_km), None)
