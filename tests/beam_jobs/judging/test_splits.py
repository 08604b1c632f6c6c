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

from beam_jobs.config import HoldoutConfig, SplitConfig
from beam_jobs.judging import holdouts, splits
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


def test_no_block_moves_between_splits_from_span_to_span(tmp_path):
    """Spans see the same ground on other grids and other dates; the rules stay the same."""
    region = tmp_path / "delta.geojson"
    polygon = shapely.box(14.95, 46.98, 15.01, 47.02)
    region.write_text(shapely.to_geojson(polygon))
    seen_by_many = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        config = holdouts.with_hashes(
            SplitConfig(
                block_size_km=1.5,
                eval_fraction=0.25,
                test_fraction=0.25,
                buffer_m=float(rng.choice([0.0, 200.0])),
                seed=seed,
                holdouts=(
                    HoldoutConfig(name="bolivia", split="test", values=("Bolivia",)),
                    HoldoutConfig(name="delta", split="eval", geojson=str(region)),
                ),
            )
        )
        places: dict[str, set[str]] = {}
        spans_of: dict[str, set[int]] = {}
        for span in range(3):
            # An event, and a data set that declares its split, lie at their own places.
            for lon, lat in random_patches(14.97, 47.0, seed=10 * seed + span, number=200):
                events = frozenset({"bolivia"} if lat[0] > 47.02 else ())
                declared = frozenset({"eval"} if lat[0] < 46.98 else ())
                found = splits.assign(lon, lat, config, declared, events)
                if found.split is not None:
                    # Published data sets may cut through a block.
                    key = f"{found.block}{'declared' if declared else ''}"
                    places.setdefault(key, set()).add(found.split)
                    spans_of.setdefault(key, set()).add(span)
        assert {split for found in places.values() for split in found} == {"train", "eval", "test"}
        assert all(len(found) == 1 for found in places.values())
        seen_by_many += sum(len(found) > 1 for found in spans_of.values())
    assert seen_by_many > 50


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


# Folds of a cross-validation.


def area(lon: float, lat: float, num_rows: int, num_columns: int, block_km: float) -> list[str]:
    """Blocks of rows above each other, which begin at the same longitude."""
    step = block_km / splits.KM_PER_DEGREE
    first = math.floor(lat / step)
    found = []
    for row in range(first, first + num_rows):
        middle = (row + 0.5) * step
        width = step / math.cos(math.radians(middle))
        column = math.floor(lon / width)
        # Not the edge of a column: rounding would decide.
        found += [
            splits.block_id((column + i + 0.5) * width, middle, block_km)
            for i in range(num_columns)
        ]
    return found


ZONE_MIDDLES = st.integers(-30, 29).map(lambda zone: 6.0 * zone + 3.0)


@settings(max_examples=200)
@given(
    zone=ZONE_MIDDLES,
    offset=st.floats(-2.5, 1.0),
    lat=st.floats(-70.0, 70.0),
    folds=st.integers(3, 12),
    seed=st.integers(0, 20),
    num_rows=st.integers(1, 6),
)
def test_every_fold_has_its_share_of_a_row_of_blocks(zone, offset, lat, folds, seed, num_rows):
    config = SplitConfig(folds=folds, seed=seed)
    for num_columns in (folds, folds + 2):
        blocks = area(zone + offset, lat, num_rows, num_columns, config.block_size_km)
        counts = np.bincount([splits.fold_of(block, config) for block in blocks], minlength=folds)
        # Exact where the length is a multiple of the folds; else one more in each row.
        assert counts.min() >= num_rows
        assert counts.max() <= num_rows * math.ceil(num_columns / folds)


@pytest.mark.parametrize(("size_km", "least"), [(5.12, 0.88), (7.68, 0.99)])
def test_one_scene_has_all_five_folds_where_a_hash_would_leave_some_empty(size_km, least):
    # A scene of 5.12 km, as the demo has them, touches 4 to 9 blocks of 2.56 km. A hash
    # of the block gives all five folds in 27 % of them.
    rng = np.random.default_rng(0)
    config, num_whole = SplitConfig(folds=5), 0
    for lon, lat in rng.uniform([-180, -60], [180, 60], (300, 2)):
        places = np.arange(0.32, size_km, 0.64) / splits.KM_PER_DEGREE
        blocks = {
            splits.block_id((lon + x + 180) % 360 - 180, lat + y, config.block_size_km)
            for x in places / math.cos(math.radians(lat))
            for y in places
        }
        num_whole += len({splits.fold_of(block, config) for block in blocks}) == 5
    assert num_whole / 300 >= least


