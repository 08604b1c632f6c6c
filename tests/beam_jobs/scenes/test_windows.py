"""Rasters of every geometry: read on one grid, they give the values of the ground.

A smooth function of longitude and latitude is written in each geometry. The closed form
at the centres of the grid is what every one of them must give.
"""

import math

import numpy as np
import pyproj
import pytest
from rasterio import Affine

from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import grids, inspection, label_rasters, readers, windows
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.label_assets import LabelSource
from tests.data.scenes.make_rasters import s2_scene, write_geotiff

SIZE = 96
DEGREE_M = 111_195.0


def around(crs: str, lon: float, lat: float, *, pixel_m: float = 10.0, size: int = 40) -> Grid:
    """A grid in metres whose centre is a place."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    half = size / 2 * pixel_m
    corner = (pixel_m, 0.0, round(x, -1) - half, 0.0, -pixel_m, round(y, -1) + half)
    return Grid(crs=crs, transform=corner, height=size, width=size)


def centred(grid: Grid, transform: Affine, crs: str, size: int, turn: float = 0.0) -> Affine:
    """The transform moved so that its middle pixel is the middle of the grid."""
    xmin, ymin, xmax, ymax = grid.bounds
    x, y = pyproj.Transformer.from_crs(grid.crs, crs, always_xy=True).transform(
        (xmin + xmax) / 2, (ymin + ymax) / 2
    )
    dx, dy = transform * (size / 2, size / 2)
    return Affine.translation(x + turn - dx, y - dy) * transform


def in_degrees(lat: float, pixel_m: float = 10.0) -> Affine:
    step = pixel_m / DEGREE_M
    return Affine(step / math.cos(math.radians(lat)), 0, 0, 0, -step, 0)


UTM = around("EPSG:32633", 15.3, 45.2)
EAST = around("EPSG:32660", 180.0, -17.0)
WEST = around("EPSG:32701", 180.0, -17.0)
FAR_NORTH = around("EPSG:32633", 15.3, 79.0)
NORTH = around("EPSG:3413", 180.0, 74.0)
SOUTH = around("EPSG:3031", 180.0, -75.0)
CASES = {
    "north_up": (UTM, UTM.crs, Affine.scale(10, -10), 0),
    "south_up": (UTM, UTM.crs, Affine.scale(10, 10), 0),
    "mirrored": (UTM, UTM.crs, Affine.scale(-10, -10), 0),
    "upside_down": (UTM, UTM.crs, Affine.scale(-10, 10), 0),
    "on_its_side": (UTM, UTM.crs, Affine(0, 10, 0, -10, 0, 0), 0),
    "on_its_other_side": (UTM, UTM.crs, Affine(0, -10, 0, 10, 0, 0), 0),
    "rotated": (UTM, UTM.crs, Affine.rotation(30) * Affine.scale(10, -10), 0),
    "rotated_south_up": (UTM, UTM.crs, Affine.rotation(-50) * Affine.scale(10, 10), 0),
    "sheared": (UTM, UTM.crs, Affine.shear(20, 0) * Affine.scale(10, -10), 0),
    "finer": (UTM, UTM.crs, Affine.translation(3, 3) * Affine.scale(9, -9), 0),
    "degrees": (UTM, "EPSG:4326", in_degrees(45.2), 0),
    "degrees_south_up": (UTM, "EPSG:4326", in_degrees(45.2) * Affine.scale(1, -1), 0),
    "degrees_rotated": (UTM, "EPSG:4326", Affine.rotation(20) * in_degrees(45.2), 0),
    "degrees_of_0_to_360": (around("EPSG:32604", -160.2, 21.0), "EPSG:4326", in_degrees(21), 360),
    "next_zone": (UTM, "EPSG:32634", Affine.scale(10, -10), 0),
    "mercator": (UTM, "EPSG:3857", Affine.scale(14, -14), 0),
    "polar_on_utm": (FAR_NORTH, "EPSG:3413", Affine.scale(10, -10), 0),
    "degrees_far_north": (FAR_NORTH, "EPSG:4326", in_degrees(79), 0),
    "across_180_above": (EAST, "EPSG:4326", in_degrees(-17), 0),
    "across_180_below": (EAST, "EPSG:4326", in_degrees(-17), -360),
    "across_180_from_the_west": (WEST, "EPSG:4326", in_degrees(-17), 0),
    "across_180_other_zone": (EAST, "EPSG:32701", Affine.scale(10, -10), 0),
    "across_180_polar_north": (NORTH, "EPSG:4326", in_degrees(74), -360),
    "across_180_utm_on_polar": (NORTH, "EPSG:32660", Affine.scale(10, -10), 0),
    "across_180_polar_south": (SOUTH, "EPSG:4326", in_degrees(-75), 0),
    "polar_south": (SOUTH, "EPSG:3031", Affine.scale(10, -10), 0),
}


def field(lon, lat, grid: Grid, period_m: float = 900.0):
    """Digital numbers, 1000 to 5000, whose longitudes have no jump at 180 degrees."""
    xmin, ymin, xmax, ymax = grid.bounds
    lon0, lat0 = grids.to_lonlat(grid.crs, (xmin + xmax) / 2, (ymin + ymax) / 2)
    east = ((lon - lon0 + 180) % 360 - 180) * DEGREE_M * np.cos(np.radians(lat0))
    north = (lat - lat0) * DEGREE_M
    return (
        3000
        + 1200 * np.sin(2 * np.pi * east / period_m)
        + 800 * np.cos(2 * np.pi * (north + 0.4 * east) / period_m)
    )


def lonlat(crs: str, transform: Affine, height: int, width: int):
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return grids.to_lonlat(crs, *(transform * (cols, rows)))


@pytest.mark.parametrize("name", CASES)
def test_an_image_gives_the_values_of_the_ground(tmp_path, name):
    grid, crs, shape, turn = CASES[name]
    transform = centred(grid, shape, crs, SIZE, turn)
    plane = field(*lonlat(crs, transform, SIZE, SIZE), grid).astype(np.float32)
    pixels = np.stack([plane, plane + 100])
    scene = s2_scene(tmp_path / "s2.tif", pixels, dn_offset=0, crs=crs, transform=transform)
    names = S2_L2A_BANDS[:2]
    scene = inspection.inspect(scene, names)
    got = readers.read_bands(scene, names, grid)
    expected = field(*lonlat(grid.crs, grid.affine, grid.height, grid.width), grid) / 10_000
    assert got[..., 0] == pytest.approx(expected, abs=1.5e-3)
    assert got[..., 1] == pytest.approx(expected + 0.01, abs=1.5e-3)
    # The patch grid of a build comes to the same ground.
    common = grids.common_grid(scene.grid, scene.grid, 10.0)
    assert common is not None
    middle = common.window(common.height // 2 - 8, common.width // 2 - 8, 16, 16)
    expected = field(*lonlat(middle.crs, middle.affine, 16, 16), grid) / 10_000
    assert readers.read_bands(scene, names, middle)[..., 0] == pytest.approx(expected, abs=1.5e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_label_gives_the_id_that_holds_the_centre_and_a_mask_too(tmp_path, name):
    grid, crs, shape, turn = CASES[name]
    # Not quite aligned, so that no centre lies on the edge of a pixel.
    transform = centred(grid, shape, crs, SIZE, turn) * Affine.translation(0.31, 0.27)
    ids = np.random.default_rng(0).integers(0, 9, (SIZE, SIZE)).astype(np.uint8)
    path = write_geotiff(tmp_path / "label.tif", ids[None], crs=crs, transform=transform)
    x, y = grid.affine * np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = pyproj.Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
    if crs == "EPSG:4326":
        middle = (transform * (SIZE / 2, SIZE / 2))[0]
        x = middle + (x - middle + 180) % 360 - 180
    places = np.stack(~transform * (x, y))
    cols, rows = np.floor(places).astype(int)
    # Two programs may disagree where a centre is within 0.001 px of an edge.
    sure = (np.abs(places - np.round(places)) > 1e-3).all(axis=0)
    assert sure.mean() > 0.99
    source = LabelSource(path=str(path), schema="dynamic_world", nodata=None)
    got = label_rasters.read(source, "dynamic_world", grid)
    assert np.array_equal(got[sure], ids[rows, cols][sure])
    clouds = readers.read_cloud_mask(str(path), grid, clear_values=(1, 4))
    assert np.array_equal(clouds[sure], ~np.isin(ids[rows, cols], [1, 4])[sure])


@pytest.mark.parametrize(("west", "width"), [(-180.0, 7200), (0.0, 7200), (-180.0, 7240)])
def test_a_raster_around_the_earth_has_no_seam(tmp_path, west, width):
    """A grid over the line where the last column meets the first, or some repeat."""
    lon = 180.0 if west else 0.3
    crs = "EPSG:32660" if west else "EPSG:32631"
    grid = around(crs, lon, 10.0, pixel_m=5000.0, size=60)
    transform = Affine(0.05, 0, west, 0, -0.05, 13.0)
    pixels = np.stack([field(*lonlat("EPSG:4326", transform, 120, width), grid, 6e5)] * 2)
    scene = s2_scene(
        tmp_path / "s2.tif",
        pixels.astype(np.float32),
        dn_offset=0,
        crs="EPSG:4326",
        transform=transform,
    )
    got = readers.read_bands(scene, S2_L2A_BANDS[:2], grid)[..., 0]
    expected = field(*lonlat(crs, grid.affine, 60, 60), grid, 6e5) / 10_000
    assert got == pytest.approx(expected, abs=1.5e-3)


@pytest.mark.parametrize("name", ["south_up", "mirrored", "upside_down", "on_its_side"])
def test_an_aligned_raster_is_copied_whatever_its_first_pixel_is(tmp_path, name):
    grid, crs, shape, _ = CASES[name]
    values = np.random.default_rng(1).integers(200, 4000, (2, SIZE, SIZE)).astype(np.uint16)
    transform = centred(grid, shape, crs, SIZE)
    scene = s2_scene(tmp_path / "s2.tif", values, dn_offset=0, crs=crs, transform=transform)
    got = readers.read_bands(scene, S2_L2A_BANDS[:2], grid)
    x, y = grid.affine * np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    cols, rows = (np.floor(found).astype(int) for found in ~transform * (x, y))
    expected = values[:, rows, cols].astype(np.float32) * np.float32(1e-4)
    assert np.array_equal(got, np.moveaxis(expected, 0, -1))


def test_an_aligned_window_has_no_margin_and_another_one_has_it(tmp_path):
    # So strips along the file's blocks do not decode the next row of blocks.
    path = write_geotiff(
        tmp_path / "a.tif",
        np.arange(SIZE * SIZE, dtype=np.float32).reshape(1, SIZE, SIZE),
        crs=UTM.crs,
        transform=centred(UTM, Affine.scale(10, -10), UTM.crs, SIZE),
    )
    with open_raster(str(path)) as dataset:
        aligned = windows.read_window(dataset, [1], UTM)
        assert aligned.pixels.shape == (1, 40, 40)
        assert aligned.source == (UTM.crs, UTM.affine)
        transform = tuple(Affine.translation(3, 3) * UTM.affine)[:6]
        beside = Grid(crs=UTM.crs, transform=transform, height=40, width=40)
        assert windows.read_window(dataset, [1], beside).pixels.shape == (1, 49, 49)


@pytest.mark.parametrize(
    ("layout", "block"),
    [
        ({"tiled": True, "blockxsize": 32, "blockysize": 16}, (16, 32)),
        ({"blockysize": 4}, (4, 200)),
    ],
)
@pytest.mark.parametrize(("row", "col"), [(0, 0), (40, 61), (95, 170)])
def test_the_blocks_that_a_grid_touches_are_bounded(tmp_path, layout, block, row, col):
    pixels = np.arange(120 * 200, dtype=np.float32).reshape(1, 120, 200)
    path = write_geotiff(tmp_path / "blocks.tif", pixels, **layout)
    with open_raster(str(path)) as dataset:
        grid = Grid(
            crs=dataset.crs.to_string(),
            transform=tuple(dataset.transform)[:6],
            height=120,
            width=200,
        ).window(row, col, 25, 30)
        found = windows.num_block_px(dataset, grid)
    rows, cols = (
        {place // size for place in range(first, first + count)}
        for first, count, size in zip((row, col), (25, 30), block, strict=True)
    )
    touched = len(rows) * len(cols) * block[0] * block[1]
    assert touched <= found <= (25 + 2 * block[0]) * min(30 + 2 * block[1], 200)
