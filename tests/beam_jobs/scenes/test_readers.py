"""Readers: values equal the files, in physical units; a bad raster is a one-line error."""

import dataclasses
import math

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from make_rasters import (
    UTM,
    XMIN,
    YMAX,
    backscatter,
    digital_numbers,
    footprint,
    north_up,
    s1_scene,
    s2_scene,
    write_geotiff,
)
from rasterio.crs import CRS

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import readers
from beam_jobs.scenes.assets import SCL_CLEAR_VALUES, BandSource, LabelSource
from beam_jobs.scenes.grids import Grid

S1_BANDS = ("VV", "VH")


def grid(height: int, width: int, *, dx: float = 0.0, dy: float = 0.0) -> Grid:
    return Grid(
        crs=UTM, transform=(10.0, 0.0, XMIN + dx, 0.0, -10.0, YMAX - dy), height=height, width=width
    )


def test_an_aligned_read_is_the_file_with_nan_outside(tmp_path):
    pixels = backscatter(40, 50)
    scene = readers.inspect(s1_scene(tmp_path / "s1.tif", pixels), S1_BANDS)
    assert scene.grid == grid(40, 50)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 30, dx=300, dy=-50))
    expected = np.full((20, 30, 2), np.nan, np.float32)
    expected[5:, :20] = pixels[:, :15, 30:].transpose(1, 2, 0)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected, equal_nan=True)


def test_bands_come_in_the_order_asked_for(tmp_path):
    pixels = digital_numbers(12, 20, 20)
    scene = readers.inspect(s2_scene(tmp_path / "s2.tif", pixels), S2_L2A_BANDS)
    got = readers.read_bands(scene, ("B8A", "B2"), grid(20, 20))
    for channel, name in enumerate(("B8A", "B2")):
        assert got[..., channel] == pytest.approx(
            pixels[S2_L2A_BANDS.index(name)] / 10_000, abs=1e-7
        )


def test_a_window_beside_the_scene_is_all_nan(tmp_path):
    scene = readers.inspect(s1_scene(tmp_path / "s1.tif", backscatter(20, 20)), S1_BANDS)
    assert np.isnan(readers.read_bands(scene, S1_BANDS, grid(5, 5, dx=9000))).all()


def test_reading_in_parts_is_reading_the_whole(tmp_path):
    # On a shifted grid: interpolation at the edge of a part must see the pixels beyond
    # it.
    scene = readers.inspect(s1_scene(tmp_path / "s1.tif", backscatter(60, 60)), S1_BANDS)
    whole = readers.read_bands(scene, S1_BANDS, grid(40, 40, dx=53, dy=57))
    part = readers.read_bands(scene, S1_BANDS, grid(10, 15, dx=53 + 200, dy=57 + 100))
    assert part == pytest.approx(whole[10:20, 20:35], abs=1e-4, nan_ok=True)


def test_no_data_of_every_kind_is_nan(tmp_path):
    pixels = backscatter(20, 20)
    pixels[:, 0, :] = -99.0
    pixels[:, 1, :] = 0.0
    pixels[:, 2, :] = np.nan
    scene = readers.inspect(s1_scene(tmp_path / "s1.tif", pixels, nodata=-99.0), S1_BANDS)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 20))
    assert np.isnan(got[:3]).all()
    assert np.isfinite(got[3:]).all()


def test_the_files_own_nodata_counts_even_within_the_valid_range(tmp_path):
    pixels = backscatter(20, 20)
    pixels[0, 3, 4] = pixels[1, 5, 6] = -33.25
    scene = readers.inspect(s1_scene(tmp_path / "s1.tif", pixels, nodata=-33.25), S1_BANDS)
    missing = np.isnan(readers.read_bands(scene, S1_BANDS, grid(20, 20)))
    assert np.argwhere(missing).tolist() == [[3, 4, 0], [5, 6, 1]]


