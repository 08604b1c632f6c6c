"""Grids: the common grid against pyproj, windows that cover every whole patch exactly once."""

import numpy as np
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.scenes import grids
from beam_jobs.scenes.grids import Grid


def utm(crs="EPSG:32633", x=500_000.0, y=5_000_000.0, height=60, width=80, pixel_size=10.0) -> Grid:
    return Grid(
        crs=crs, transform=(pixel_size, 0.0, x, 0.0, -pixel_size, y), height=height, width=width
    )


def test_bounds_are_the_outer_edges():
    assert utm().bounds == (500_000.0, 4_999_400.0, 500_800.0, 5_000_000.0)


def test_a_window_lies_where_its_first_pixel_does():
    window = utm().window(3, 5, 7, 11)
    assert window.bounds == (500_050.0, 4_999_900.0, 500_160.0, 4_999_970.0)
    assert (window.height, window.width, window.crs) == (7, 11, "EPSG:32633")


def test_the_common_grid_of_a_grid_with_itself_is_that_grid():
    assert grids.common_grid(utm(), utm(), 10.0) == utm()


def test_grids_shifted_by_whole_pixels_share_what_both_cover():
    # 5 pixels east, 3 pixels south.
    common = grids.common_grid(utm(), utm(x=500_050.0, y=4_999_970.0), 10.0)
    assert common == utm(x=500_050.0, y=4_999_970.0, height=57, width=75)


def test_grids_shifted_by_half_a_pixel_snap_inwards_to_the_reference():
    common = grids.common_grid(utm(), utm(x=500_045.0, y=4_999_975.0), 10.0)
    assert common == utm(x=500_050.0, y=4_999_970.0, height=57, width=75)
    # From the west and north it ends half a pixel inside the last whole one.
    common = grids.common_grid(utm(), utm(x=499_965.0, y=5_000_025.0), 10.0)
    assert common == utm(height=57, width=76)


def test_the_reference_decides_the_pixel_corners():
    shifted = utm(x=500_045.0, y=4_999_975.0)
    common = grids.common_grid(shifted, utm(), 10.0)
    assert common is not None
    assert (common.transform[2], common.transform[5]) == (500_045.0, 4_999_975.0)


def test_grids_that_do_not_share_a_pixel_have_no_common_grid():
    assert grids.common_grid(utm(), utm(x=500_800.0), 10.0) is None
    assert grids.common_grid(utm(), utm(x=500_795.0), 10.0) is None
    assert grids.common_grid(utm(), utm(y=4_990_000.0), 10.0) is None
    assert grids.common_grid(utm(), utm(x=500_790.0), 10.0).width == 1


def test_another_pixel_size_keeps_the_corner_of_the_reference():
    common = grids.common_grid(utm(pixel_size=20.0), utm(pixel_size=20.0), 10.0)
    assert common == utm(height=120, width=160)


def inside(grid: Grid, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    xmin, ymin, xmax, ymax = grid.bounds
    return (x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)


def test_scenes_of_two_utm_zones_meet_where_both_see_the_ground():
    # Lon 18 is the border of zones 33 and 34.
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(
        18.0, 45.0
    )
    one = utm(x=round(x, -1) - 3000, y=round(y, -1) + 3000, height=600, width=600)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32634", always_xy=True).transform(
        18.01, 45.01
    )
    two = utm("EPSG:32634", x=round(x, -1) - 3000, y=round(y, -1) + 3000, height=600, width=600)
    common = grids.common_grid(one, two, 10.0)
    assert common is not None
    assert common.crs == "EPSG:32633"
    assert (common.transform[2] - one.transform[2]) % 10 == pytest.approx(0, abs=1e-6)
    # Points seen by both must lie in it, and its centre must be seen by both; pyproj is
    # the oracle.
    rng = np.random.default_rng(0)
    px, py = (
        rng.uniform(one.bounds[0], one.bounds[2], 2000),
        rng.uniform(one.bounds[1], one.bounds[3], 2000),
    )
    seen = inside(
        two, *pyproj.Transformer.from_crs(one.crs, two.crs, always_xy=True).transform(px, py)
    )
    assert seen.sum() > 500
    margin = 10.0
    xmin, ymin, xmax, ymax = common.bounds
    deep = seen & inside(
        utm(one.crs, one.bounds[0] + margin, one.bounds[3] - margin, 598, 598), px, py
    )
    near = (px > xmin - margin) & (px < xmax + margin) & (py > ymin - margin) & (py < ymax + margin)
    assert near[deep].all()
    centre = (xmin + xmax) / 2, (ymin + ymax) / 2
    assert inside(one, *map(np.array, centre))
    assert inside(
        two,
        *map(
            np.array,
            pyproj.Transformer.from_crs(one.crs, two.crs, always_xy=True).transform(*centre),
        ),
    )


