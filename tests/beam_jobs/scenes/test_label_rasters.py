"""Label rasters: ids of any schema on any grid; a bad label is a one-line error."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from make_rasters import (
    UTM,
    XMIN,
    YMAX,
    north_up,
    write_geotiff,
)
from rasterio.enums import ColorInterp

from beam_jobs.errors import DataError
from beam_jobs.scenes import label_rasters
from beam_jobs.scenes.assets import LabelSource
from beam_jobs.scenes.grids import Grid

S1_BANDS = ("VV", "VH")


def grid(height: int, width: int, *, dx: float = 0.0, dy: float = 0.0) -> Grid:
    return Grid(
        crs=UTM, transform=(10.0, 0.0, XMIN + dx, 0.0, -10.0, YMAX - dy), height=height, width=width
    )


def label_file(tmp_path, values, schema="terramesh_lulc", nodata=0, **writing):
    path = write_geotiff(tmp_path / "label.tif", values[None], **writing)
    return LabelSource(path=str(path), schema=schema, nodata=nodata)


def test_labels_are_remapped_and_no_label_is_255(tmp_path):
    ids = np.random.default_rng(0).choice(np.array([0, 1, 2, 4, 9, 8, 255], np.uint8), (20, 20))
    expected = np.vectorize({0: 255, 1: 0, 2: 1, 4: 4, 9: 2, 8: 255, 255: 255}.__getitem__)(ids)
    source = label_file(tmp_path, ids)
    got = label_rasters.read(source, "dynamic_world", grid(20, 20))
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)
    shifted = label_rasters.read(source, "dynamic_world", grid(10, 25, dx=53, dy=46))
    assert np.array_equal(shifted[:, :15], expected[5:15, 5:])
    assert (shifted[:, 15:] == 255).all()


def test_a_label_on_another_grid_gives_each_pixel_the_id_that_holds_its_centre(tmp_path):
    ids = np.random.default_rng(1).choice(np.array([1, 2, 4, 9], np.uint8), (7, 7))
    # 30 m pixels whose corner lies 4 m left of and above that of the images.
    source = label_file(tmp_path, ids, transform=north_up(30.0, x=XMIN - 4.0, y=YMAX + 4.0))
    got = label_rasters.read(source, "terramesh_lulc", grid(20, 20))
    centre = np.floor((10.0 * np.arange(20) + 5.0 + 4.0) / 30.0).astype(int)
    assert np.array_equal(got, ids[np.ix_(centre, centre)])


def test_the_files_own_nodata_counts_where_the_catalog_names_none(tmp_path):
    ids = np.array([[-1, 0, 1], [1, -1, 0]], np.int16)
    source = label_file(tmp_path, ids, schema="water", nodata=None, transform=north_up())
    with rasterio.open(source.path, "r+") as dataset:
        dataset.nodata = -1
    assert label_rasters.read(source, "water", grid(2, 3)).tolist() == [[255, 0, 1], [1, 255, 0]]


@pytest.mark.parametrize(
    ("values", "schema", "target", "message"),
    [
        (
            [[1, 14], [2, 3]],
            "terramesh_lulc",
            "dynamic_world",
            r"label ids \[14\] are not in schema 'terramesh_lulc'",
        ),
        ([[-1, 1], [0, 1]], "water", "water", "must lie in 0-255, got -1 to 1"),
        ([[300, 1], [0, 1]], "water", "water", "must lie in 0-255, got 0 to 300"),
        (
            [[1, 1], [2, 3]],
            "igbp10",
            "dynamic_world",
            "no remap from label schema 'igbp10' to 'dynamic_world'",
        ),
        ([[1, 1], [2, 3]], "corine", "water", "unknown label schema 'corine'"),
    ],
)
def test_a_bad_label_names_file_and_id(tmp_path, values, schema, target, message):
    source = label_file(tmp_path, np.array(values, np.int16), schema=schema, nodata=None)
    with pytest.raises(DataError, match=message) as error:
        label_rasters.read(source, target, grid(2, 2))
    assert str(error.value).startswith(f"{source.path}: ")
    assert error.value.reason == "label_id_outside_schema"


def test_label_without_crs_is_a_data_error(tmp_path):
    source = label_file(tmp_path, np.array([[1, 2], [3, 4]], np.uint8), crs=None)
    with pytest.raises(DataError, match=r"label\.tif: the raster has no CRS"):
        label_rasters.read(source, "dynamic_world", grid(2, 2))


def test_pixels_that_the_file_hides_have_no_label(tmp_path):
    ids = np.random.default_rng(0).integers(0, 9, (20, 20)).astype(np.uint8)
    hidden = np.random.default_rng(1).random((20, 20)) < 0.4
    source = label_file(tmp_path, ids, schema="dynamic_world", nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source.path, "r+") as dataset:
        dataset.write_mask(~hidden)
    got = label_rasters.read(source, "dynamic_world", grid(20, 20))
    assert np.array_equal(got, np.where(hidden, 255, ids))


def test_an_alpha_band_beside_the_label_hides_its_pixels(tmp_path):
    ids = np.random.default_rng(0).integers(0, 9, (20, 20)).astype(np.uint8)
    alpha = np.where(np.random.default_rng(1).random((20, 20)) < 0.4, 0, 255).astype(np.uint8)
    path = write_geotiff(tmp_path / "label.tif", np.stack([ids, alpha]))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    source = LabelSource(path=str(path), schema="dynamic_world", nodata=None)
    got = label_rasters.read(source, "dynamic_world", grid(20, 20))
    assert np.array_equal(got, np.where(alpha == 0, 255, ids))