def test_the_offset_is_detected_and_removed(tmp_path):
    plain = digital_numbers(13, 30, 30)
    plain[:, :2] = 0
    shifted = np.where(plain > 0, plain + 1000, 0).astype(np.uint16)
    names = tuple(name for name in S2_L1C_BANDS if name != "B10")
    one = readers.inspect(s2_scene(tmp_path / "one.tif", plain), names)
    two = readers.inspect(s2_scene(tmp_path / "two.tif", shifted), names)
    assert (one.dn_offset, two.dn_offset) == (0, 1000)
    target = grid(30, 30)
    got = readers.read_bands(two, names, target)
    assert np.array_equal(got, readers.read_bands(one, names, target), equal_nan=True)
    assert np.isnan(got[:2]).all()
    assert np.isfinite(got[2:]).all()


def test_a_declared_offset_is_believed(tmp_path):
    scene = s2_scene(tmp_path / "s2.tif", digital_numbers(12, 20, 20, offset=1000), dn_offset=1000)
    assert readers.inspect(scene, S2_L2A_BANDS).dn_offset == 1000


def split_bands(tmp_path, scene, pixels, names, **writing):
    """The scene with one file per band instead of one for all."""
    sources = {}
    for name, plane in zip(names, pixels, strict=True):
        path = write_geotiff(tmp_path / f"{scene.scene_id}_{name}.tif", plane[None], **writing)
        sources[name] = BandSource(path=str(path), index=1)
    return dataclasses.replace(scene, bands=sources)


@pytest.mark.parametrize("dx", [0.0, 4.0])
def test_one_file_per_band_reads_like_one_file(tmp_path, dx):
    pixels = backscatter(30, 30)
    pixels[:, 4:8, 4:8] = 0.0
    # Exactly 0 dB in one polarization is a measurement.
    pixels[0, 20, 20] = 0.0
    multi = s1_scene(tmp_path / "s1.tif", pixels)
    single = split_bands(tmp_path, multi, pixels, S1_BANDS)
    multi, single = readers.inspect(multi, S1_BANDS), readers.inspect(single, S1_BANDS)
    target = grid(30, 30, dx=dx)
    one, two = (
        readers.read_bands(multi, S1_BANDS, target),
        readers.read_bands(single, S1_BANDS, target),
    )
    assert np.array_equal(one, two, equal_nan=True)
    assert np.isnan(one[4:8, 4:8]).all()
    assert np.isfinite(one[20, 20, 0])


def test_bands_at_10_20_and_60_m_meet_at_10_m(tmp_path):
    names, sizes = ("B2", "B5", "B1"), (10.0, 20.0, 60.0)
    scene = s2_scene(tmp_path / "base.tif", digital_numbers(12, 60, 60))
    sources = {}
    for name, size in zip(names, sizes, strict=True):
        centres = (np.arange(int(600 / size)) + 0.5) * size
        plane = (500 + centres[None, :] * 2 + centres[:, None]).astype(np.uint16)
        path = write_geotiff(tmp_path / f"{name}.tif", plane[None], transform=north_up(size))
        sources[name] = BandSource(path=str(path), index=1)
    scene = readers.inspect(dataclasses.replace(scene, bands=sources, dn_offset=0), names)
    assert scene.grid == grid(60, 60)
    got = readers.read_bands(scene, names, scene.grid)
    fine = (np.arange(60) + 0.5) * 10
    expected = (500 + fine[None, :] * 2 + fine[:, None]) / 10_000
    for channel in range(3):
        assert got[6:-6, 6:-6, channel] == pytest.approx(expected[6:-6, 6:-6], abs=2e-4)


def test_a_band_is_found_by_its_name_in_the_file_and_its_own_no_data_counts(tmp_path):
    pixels = backscatter(20, 20)
    pixels[0, :3] = -25.5
    pixels[1, 5:] = -25.5
    scene = s1_scene(tmp_path / "s1.tif", pixels, descriptions=("0_VV", "0_VH"))
    path = str(tmp_path / "s1.tif")
    bands = {
        "VH": BandSource(path=path, key="0_VH"),
        "VV": BandSource(path=path, key="0_VV", nodata=-25.5),
    }
    scene = readers.inspect(dataclasses.replace(scene, bands=bands), S1_BANDS)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 20))
    assert np.isnan(got[:3, :, 0]).all()
    assert np.array_equal(got[3:, :, 0], pixels[0, 3:])
    assert np.array_equal(got[..., 1], pixels[1])
    gone = dataclasses.replace(scene, bands={**bands, "VH": BandSource(path=path, key="1_VH")})
    assert "has no band 1_VH; it has 0_VV, 0_VH" in str(refused(gone, S1_BANDS))


