"""The files of a map, made from parts with known pixels."""

import itertools
from dataclasses import replace

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from rasterio import features
from rio_cogeo.cogeo import cog_validate

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict import maps, parts, polygons
from beam_jobs.predict.blending import Area
from beam_jobs.predict.config import PolygonConfig, PredictConfig
from beam_jobs.predict.windows import Lattice
from beam_jobs.scenes import grids
from beam_jobs.scenes.grids import Grid
from tests.data.scenes import make_rasters

CLASSES = (
    LabelClass(id=0, name="dry", color="#d9c9a3"),
    LabelClass(id=1, name="water", color="#1f5fbf"),
    LabelClass(id=2, name="ice", color="#ffffff"),
)
HEIGHT, WIDTH = 1100, 1300
NOW = "2024-03-01T10:00:00.000Z"
GRID = Grid(
    crs="EPSG:32633",
    transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0),
    height=HEIGHT,
    width=WIDTH,
)


def make_bands():
    """Class, three probabilities, four other bands, with a hole without data."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.repeat(rng.integers(0, 3, (110, 130)), 10, 0), 10, 1)
    ids[:8, :8] = 2
    bands = np.concatenate([ids[np.newaxis], rng.integers(0, 251, (7, HEIGHT, WIDTH))])
    bands[:, 300:340, 500:900] = parts.NO_DATA
    return bands.astype(np.uint8)


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """The folder of the parts of a map, their areas and the map's bands."""
    folder = tmp_path_factory.mktemp("parts")
    bands = make_bands()
    lattice = Lattice(size_px=96, margin_px=16, blend_px=16)
    rows, cols = lattice.cuts(HEIGHT, 400), lattice.cuts(WIDTH, 400)
    areas = [
        Area(rows=slice(top, bottom), cols=slice(left, right))
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(cols)
    ]
    for area in areas:
        part = bands[:, area.rows, area.cols]
        window = GRID.window(area.rows.start, area.cols.start, *part.shape[1:])
        with rasterio.open(
            folder / parts.part_name(area),
            "w",
            driver="GTiff",
            count=8,
            height=part.shape[1],
            width=part.shape[2],
            dtype="uint8",
            crs=GRID.crs,
            transform=window.affine,
        ) as file:
            file.write(part)
    assert len(areas) > 4
    return folder, areas, bands


def write(parted, layers, path):
    folder, areas, _ = parted
    maps.write_cog(folder, areas, GRID, layers, {"KEY": "a < b"}, path)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    return path


def valid_mean(block):
    """The mean of 2 x 2 pixels, of those that have data."""
    return np.ma.masked_equal(block, parts.NO_DATA).mean(axis=(1, 3)).filled(parts.NO_DATA)


