"""Inspection: units and offset are recognized; a bad raster is a one-line error."""

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
    s1_scene,
    s2_scene,
    write_geotiff,
)
from rasterio.crs import CRS

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.grids import Grid

S1_BANDS = ("VV", "VH")


def grid(height: int, width: int, *, dx: float = 0.0, dy: float = 0.0) -> Grid:
    return Grid(
        crs=UTM, transform=(10.0, 0.0, XMIN + dx, 0.0, -10.0, YMAX - dy), height=height, width=width
    )


def test_the_offset_is_detected_and_removed(tmp_path):
    plain = digital_numbers(13, 30, 30)
    plain[:, :2] = 0
    shifted = np.where(plain > 0, plain + 1000, 0).astype(np.uint16)
    names = tuple(name for name in S2_L1C_BANDS if name != "B10")
    one = inspection.inspect(s2_scene(tmp_path / "one.tif", plain), names)
    two = inspection.inspect(s2_scene(tmp_path / "two.tif", shifted), names)
    assert (one.dn_offset, two.dn_offset) == (0, 1000)
    target = grid(30, 30)
    got = readers.read_bands(two, names, target)
    assert np.array_equal(got, readers.read_bands(one, names, target), equal_nan=True)
    assert np.isnan(got[:2]).all()
    assert np.isfinite(got[2:]).all()


def test_a_declared_offset_is_believed(tmp_path):
    scene = s2_scene(tmp_path / "s2.tif", digital_numbers(12, 20, 20, offset=1000), dn_offset=1000)
    assert inspection.inspect(scene, S2_L2A_BANDS).dn_offset == 1000


def refused(scene, names) -> DataError:
    with pytest.raises(DataError) as error:
        inspection.inspect(scene, names)
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
    assert inspection.inspect(scene, S1_BANDS).grid is not None


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
    assert inspection.inspect(
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
    got = readers.read_bands(inspection.inspect(scene, ("VV",)), ("VV",), grid(20, 20))[..., 0]
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
    found = inspection.inspect(scene, ("B4", "B3", "B2"))
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
        inspection.inspect(scene, ("B4",))