def label_file(tmp_path, values, schema="terramesh_lulc", nodata=0, **writing):
    path = write_geotiff(tmp_path / "label.tif", values[None], **writing)
    return LabelSource(path=str(path), schema=schema, nodata=nodata)


def test_labels_are_remapped_and_no_label_is_255(tmp_path):
    ids = np.random.default_rng(0).choice(np.array([0, 1, 2, 4, 9, 8, 255], np.uint8), (20, 20))
    expected = np.vectorize({0: 255, 1: 0, 2: 1, 4: 4, 9: 2, 8: 255, 255: 255}.__getitem__)(ids)
    source = label_file(tmp_path, ids)
    got = readers.read_label(source, "dynamic_world", grid(20, 20))
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)
    shifted = readers.read_label(source, "dynamic_world", grid(10, 25, dx=53, dy=46))
    assert np.array_equal(shifted[:, :15], expected[5:15, 5:])
    assert (shifted[:, 15:] == 255).all()


def test_a_label_on_another_grid_gives_each_pixel_the_id_that_holds_its_centre(tmp_path):
    ids = np.random.default_rng(1).choice(np.array([1, 2, 4, 9], np.uint8), (7, 7))
    # 30 m pixels whose corner lies 4 m left of and above that of the images.
    source = label_file(tmp_path, ids, transform=north_up(30.0, x=XMIN - 4.0, y=YMAX + 4.0))
    got = readers.read_label(source, "terramesh_lulc", grid(20, 20))
    centre = np.floor((10.0 * np.arange(20) + 5.0 + 4.0) / 30.0).astype(int)
    assert np.array_equal(got, ids[np.ix_(centre, centre)])


def test_the_files_own_nodata_counts_where_the_catalog_names_none(tmp_path):
    ids = np.array([[-1, 0, 1], [1, -1, 0]], np.int16)
    source = label_file(tmp_path, ids, schema="water", nodata=None, transform=north_up())
    with rasterio.open(source.path, "r+") as dataset:
        dataset.nodata = -1
    assert readers.read_label(source, "water", grid(2, 3)).tolist() == [[255, 0, 1], [1, 255, 0]]


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
        readers.read_label(source, target, grid(2, 2))
    assert str(error.value).startswith(f"{source.path}: ")
    assert error.value.reason == "label_id_outside_schema"


def test_what_the_mask_does_not_call_clear_is_cloud(tmp_path):
    mask = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (20, 20))
    path = str(write_geotiff(tmp_path / "mask.tif", mask[None], nodata=255))
    got = readers.read_cloud_mask(path, grid(10, 25, dx=100))
    assert got.dtype == np.bool_
    assert np.array_equal(got[:, :10], mask[:10, 10:] != 0)
    assert got[:, 10:].all()
    assert readers.read_cloud_mask(path, grid(3, 3, dx=5000)).all()
    got = readers.read_cloud_mask(path, grid(20, 20), clear_values=(0, 2))
    assert np.array_equal(got, (mask == 1) | (mask == 255))


def test_a_mask_of_classes_hides_those_that_mean_cloud_and_what_has_no_class(tmp_path):
    # Scene classification at 20 m, each class in a pixel of its own; 0 is no data.
    classes = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    path = str(write_geotiff(tmp_path / "scl.tif", classes, transform=north_up(20.0), nodata=0))
    got = readers.read_cloud_mask(path, grid(6, 8), SCL_CLEAR_VALUES)
    expected = np.isin(classes[0], [0, 3, 8, 9, 10])
    assert np.array_equal(got, expected.repeat(2, axis=0).repeat(2, axis=1))