@pytest.mark.parametrize(
    ("lon", "lat", "crs"), [(15.2, 45.3, "EPSG:32633"), (-70.4, -33.5, "EPSG:32719")]
)
def test_a_grid_in_degrees_becomes_one_in_metres_of_its_utm_zone(lon, lat, crs):
    step = 8.983e-5
    degrees = Grid(
        crs="EPSG:4326", transform=(step, 0.0, lon, 0.0, -step, lat), height=100, width=100
    )
    common = grids.common_grid(degrees, degrees, 10.0)
    assert common is not None
    assert common.crs == crs
    assert common.transform[2] % 10 == common.transform[5] % 10 == 0
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(
        lon + 50 * step, lat - 50 * step
    )
    xmin, ymin, xmax, ymax = common.bounds
    assert ((xmin + xmax) / 2, (ymin + ymax) / 2) == pytest.approx((x, y), abs=15)
    # A degree of latitude is about 111.2 km, one of longitude cos(lat) of it.
    assert common.height == pytest.approx(100 * step * 111_200 / 10, rel=0.05)
    assert common.width == pytest.approx(
        100 * step * 111_300 * np.cos(np.radians(lat)) / 10, rel=0.05
    )


@pytest.mark.parametrize(
    ("lon", "lat", "expected"),
    [
        (15.0, 45.0, 32633),
        (-180.0, 10.0, 32601),
        (179.99, -10.0, 32760),
        (180.0, 1.0, 32660),
        (-0.1, 0.0, 32630),
        (0.0, -0.1, 32731),
    ],
)
def test_utm_zones(lon, lat, expected):
    assert grids.utm_crs(lon, lat) == f"EPSG:{expected}"


@settings(max_examples=60, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-79.0, 79.0))
def test_the_utm_zone_of_a_place_has_the_place_within_half_a_zone(lon, lat):
    zone = int(grids.utm_crs(lon, lat)[-2:])
    assert abs(lon - (zone * 6 - 183)) <= 3.0 + 1e-9


