"""Inspection: units and offset are recognized; a bad raster is a one-line error."""

import dataclasses
import math

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.assets import BandSource
from tests.data.scenes.make_rasters import (
    UTM,
    XMIN,
    YMAX,
    backscatter,
    digital_numbers,
    footprint,
    grid,
    s1_scene,
    s2_scene,
    write_geotiff,
)

S1_BANDS = ("VV", "VH")


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
    ("transform", "reason"),
    [
        (rasterio.Affine(math.nan, 0, XMIN, 0, -10, YMAX), "missing_crs"),
        (rasterio.Affine(10, 0, 1e300, 0, -10, YMAX), "wrong_crs"),
        (rasterio.Affine(10, 10, XMIN, 10, 10, YMAX), "missing_crs"),
        (rasterio.Affine(0, 1e-12, XMIN, 10, 0, YMAX), "missing_crs"),
        (rasterio.Affine(0, 1e200, XMIN, 10, 0, YMAX), "missing_crs"),
    ],
)
def test_a_raster_at_no_place_is_refused(tmp_path, transform, reason):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(20, 20))
    write_geotiff(tmp_path / "s1.tif", backscatter(20, 20), transform=transform)
    assert refused(scene, S1_BANDS).reason == reason


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


def test_swapped_polarizations_are_refused_unless_they_were_checked(tmp_path):
    scene = s1_scene(tmp_path / "s1.tif", backscatter(40, 40)[::-1])
    error = refused(scene, S1_BANDS)
    assert error.reason == "polarizations_swapped"
    assert "VH exceeds VV by" in str(error)
    checked = dataclasses.replace(scene, polarizations_checked=True)
    got = readers.read_bands(inspection.inspect(checked, S1_BANDS), S1_BANDS, grid(40, 40))
    assert got[..., 0].mean() < got[..., 1].mean()


def test_values_that_can_be_no_decibels_are_told_from_an_empty_scene(tmp_path):
    numbers = (200 + 10 * backscatter(40, 40)).astype(np.uint16) + 50
    error = refused(s1_scene(tmp_path / "s1.tif", numbers), S1_BANDS)
    assert error.reason == "s1_not_db"
    assert "median of VV 1" in str(error)


def test_8_bit_optical_pixels_without_a_unit_are_refused(tmp_path):
    pixels = np.random.default_rng(4).integers(0, 255, (12, 20, 20)).astype(np.uint8)
    error = refused(s2_scene(tmp_path / "s2.tif", pixels, dn_offset=0), S2_L2A_BANDS)
    assert error.reason == "s2_not_dn"
    assert "8 bits" in str(error)


def test_reflectance_instead_of_digital_numbers_is_refused(tmp_path):
    reflectance = (digital_numbers(12, 20, 20) / 10_000).astype(np.float32)
    assert refused(s2_scene(tmp_path / "s2.tif", reflectance), S2_L2A_BANDS).reason == "s2_not_dn"


def with_offset_and_untagged_margin(bands: int, side: int) -> np.ndarray:
    """Digital numbers of dark ground with the offset, half of them fill of 0."""
    dn = np.random.default_rng(3).integers(100, 1700, (bands, side, side)) + 1000
    rows, cols = np.indices((side, side))
    dn[:, rows + cols < side] = 0
    return dn.astype(np.uint16)


@pytest.mark.parametrize("resampling", ["average", "cubic"])
def test_averaged_overviews_do_not_hide_the_offset(tmp_path, resampling):
    scene = s2_scene(tmp_path / "s2.tif", with_offset_and_untagged_margin(3, 1100))
    with rasterio.open(tmp_path / "s2.tif", "r+") as dataset:
        dataset.build_overviews([2, 4, 8], rasterio.enums.Resampling[resampling])
    error = refused(scene, ("B1", "B2", "B3"))
    assert error.reason == "unknown_dn_offset"
    assert "terrapair:dn_offset" in str(error)