def test_label_without_crs_is_a_data_error(tmp_path):
    source = label_file(tmp_path, np.array([[1, 2], [3, 4]], np.uint8), crs=None)
    with pytest.raises(DataError, match=r"label\.tif: the raster has no CRS"):
        readers.read_label(source, "dynamic_world", grid(2, 2))


def refused(scene, names) -> DataError:
    with pytest.raises(DataError) as error:
        readers.inspect(scene, names)
    assert "\n" not in str(error.value)
    assert next(iter(scene.bands.values())).path in str(error.value)
    return error.value


def test_a_missing_file_is_refused(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20))
    (tmp_path / "s1.tif").unlink()
    assert refused(scene, S1_BANDS).reason == "missing_file"


@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_truncated_file_is_refused_before_it_is_cut(tmp_path, kept):
    path = tmp_path / "s1.tif"
    scene = s1_scene(path, backscatter(390, 420))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refused(scene, S1_BANDS).reason == "unreadable_raster"


def test_overviews_do_not_hide_a_truncated_file(tmp_path):
    path = tmp_path / "s1.tif"
    scene = s1_scene(path, backscatter(600, 600))
    rasterio.shutil.copy(path, tmp_path / "cog.tif", driver="COG")
    content = (tmp_path / "cog.tif").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refused(scene, S1_BANDS).reason == "unreadable_raster"


def test_a_file_that_is_no_raster_is_refused(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20))
    (tmp_path / "s1.tif").write_text("not found\n")
    assert refused(scene, S1_BANDS).reason == "unreadable_raster"


def test_a_band_the_scene_does_not_have_is_refused(tmp_path):
    error = refused(s1_scene(tmp_path / "s1.tif", backscatter(20, 20)[:1]), S1_BANDS)
    assert error.reason == "missing_bands"
    assert "'VH'" in str(error)


def test_a_band_beyond_the_file_is_refused(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20))
    write_geotiff(tmp_path / "s1.tif", backscatter(20, 20)[:1])
    error = refused(scene, S1_BANDS)
    assert error.reason == "missing_bands"
    assert "VH at 2, the file has 1 bands" in str(error)


def test_swapped_bands_are_refused_when_the_file_names_them(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20), descriptions=("VH", "VV"))
    error = refused(scene, S1_BANDS)
    assert error.reason == "unknown_band_order"
    assert "puts band VV at 1, the file calls that one VH" in str(error)


def test_descriptions_that_name_no_band_do_not_matter(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20), descriptions=("bands", "bands"))
    assert readers.inspect(scene, S1_BANDS).grid is not None


def test_a_raster_without_crs_is_refused(tmp_path):
    assert (
        refused(s1_scene(tmp_path / "s1.tif", backscatter(20, 20), crs=None), S1_BANDS).reason
        == "missing_crs"
    )


@pytest.mark.parametrize(
    ("declared", "shown"), [("EPSG:32634", "EPSG:32634"), ("EPSG:not-a-code", "EPSG:not-a-code")]
)
def test_another_crs_than_declared_is_refused(tmp_path, declared, shown):
    scene = dataclasses.replace(
        s1_scene(tmp_path / "s1.tif", backscatter(20, 20)), declared_crs=declared
    )
    error = refused(scene, S1_BANDS)
    assert error.reason == "wrong_crs"
    assert shown in str(error)


def test_the_declared_crs_may_be_spelled_differently(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20))
    assert readers.inspect(
        dataclasses.replace(scene, declared_crs=CRS.from_epsg(32633).to_wkt()), S1_BANDS
    ).grid


def test_a_raster_beside_its_footprint_is_refused(tmp_path):
    # The zone next door: numbers that look right, 6 degrees away.
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20), crs="EPSG:32634")
    error = refused(
        dataclasses.replace(scene, footprint=footprint(tmp_path / "s1.tif", UTM)), S1_BANDS
    )
    assert error.reason == "wrong_crs"
    assert "lies at lon 21.000" in str(error)


def test_power_instead_of_decibels_is_refused(tmp_path):
    power = (10 ** (backscatter(20, 20) / 10)).astype(np.float32)
    error = refused(s1_scene(tmp_path / "s1.tif", power), S1_BANDS)
    assert error.reason == "s1_not_db"
    assert "linear power" in str(error)