def test_folds_train_and_test_most_of_the_labels_of_one_scene_and_one_split_few():
    """Counts of docs/splits.md: one scene of 64 patches of 640 m, blocks of 2.56 km."""
    rng = np.random.default_rng(0)
    counts = {0: [], 5: [], 10: []}
    for lon, lat in rng.uniform([-180, -60], [180, 60], (20, 2)):
        zone = grids.utm_crs(lon, lat)
        x0, y0 = pyproj.Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(lon, lat)
        patches = []
        for i, j in np.ndindex(8, 8):
            x, y = (
                x0 + 640.0 * np.array([j, j - 0.5, j + 0.5, j + 0.5, j - 0.5]),
                y0 + 640.0 * (np.array([i, i - 0.5, i - 0.5, i + 0.5, i + 0.5])),
            )
            patches.append([axis.tolist() for axis in grids.to_lonlat(zone, x, y)])
        for folds, found in counts.items():
            given = [
                splits.assign(*patch, SplitConfig(folds=folds, fold=fold)).split
                for fold in range(max(folds, 1))
                for patch in patches
            ]
            found.append((given.count("train") / max(folds, 1), given.count("test")))
    means = {folds: np.mean(found, axis=0).round() for folds, found in counts.items()}
    assert {folds: tuple(mean) for folds, mean in means.items()} == {
        0: (42, 7),
        5: (29, 36),
        10: (46, 36),
    }
    fewest = {folds: tuple(np.min(found, axis=0).round()) for folds, found in counts.items()}
    assert fewest == {0: (12, 0), 5: (28, 34), 10: (46, 34)}


@settings(max_examples=100)
@given(
    st.integers(-4000, 4000),
    st.integers(-7000, 7000),
    st.integers(3, 12),
    st.integers(0, 20),
)
def test_every_block_is_test_in_one_fold_and_eval_in_another(row, column, folds, seed):
    block = f"2.56km_{row}_{column}"
    found = [
        splits.split_of(block, SplitConfig(folds=folds, fold=fold, seed=seed))
        for fold in range(folds)
    ]
    assert found.count("test") == found.count("eval") == 1
    assert found.count("train") == folds - 2
    assert found[found.index("test") - 1] == "eval"


@pytest.mark.parametrize(("lon", "lat"), PLACES)
@pytest.mark.parametrize("buffer_m", [0.0, 200.0])
def test_no_pixel_is_in_two_splits_of_one_fold(lon, lat, buffer_m):
    patches = random_patches(lon, lat, seed=6)
    shapes = on_a_plane(lon, lat, patches)
    for fold in range(3):
        config = SplitConfig(block_size_km=1.0, folds=3, fold=fold, buffer_m=buffer_m)
        found = [splits.assign(*patch, config).split for patch in patches]
        distance = closest_of_different_splits(shapes, found)
        assert distance >= buffer_m if buffer_m else distance > 0


def test_labelled_patches_within_a_block_are_tested_once():
    lon, lat = PLACES[0]
    tested = {}
    for fold in range(4):
        config = SplitConfig(block_size_km=1.0, folds=4, fold=fold)
        for number, patch in enumerate(random_patches(lon, lat, seed=7)):
            tested[number] = tested.get(number, 0) + (splits.assign(*patch, config).split == "test")
            blocks = {splits.block_id(x, y, 1.0) for x, y in zip(*patch, strict=True)}
            folds_of = {splits.fold_of(block, config) for block in blocks}
            if fold == 3:
                # A patch across blocks of several folds has pixels of train in each.
                assert tested[number] == (len(folds_of) == 1)
    assert 300 < sum(tested.values()) < 900


def test_the_seed_turns_the_pattern_and_the_first_has_folds_far_apart():
    def same_fold(config):
        # Rows at the equator, in the middle of a zone: columns are above each other.
        column = round(3.0 * splits.KM_PER_DEGREE / config.block_size_km)
        fold = splits.fold_of(f"2.56km_0_{column}", config)
        return {
            (i, j)
            for i in range(3)
            for j in range(-2, 3)
            if splits.fold_of(f"2.56km_{i}_{column + j}", config) == fold
        }

    # A knight's move, its mirror image, and diagonals where there is nothing better.
    assert same_fold(SplitConfig(folds=5)) == {(0, 0), (1, -2), (2, 1)}
    assert same_fold(SplitConfig(folds=5, seed=1)) == {(0, 0), (1, 2), (2, -1)}
    assert same_fold(SplitConfig(folds=5, seed=4)) == same_fold(SplitConfig(folds=5))
    assert same_fold(SplitConfig(folds=3)) == {(0, 0), (1, -1), (1, 2), (2, -2), (2, 1)}


@pytest.mark.parametrize("folds", [-1, 1, 2])
def test_too_few_folds_are_refused(folds):
    message = f"folds must be at least 3 .*, or 0 for no folds, got {folds}"
    with pytest.raises(ValueError, match=message):
        SplitConfig(folds=folds)


def test_a_fold_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="fold must be within 0-4, got 5 with folds 5"):
        SplitConfig(folds=5, fold=5)
    with pytest.raises(ValueError, match="fold must be 0 without folds, got 1 with folds 0"):
        SplitConfig(fold=1)


def test_folds_leave_out_what_a_data_set_tests_on_and_divide_its_train_and_eval():
    lon, lat = PLACES[0]
    for fold in range(3):
        config = SplitConfig(folds=3, fold=fold)
        place = [lon], [lat]
        by_block = splits.assign(*place, config)
        assert by_block.split is not None
        for declared in ("train", "eval"):
            assert splits.assign(*place, config, frozenset({declared})) == by_block
        for kinds in ({"test"}, {"train", "test"}):
            found = splits.assign(*place, config, frozenset(kinds))
            assert (found.split, found.reason) == (None, "outside_folds")
            assert found.detail == "is declared as test"