def test_classes_become_a_cog_whose_overviews_hold_the_most_frequent_class(parted, tmp_path):
    path = write(parted, [maps.class_layer(CLASSES)], tmp_path / "class.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), parted[2][0])
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == GRID.transform
        assert file.nodata == parts.NO_DATA
        assert file.tags()["KEY"] == "a < b"
        assert file.colormap(1)[0] == (0xD9, 0xC9, 0xA3, 255)
        assert file.colormap(1)[parts.NO_DATA][3] == 0
        assert file.overviews(1)[0] == 2
    with rasterio.open(path, overview_level=0) as file:
        # Blocks of 10 pixels of one class: an overview pixel has one class below it.
        np.testing.assert_array_equal(file.read(1), parted[2][0][::2, ::2])


def test_probabilities_are_averaged_without_pixels_that_have_no_data(parted, tmp_path):
    layers = maps.probability_layers(CLASSES, PredictConfig())
    path = write(parted, layers, tmp_path / "probability.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), parted[2][1:4])
        assert file.descriptions == ("dry", "water", "ice")
        assert file.scales == (0.004,) * 3
    with rasterio.open(path, overview_level=0) as file:
        found = file.read(2)
    blocks = parted[2][2].reshape(HEIGHT // 2, 2, WIDTH // 2, 2)
    expected = valid_mean(blocks)
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_every_layer_is_its_band_of_the_parts(parted, tmp_path):
    settings = PredictConfig(probabilities="highest", uncertainty="disagreement")
    for name, layers, bands in (
        ("highest.tif", maps.probability_layers(CLASSES, settings), [5]),
        ("uncertainty.tif", maps.uncertainty_layers(CLASSES, settings), [4, 6, 7]),
    ):
        path = write(parted, layers, tmp_path / name)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), parted[2][bands])
            assert file.descriptions == tuple(layer.description for layer in layers)
    for layers_of in (maps.probability_layers, maps.uncertainty_layers):
        assert layers_of(CLASSES, PredictConfig(probabilities="none", uncertainty="none")) == []


@pytest.mark.parametrize("kind", ["GPKG", "FlatGeobuf"])
def test_polygons_have_the_area_and_the_holes_of_the_pixels(parted, tmp_path, kind):
    path = write(parted, [maps.class_layer(CLASSES)], tmp_path / "class.tif")
    config = PolygonConfig(classes=("water", "ice"), min_area_m2=0.0, format=kind)
    target = tmp_path / polygons.FILES[kind]
    number = polygons.write(path, CLASSES, config, target, NOW)
    meta, _, geometries, columns = pyogrio.raw.read(target)
    assert meta["crs"] == "EPSG:32633"
    outlines = shapely.from_wkb(geometries)
    assert len(outlines) == number
    again = tmp_path / f"again{target.suffix}"
    polygons.write(path, CLASSES, config, again, NOW)
    assert again.read_bytes() == target.read_bytes()
    assert shapely.is_valid(outlines).all()
    found = dict(zip(meta["fields"], columns, strict=True))
    for value, name in ((1, "water"), (2, "ice")):
        chosen = found["class"] == value
        assert set(found["name"][chosen]) == {name}
        num_pixels = int((parted[2][0] == value).sum())
        np.testing.assert_allclose(shapely.area(outlines[chosen]).sum(), num_pixels * 100.0)
        np.testing.assert_allclose(found["area_m2"][chosen].sum(), num_pixels * 100.0)
        # Drawn again, the polygons are the pixels.
        drawn = features.rasterize(outlines[chosen], (HEIGHT, WIDTH), transform=GRID.affine)
        np.testing.assert_array_equal(drawn.astype(bool), parted[2][0] == value)


def test_small_areas_are_left_out_and_outlines_made_simpler(parted, tmp_path):
    path = write(parted, [maps.class_layer(CLASSES)], tmp_path / "class.tif")
    config = PolygonConfig(classes=("ice",), min_area_m2=30_000.0)
    outlines = {}
    for simplify_px in (0.0, 1.0):
        settings = replace(config, simplify_px=simplify_px)
        polygons.write(path, CLASSES, settings, tmp_path / "polygons.gpkg", NOW)
        _, _, geometries, (_, _, areas) = pyogrio.raw.read(tmp_path / "polygons.gpkg")
        outlines[simplify_px] = shapely.from_wkb(geometries)
        assert shapely.is_valid(outlines[simplify_px]).all()
        # The area is that of the pixels, whatever is done to the outline.
        np.testing.assert_allclose(areas, shapely.area(outlines[0.0]))
        assert areas.min() == 30_000.0
    moved = shapely.hausdorff_distance(outlines[0.0], outlines[1.0])
    assert moved.max() <= 10.0 + 1e-6
    none = PolygonConfig(classes=("ice",), min_area_m2=1e12)
    assert polygons.write(path, CLASSES, none, tmp_path / "none.gpkg", NOW) == 0


@pytest.mark.parametrize(
    ("crs", "x", "y", "kind"),
    [
        ("EPSG:32633", 500_000, 5e6, "GPKG"),
        # The edge of a zone, far in the north.
        ("EPSG:32633", 650_000, 8.9e6, "GPKG"),
        # Across the antimeridian.
        ("EPSG:32660", 833_479, 5000, "FlatGeobuf"),
    ],
)
def test_polygons_in_degrees_are_valid_and_as_large(tmp_path, crs, x, y, kind):
    ids = np.random.default_rng(0).integers(0, 2, (80, 100)).astype(np.uint8)
    ids[20:60, 20:60] = 1
    ids[30:40, 30:40] = 0
    # A long straight edge, which is bent in degrees.
    wide = np.zeros((80, 5000), np.uint8)
    wide[10:12] = 1
    for pixels in (ids, wide):
        path = make_rasters.write_geotiff(
            tmp_path / "class.tif",
            pixels[np.newaxis],
            crs=crs,
            transform=rasterio.Affine(10, 0, x, 0, -10, y),
        )
        config = PolygonConfig(classes=("water",), min_area_m2=0, crs="EPSG:4326", format=kind)
        target = tmp_path / polygons.FILES[kind]
        target.unlink(missing_ok=True)
        polygons.write(path, CLASSES, config, target, NOW)
        meta, _, geometries, (_, _, areas) = pyogrio.raw.read(target)
        assert meta["crs"] == "EPSG:4326"
        outlines = shapely.from_wkb(geometries)
        assert shapely.is_valid(outlines).all()
        west, _, east, _ = shapely.total_bounds(outlines)
        assert -180 <= west < east <= 180
        assert areas.sum() == (pixels == 1).sum() * 100
        is_across = crs == "EPSG:32660" and x + 10 * pixels.shape[1] > 833_979
        assert is_across == (east - west > 180)
        places = shapely.get_coordinates(shapely.point_on_surface(outlines))
        scale = pyproj.Proj(crs).get_factors(*places.T).areal_scale
        geod = pyproj.Geod(ellps="WGS84")
        on_globe = [abs(geod.geometry_area_perimeter(one)[0]) for one in outlines]
        if pixels is ids:
            np.testing.assert_allclose(np.array(on_globe) * scale, areas, rtol=1e-4)
        # Back on the map, no point of an edge lies off the pixels.
        back = grids.transformer("EPSG:4326", crs).transform
        for one in shapely.get_parts(outlines):
            dense = shapely.get_coordinates(shapely.segmentize(one, 1e-4))
            cols, rows = ~rasterio.Affine(10, 0, x, 0, -10, y) * np.stack(back(*dense.T))
            off = np.minimum(np.abs(cols - np.rint(cols)), np.abs(rows - np.rint(rows)))
            inside = np.abs(np.abs(dense[:, 0]) - 180) > 1e-9
            assert off[inside].max() < 0.02


def test_class_entropy_and_counts_have_closed_forms():
    shares = np.array([[[0.0, 1.0], [0.5, 0.5], [0.3, 0.7], [0.29, 0.71]]], np.float32)
    np.testing.assert_array_equal(parts.class_ids(shares, 0.7), [[1, 0, 0, 1]])
    np.testing.assert_array_equal(parts.class_ids(shares, None), [[1, 0, 1, 1]])
    expected = -(0.3 * np.log2(0.3) + 0.7 * np.log2(0.7))
    np.testing.assert_allclose(parts.entropy(shares)[0, :3], [0.0, 1.0, expected], atol=1e-5)
    np.testing.assert_array_equal(
        parts.to_counts(np.array([0.0, 0.002, 0.0061, 1.0])), [0, 0, 2, 250]
    )