def test_reflectance_instead_of_digital_numbers_is_refused(tmp_path):
    reflectance = (digital_numbers(12, 20, 20) / 10_000).astype(np.float32)
    assert refused(s2_scene(tmp_path / "s2.tif", reflectance), S2_L2A_BANDS).reason == "s2_not_dn"


def test_an_offset_that_pixels_cannot_tell_is_refused(tmp_path):
    scene = s2_scene(tmp_path / "s2.tif", digital_numbers(12, 20, 20, offset=1100))
    error = refused(scene, S2_L2A_BANDS)
    assert error.reason == "unknown_dn_offset"
    assert "terrapair:dn_offset" in str(error)


@pytest.mark.parametrize("fill", [math.nan, 0.0, -99.0])
def test_a_scene_without_measurement_is_refused(tmp_path, fill):
    scene = s1_scene(tmp_path / "s1.tif", np.full((2, 20, 20), fill, np.float32), nodata=-99.0)
    assert refused(scene, S1_BANDS).reason == "no_valid_pixel"


def test_an_empty_optical_scene_is_refused(tmp_path):
    scene = s2_scene(tmp_path / "s2.tif", np.zeros((12, 20, 20), np.uint16))
    assert refused(scene, S2_L2A_BANDS).reason == "no_valid_pixel"


def in_units(scene, unit, scale, offset=0.0, nodata=None):
    """The scene with bands in units that its item declares."""
    bands = {
        name: dataclasses.replace(source, unit=unit, scale=scale, offset=offset, nodata=nodata)
        for name, source in scene.bands.items()
    }
    return dataclasses.replace(scene, bands=bands)


def test_8_bit_power_is_read_in_decibels(tmp_path):
    pixels = np.random.default_rng(3).integers(1, 256, (1, 20, 20)).astype(np.uint8)
    pixels[0, 0, :2] = [0, 255]
    scene = s1_scene(tmp_path / "s1.tif", pixels)
    scene = in_units(dataclasses.replace(scene, bands={"VV": scene.bands["VV"]}), "power", 1 / 255)
    got = readers.read_bands(readers.inspect(scene, ("VV",)), ("VV",), grid(20, 20))[..., 0]
    expected = 10 * np.log10(np.where(pixels[0] > 0, pixels[0], np.nan) / 255)
    assert got == pytest.approx(expected, abs=1e-4, nan_ok=True)
    # The brightest pixel has 0 dB, which here was measured.
    assert (np.isnan(got[0, 0]), got[0, 1]) == (True, 0.0)


def test_8_bit_reflectance_is_read_as_declared_and_black_is_dark(tmp_path):
    pixels = np.random.default_rng(4).integers(0, 255, (12, 20, 20)).astype(np.uint8)
    pixels[:, 1] = 255
    scene = in_units(
        s2_scene(tmp_path / "s2.tif", pixels), "reflectance", 0.002, 0.01, nodata=255.0
    )
    found = readers.inspect(scene, ("B4", "B3", "B2"))
    # No offset is looked for: an image without dark pixels would be refused otherwise.
    assert found.dn_offset == 0
    got = readers.read_bands(found, ("B4", "B2"), grid(20, 20))
    for channel, name in enumerate(("B4", "B2")):
        plane = pixels[S2_L2A_BANDS.index(name)]
        expected = np.where(plane == 255, np.nan, plane * 0.002 + 0.01)
        assert got[..., channel] == pytest.approx(expected, abs=1e-6, nan_ok=True)
        assert np.isnan(got[1, :, channel]).all()
        assert (plane == 0).any()


def test_a_forgotten_scale_is_one_line(tmp_path):
    pixels = np.random.default_rng(5).integers(20, 255, (12, 20, 20)).astype(np.uint8)
    scene = in_units(s2_scene(tmp_path / "s2.tif", pixels), "reflectance", 1.0)
    with pytest.raises(
        DataError,
        match=r"s2.tif: reflectance must be at most 6.5535, but .* make its median 1\d\d$",
    ):
        readers.inspect(scene, ("B4",))
