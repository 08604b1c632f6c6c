"""Label rasters: ids of any schema on any grid; a bad label is a one-line error."""

import dataclasses

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp

from beam_jobs.contracts import labels
from beam_jobs.contracts.label_target import LabelTarget
from beam_jobs.errors import DataError
from beam_jobs.scenes import label_rasters
from beam_jobs.scenes.label_assets import LabelSource
from tests.data.scenes.make_rasters import (
    XMIN,
    YMAX,
    grid,
    north_up,
    write_geotiff,
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
        ([[-1, 1], [0, 1]], "water", "water", r"label ids \[-1\] are not in schema 'water'"),
        ([[300, 1], [0, 1]], "water", "water", r"label ids \[300\] are not in schema 'water'"),
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


def test_a_mask_of_0_and_255_has_water_where_the_item_says_so(tmp_path):
    mask = np.random.default_rng(3).choice(np.array([0, 255], np.uint8), (6, 9))
    source = label_file(tmp_path, mask, schema="water", nodata=None)
    assert set(np.unique(label_rasters.read(source, "water", grid(6, 9)))) == {0, 255}
    named = dataclasses.replace(source, values={"0": "dry", "255": "water"})
    assert np.array_equal(label_rasters.read(named, "water", grid(6, 9)), mask == 255)
    # Mask writers often tag one of the two values as no data.
    for tag in (0, 255):
        with rasterio.open(source.path, "r+") as dataset:
            dataset.nodata = tag
        assert np.array_equal(label_rasters.read(named, "water", grid(6, 9)), mask == 255)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16, np.int32])
def test_ids_of_any_type_of_number_are_read(tmp_path, dtype):
    ids = np.random.default_rng(4).integers(0, 9, (6, 9)).astype(dtype)
    source = label_file(tmp_path, ids, schema="dynamic_world", nodata=None)
    assert np.array_equal(label_rasters.read(source, "dynamic_world", grid(6, 9)), ids)


def test_large_and_negative_values_are_read_by_a_remap(tmp_path):
    values = np.random.default_rng(5).choice(np.array([-7, 111, 70_000, 2_000_000]), (6, 9))
    source = label_file(tmp_path, values.astype(np.int32), schema="corine", nodata=None)
    remap = {"-7": "ignore", "111": "dry", "70000": 1, "2000000": "water"}
    target = LabelTarget(schema=labels.WATER, remap=remap)
    expected = np.vectorize({-7: 255, 111: 0, 70_000: 1, 2_000_000: 1}.get)(values)
    assert np.array_equal(label_rasters.read(source, target, grid(6, 9)), expected)


def test_a_probability_is_no_label(tmp_path):
    values = np.array([[0.0, 0.37, np.nan], [1.0, 1.0, 0.5]], np.float32)
    source = label_file(tmp_path, values, schema="water", nodata=None)
    with pytest.raises(DataError, match=r"label.tif: label values must be whole numbers, got 0.37"):
        label_rasters.read(source, "water", grid(2, 3))


def test_a_label_of_several_bands_needs_the_number_of_one(tmp_path):
    bands = np.random.default_rng(6).integers(0, 2, (3, 6, 9)).astype(np.uint8)
    path = write_geotiff(tmp_path / "label.tif", bands)
    source = LabelSource(path=str(path), schema="water", nodata=None)
    with pytest.raises(DataError, match="the label has 3 bands; add terrapair:index") as error:
        label_rasters.read(source, "water", grid(6, 9))
    assert error.value.reason == "unknown_band_order"
    second = dataclasses.replace(source, index=2)
    assert np.array_equal(label_rasters.read(second, "water", grid(6, 9)), bands[1])
    with pytest.raises(DataError, match=r"terrapair:index of the label is 4, .* has 3 bands"):
        label_rasters.read(dataclasses.replace(source, index=4), "water", grid(6, 9))


def test_values_are_counted_for_messages(tmp_path):
    values = np.array([[0, 255, 255], [0, 0, 0]], np.uint8)
    source = label_file(tmp_path, values, schema="water", nodata=None)
    assert label_rasters.count_values(source) == {"0": 4, "255": 2}