@pytest.mark.parametrize("reach", [1, 2, 6])
def test_pixels_that_were_mixed_with_no_data_do_not_hide_the_offset(tmp_path, reach):
    # As a resampling leaves it that does not know of the fill value 0.
    dn = with_offset_and_untagged_margin(12, 120).astype(np.float64)
    missing = dn == 0
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    for axis in (1, 2):
        dn = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), axis, dn)
    dn = np.where(np.roll(missing, (-reach, -reach), (1, 2)) & missing, 0, dn).astype(np.uint16)
    edge = (dn > 0) & (dn < 500)
    assert edge.mean() > 1e-3
    scene = s2_scene(tmp_path / "s2.tif", dn)
    assert refused(scene, S2_L2A_BANDS).reason == "unknown_dn_offset"


def test_dark_single_zeros_are_no_edge(tmp_path):
    # Dark water was cut off at 0 in the infrared: no data lies beside nearly every
    # pixel of that band.
    dn = digital_numbers(12, 60, 60)
    dn[10:, ::3, ::3] = 0
    assert inspection.inspect(s2_scene(tmp_path / "s2.tif", dn), S2_L2A_BANDS).dn_offset == 0


@pytest.mark.parametrize("driver", ["strips", "tiles", "JP2OpenJPEG"])
def test_the_pixels_of_a_large_scene_are_looked_at_where_it_has_data(tmp_path, driver):
    # A tile that the swath only touches: no window of the spread has data.
    dn = np.zeros((1, 1500, 1500), np.uint16)
    dn[0, 300:460, 1330:1500] = digital_numbers(1, 160, 170)[0]
    scene = s2_scene(tmp_path / "s2.tif", dn)
    if driver != "strips":
        options = {
            "tiles": {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256},
            "JP2OpenJPEG": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"},
        }
        path = tmp_path / ("copy.jp2" if driver == "JP2OpenJPEG" else "copy.tif")
        rasterio.shutil.copy(tmp_path / "s2.tif", path, **options[driver])
        scene = dataclasses.replace(scene, bands={"B1": BandSource(path=str(path))})
    assert inspection.inspect(scene, ("B1",)).dn_offset == 0


def declared(scene, **fields):
    return dataclasses.replace(scene, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"processing_baseline": "02.14"}, 0),
        ({"processing_baseline": "04.00"}, 1000),
        ({"processing_baseline": "05.11", "is_offset_applied": True}, 0),
        ({"processing_baseline": "05.11", "is_offset_applied": False}, 1000),
        ({"is_offset_applied": True}, 0),
    ],
)
def test_the_catalog_and_the_pixels_must_agree_on_the_offset(tmp_path, fields, expected):
    dark = s2_scene(tmp_path / "dark.tif", digital_numbers(12, 40, 40))
    shifted = s2_scene(tmp_path / "shifted.tif", digital_numbers(12, 40, 40, offset=1000))
    agreeing, other = (dark, shifted) if expected == 0 else (shifted, dark)
    assert inspection.inspect(declared(agreeing, **fields), S2_L2A_BANDS).dn_offset == expected
    error = refused(declared(other, **fields), S2_L2A_BANDS)
    assert error.reason == "unknown_dn_offset"
    assert f"offset of {expected} in the digital numbers" in str(error)
    assert f"pixels show {1000 - expected}" in str(error)
    # The declaration is the cure.
    for offset in (0, 1000):
        cured = declared(other, **fields, dn_offset=offset)
        assert inspection.inspect(cured, S2_L2A_BANDS).dn_offset == offset


@pytest.mark.parametrize("baseline", [None, "99.99"])
def test_a_baseline_that_says_nothing_leaves_the_question_to_the_pixels(tmp_path, baseline):
    shifted = s2_scene(tmp_path / "s2.tif", digital_numbers(12, 40, 40, offset=1000))
    error = refused(declared(shifted, processing_baseline=baseline), S2_L2A_BANDS)
    assert error.reason == "unknown_dn_offset"


def test_bright_scenes_have_the_offset_of_their_baseline(tmp_path):
    # Snow and cloud: no pixel is dark, so the pixels say nothing.
    snow = s2_scene(tmp_path / "s2.tif", digital_numbers(12, 40, 40) + np.uint16(3000))
    for baseline, offset in (("02.14", 0), ("05.11", 1000)):
        found = inspection.inspect(declared(snow, processing_baseline=baseline), S2_L2A_BANDS)
        assert found.dn_offset == offset


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