def test_lonlat_agrees_with_pyproj_at_patch_centre_and_corners():
    patch = utm("EPSG:32719", x=345_600.0, y=6_290_000.0, height=64, width=64)
    lon, lat = grids.centre_and_corners(patch)
    xs = [345_920.0, 345_600.0, 346_240.0, 346_240.0, 345_600.0]
    ys = [6_289_680.0, 6_289_360.0, 6_289_360.0, 6_290_000.0, 6_290_000.0]
    expected = [pyproj.Proj("EPSG:32719")(x, y, inverse=True) for x, y in zip(xs, ys, strict=True)]
    assert lon == pytest.approx([e[0] for e in expected], abs=1e-9)
    assert lat == pytest.approx([e[1] for e in expected], abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.integers(4, 64),
    max_pixels=st.integers(500, 40_000),
)
def test_strips_and_windows_cover_each_whole_patch_once_within_the_limit(
    height, width, size, max_pixels
):
    grid = utm(height=height, width=width)
    covered = np.zeros((height, width), int)
    for strip in grids.strips(grid, size, max_pixels):
        # One row of patches is the least there can be.
        assert strip.height * strip.width <= max(max_pixels, size * width)
        top = round((grid.transform[5] - strip.transform[5]) / 10)
        for window in grids.patch_windows(strip, size):
            row, col, patch = window.row, window.col, window.grid
            assert (patch.height, patch.width) == (size, size)
            assert patch.transform[2] == grid.transform[2] + col * 10
            assert patch.transform[5] == strip.transform[5] - row * 10
            rows, cols = window.pixels
            covered[top + rows.start : top + rows.stop, cols] += 1
    whole = np.zeros_like(covered)
    whole[: height // size * size, : width // size * size] = 1
    assert np.array_equal(covered, whole)


def around(crs: str, lon: float, lat: float, pixel_size: float, size: int = 200) -> Grid:
    """A grid of `size` pixels around a place, in the units of any CRS."""
    x, y = grids.from_lonlat(crs, lon, lat)
    half = pixel_size * size / 2
    transform = (pixel_size, 0.0, x - half, 0.0, -pixel_size, y + half)
    return Grid(crs=crs, transform=transform, height=size, width=size)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "pixel_size", "expected"),
    [
        ("EPSG:3857", 25.3, 60.4, 20.0, "EPSG:32635"),
        # New York in US survey feet, and the same in degrees.
        ("EPSG:2263", -74.0, 40.7, 32.8, "EPSG:32618"),
        ("EPSG:4326", -74.0, 40.7, 1e-4, "EPSG:32618"),
        # Polar stereographic, true at 70 degrees north.
        ("EPSG:3413", -40.0, 78.0, 10.0, "EPSG:32624"),
        ("EPSG:3413", -45.0, 88.0, 10.0, "EPSG:5041"),
        ("EPSG:3031", 20.0, -85.0, 10.0, "EPSG:5042"),
        ("EPSG:4326", 179.999, 70.0, 1e-4, "EPSG:32660"),
        ("EPSG:4326", 180.02, 70.0, 1e-4, "EPSG:32601"),
        # Equal area, where it stretches by 1.5 %.
        ("EPSG:3035", -9.0, 38.7, 10.0, "EPSG:32629"),
    ],
)
def test_the_pixels_of_patches_have_metres_on_the_ground(crs, lon, lat, pixel_size, expected):
    raster = around(crs, lon, lat, pixel_size)
    common = grids.common_grid(raster, raster, 10.0)
    assert common is not None
    assert common.crs == expected
    patch = common.window(common.height // 2 - 30, common.width // 2 - 30, 60, 60)
    lons, lats = grids.centre_and_corners(patch)
    geod = pyproj.Geod(ellps="WGS84")
    sides = [
        geod.inv(lons[one], lats[one], lons[two], lats[two])[2]
        for one, two in ((1, 2), (2, 3), (3, 4), (4, 1))
    ]
    assert sides == pytest.approx([600.0] * 4, rel=0.007)
    # The whole raster is covered: its centre and its side.
    assert grids.from_lonlat(common.crs, lon, lat) == pytest.approx(
        ((common.bounds[0] + common.bounds[2]) / 2, (common.bounds[1] + common.bounds[3]) / 2),
        abs=40,
    )


@pytest.mark.parametrize(
    ("crs", "lon", "lat"),
    [
        ("EPSG:32633", 15.0, 45.0),
        # A Sentinel-2 tile reaches beyond its zone.
        ("EPSG:32633", 18.6, 5.0),
        ("EPSG:5041", 10.0, 85.0),
        ("EPSG:3413", -45.0, 70.0),
        ("EPSG:3035", 10.0, 52.0),
        ("EPSG:2056", 8.0, 47.0),
    ],
)
def test_a_grid_with_metres_on_the_ground_stays_as_it_is(crs, lon, lat):
    raster = around(crs, lon, lat, 10.0)
    assert grids.is_metric(raster)
    assert grids.common_grid(raster, raster, 10.0).crs == crs


def test_a_rotated_grid_in_metres_is_metric():
    turned = Grid(
        crs="EPSG:32633",
        transform=(8.0, 6.0, 500_000.0, 6.0, -8.0, 5_000_000.0),
        height=50,
        width=50,
    )
    assert grids.is_metric(turned)
