"""Readers: values equal the files, in physical units, on any grid."""

import dataclasses
import math

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.contracts.records import quantize
from beam_jobs.errors import DataError
from beam_jobs.scenes import grids, inspection, readers
from beam_jobs.scenes.assets import SCL_CLEAR_VALUES, BandSource
from tests.data.scenes.make_rasters import (
    UTM,
    XMIN,
    YMAX,
    backscatter,
    digital_numbers,
    grid,
    north_up,
    s1_scene,
    s2_scene,
    write_geotiff,
)

S1_BANDS = ("VV", "VH")


def test_an_aligned_read_is_the_file_with_nan_outside(tmp_path):
    pixels = backscatter(40, 50)
    scene = inspection.inspect(s1_scene(tmp_path / "s1.tif", pixels), S1_BANDS)
    assert scene.grid == grid(40, 50)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 30, dx=300, dy=-50))
    expected = np.full((20, 30, 2), np.nan, np.float32)
    expected[5:, :20] = pixels[:, :15, 30:].transpose(1, 2, 0)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected, equal_nan=True)


def test_bands_come_in_the_order_asked_for(tmp_path):
    pixels = digital_numbers(12, 20, 20)
    scene = inspection.inspect(s2_scene(tmp_path / "s2.tif", pixels), S2_L2A_BANDS)
    got = readers.read_bands(scene, ("B8A", "B2"), grid(20, 20))
    for channel, name in enumerate(("B8A", "B2")):
        assert got[..., channel] == pytest.approx(
            pixels[S2_L2A_BANDS.index(name)] / 10_000, abs=1e-7
        )


def test_a_window_beside_the_scene_is_all_nan(tmp_path):
    scene = inspection.inspect(s1_scene(tmp_path / "s1.tif", backscatter(20, 20)), S1_BANDS)
    assert np.isnan(readers.read_bands(scene, S1_BANDS, grid(5, 5, dx=9000))).all()


def test_reading_in_parts_is_reading_the_whole(tmp_path):
    # On a shifted grid: interpolation at the edge of a part must see the pixels beyond
    # it.
    scene = inspection.inspect(s1_scene(tmp_path / "s1.tif", backscatter(60, 60)), S1_BANDS)
    whole = readers.read_bands(scene, S1_BANDS, grid(40, 40, dx=53, dy=57))
    part = readers.read_bands(scene, S1_BANDS, grid(10, 15, dx=53 + 200, dy=57 + 100))
    assert part == pytest.approx(whole[10:20, 20:35], abs=1e-4, nan_ok=True)


def test_no_data_of_every_kind_is_nan(tmp_path):
    pixels = backscatter(20, 20)
    pixels[:, 0, :] = -99.0
    pixels[:, 1, :] = 0.0
    pixels[:, 2, :] = np.nan
    scene = inspection.inspect(s1_scene(tmp_path / "s1.tif", pixels, nodata=-99.0), S1_BANDS)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 20))
    assert np.isnan(got[:3]).all()
    assert np.isfinite(got[3:]).all()


def test_the_files_own_nodata_counts_even_within_the_valid_range(tmp_path):
    pixels = backscatter(20, 20)
    pixels[0, 3, 4] = pixels[1, 5, 6] = -33.25
    scene = inspection.inspect(s1_scene(tmp_path / "s1.tif", pixels, nodata=-33.25), S1_BANDS)
    missing = np.isnan(readers.read_bands(scene, S1_BANDS, grid(20, 20)))
    assert np.argwhere(missing).tolist() == [[3, 4, 0], [5, 6, 1]]


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
    multi, single = inspection.inspect(multi, S1_BANDS), inspection.inspect(single, S1_BANDS)
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
    scene = inspection.inspect(dataclasses.replace(scene, bands=sources, dn_offset=0), names)
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
    scene = inspection.inspect(dataclasses.replace(scene, bands=bands), S1_BANDS)
    got = readers.read_bands(scene, S1_BANDS, grid(20, 20))
    assert np.isnan(got[:3, :, 0]).all()
    assert np.array_equal(got[3:, :, 0], pixels[0, 3:])
    assert np.array_equal(got[..., 1], pixels[1])
    gone = dataclasses.replace(scene, bands={**bands, "VH": BandSource(path=path, key="1_VH")})
    with pytest.raises(DataError, match="has no band 1_VH; it has 0_VV, 0_VH"):
        inspection.inspect(gone, S1_BANDS)


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


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "pixel_size"),
    [("EPSG:3857", 25.3, 60.4, 20.0), ("EPSG:2263", -74.0, 40.7, 32.8)],
)
def test_a_scene_in_another_unit_has_its_values_where_they_lie_on_the_ground(
    tmp_path, crs, lon, lat, pixel_size
):
    x, y = grids.from_lonlat(crs, lon, lat)
    transform = north_up(pixel_size, x - 100 * pixel_size, y + 100 * pixel_size)
    cols, rows = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    lons, lats = grids.to_lonlat(crs, *(transform * (cols, rows)))
    # Reflectance that grows with the place: 1 digital number a metre.
    east, north = (lons - lon) * 111_320 * np.cos(np.radians(lat)), (lats - lat) * 111_200
    planes = np.stack([2500 + east / 2, 2500 + north / 2])
    scene = s2_scene(
        tmp_path / "s2.tif", np.rint(planes).astype(np.uint16), crs=crs, transform=transform
    )
    scene = inspection.inspect(dataclasses.replace(scene, dn_offset=0), ("B1", "B2"))
    common = grids.common_grid(scene.grid, scene.grid, 10.0)
    middle = common.window(common.height // 2 - 30, common.width // 2 - 30, 60, 60)
    got = readers.read_bands(scene, ("B1", "B2"), middle) * 10_000
    # On the ground, values change by 5 a pixel of 10 m, in the direction of the grid.
    steps = np.hypot(np.diff(got[:-1], axis=1), np.diff(got[:, :-1], axis=0))
    assert np.median(steps, axis=(0, 1)) == pytest.approx([5.0, 5.0], rel=0.02)
    centre_lon, centre_lat = (degrees[0] for degrees in grids.centre_and_corners(middle))
    assert got[29:31, 29:31, 0].mean() == pytest.approx(
        2500 + (centre_lon - lon) * 111_320 * np.cos(np.radians(lat)) / 2, abs=2
    )
    assert got[29:31, 29:31, 1].mean() == pytest.approx(
        2500 + (centre_lat - lat) * 111_200 / 2, abs=2
    )


HIDDEN = np.zeros((20, 20), bool)
HIDDEN[3:9, 5:12] = True


def hide(path, how):
    """Hide the pixels of HIDDEN of a raster, by a mask or by a band of opaqueness."""
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(~HIDDEN)
        return
    with rasterio.open(path) as dataset:
        profile, pixels = dataset.profile, dataset.read()
    alpha = np.where(HIDDEN, 0, 255).astype(pixels.dtype)[None]
    profile.update(count=len(pixels) + 1)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.colorinterp = (
            [ColorInterp.gray] + [ColorInterp.undefined] * (len(pixels) - 1) + [ColorInterp.alpha]
        )
        dataset.write(np.concatenate([pixels, alpha]))


@pytest.mark.parametrize("how", ["mask", "alpha"])
def test_pixels_that_a_file_hides_are_no_data_in_images_and_cloud_in_masks(tmp_path, how):
    radar, optical = backscatter(20, 20), digital_numbers(12, 20, 20)
    s1, s2 = s1_scene(tmp_path / "s1.tif", radar), s2_scene(tmp_path / "s2.tif", optical)
    clouds = str(write_geotiff(tmp_path / "clouds.tif", np.zeros((1, 20, 20), np.uint8)))
    for name in ("s1", "s2", "clouds"):
        hide(tmp_path / f"{name}.tif", how)
    s1, s2 = inspection.inspect(s1, S1_BANDS), inspection.inspect(s2, ("B2", "B11"))
    for scene, names, pixels in ((s1, S1_BANDS, radar), (s2, ("B2",), optical[1:2] / 1e4)):
        got = readers.read_bands(scene, names, grid(20, 20))
        assert np.isnan(got[HIDDEN]).all()
        assert got[~HIDDEN] == pytest.approx(np.moveaxis(pixels, 0, -1)[~HIDDEN], abs=1e-6)
    assert np.array_equal(readers.read_cloud_mask(clouds, grid(20, 20)), HIDDEN)


def test_a_fourth_band_that_gdal_takes_for_alpha_is_data_if_the_item_lists_it(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (4, 20, 20)).astype(np.uint8)
    pixels[3, 4:9, 4:9] = 0
    path = write_geotiff(tmp_path / "rgbn.tif", pixels)
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    unit = {"path": str(path), "unit": "reflectance", "scale": 0.002}
    bands = {n: BandSource(index=i, **unit) for i, n in enumerate(("B4", "B3", "B2", "B8"), 1)}
    scene = dataclasses.replace(s2_scene(tmp_path / "base.tif", pixels[:2]), bands=bands)
    got = readers.read_bands(scene, ("B4", "B8"), grid(20, 20))
    assert got == pytest.approx(np.moveaxis(pixels[[0, 3]], 0, -1) * 0.002, abs=1e-4)
    without = dataclasses.replace(scene, bands={"B4": bands["B4"]})
    got = readers.read_bands(without, ("B4",), grid(20, 20))
    assert np.array_equal(np.isnan(got[..., 0]), pixels[3] == 0)


def test_no_data_values_of_each_band_of_a_vrt_count_in_that_band(tmp_path):
    pixels = digital_numbers(2, 20, 20)
    pixels[:, 4, 4] = 300
    pixels[:, 5, 5] = 9999
    files = [write_geotiff(tmp_path / f"{i}.tif", pixels[i : i + 1]) for i in range(2)]
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i + 1}"><NoDataValue>{nodata}</NoDataValue>'
        f"<SimpleSource><SourceFilename>{files[i]}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for i, nodata in enumerate((300, 9999))
    )
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>{UTM}</SRS><GeoTransform>'
        f"{XMIN},10,0,{YMAX},0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    scene = s2_scene(tmp_path / "base.tif", pixels, dn_offset=0)
    sources = {
        name: dataclasses.replace(source, path=str(vrt)) for name, source in scene.bands.items()
    }
    scene = dataclasses.replace(scene, bands=sources)
    got = readers.read_bands(scene, ("B1", "B2"), grid(20, 20))
    assert np.array_equal(np.isnan(got[..., 0]), pixels[0] == 300)
    assert np.array_equal(np.isnan(got[..., 1]), pixels[1] == 9999)


def dark_water(tmp_path, **source):
    """A scene with 0 in B11 over water (rows 2 to 5), and in all bands outside the swath."""
    pixels = digital_numbers(12, 20, 20)
    pixels[10, 2:6] = 0
    pixels[:, 15:] = 0
    scene = s2_scene(tmp_path / "s2.tif", pixels, dn_offset=source.pop("dn_offset", 0), nodata=0)
    bands = {name: dataclasses.replace(one, **source) for name, one in scene.bands.items()}
    return dataclasses.replace(scene, bands=bands), pixels


def test_0_in_one_band_of_sentinel_2_is_the_darkest_measurement(tmp_path):
    scene, pixels = dark_water(tmp_path)
    got = readers.read_bands(scene, ("B2", "B11"), grid(20, 20))
    assert np.isnan(got[15:]).all()
    assert np.isfinite(got[:15]).all()
    assert got[2:6, :, 1] == pytest.approx(np.full((4, 20), 1e-4))
    # Shards hold 1 there, since 0 is no data.
    assert (quantize(got, "s2")[2:6, :, 1] == 1).all()
    assert got[:15, :, 0] == pytest.approx(pixels[1, :15] / 1e4, abs=1e-7)


@pytest.mark.parametrize("source", [{"nodata_in": "any"}, {"dn_offset": 1000}])
def test_0_in_one_band_is_no_data_if_the_item_says_so_or_a_measurement_cannot_be_0(
    tmp_path, source
):
    scene, _ = dark_water(tmp_path, **source)
    got = readers.read_bands(scene, ("B2", "B11"), grid(20, 20))
    assert np.isnan(got[2:6, :, 1]).all()
    assert np.isfinite(got[2:6, :, 0]).all()


def test_a_no_data_value_may_be_declared_to_count_in_all_bands_only(tmp_path):
    pixels = backscatter(20, 20)
    pixels[0, 3] = -25.5
    pixels[:, 7] = -25.5
    scene = s1_scene(tmp_path / "s1.tif", pixels)
    for nodata_in, in_row_3 in (("all", False), ("any", True), (None, True)):
        bands = {
            name: dataclasses.replace(one, nodata=-25.5, nodata_in=nodata_in)
            for name, one in scene.bands.items()
        }
        got = readers.read_bands(dataclasses.replace(scene, bands=bands), S1_BANDS, grid(20, 20))
        assert np.isnan(got[7]).all()
        assert np.isnan(got[3, :, 0]).all() == in_row_3
        assert np.isfinite(got[3, :, 1]).all()


def test_0_is_compared_between_bands_of_10_20_and_60_m(tmp_path):
    """Water is 0 in all of the coarse bands, and the swath ends in the middle of pixels."""
    sizes = {"B2": 10, "B3": 10, "B11": 20, "B12": 20, "B1": 60}
    scene = s2_scene(tmp_path / "base.tif", digital_numbers(12, 60, 60), dn_offset=0)
    sources = {}
    for number, (name, size) in enumerate(sizes.items()):
        plane = digital_numbers(1, 600 // size, 600 // size, seed=number)[0]
        if size > 10:
            plane[120 // size : 240 // size] = 0
        # The last rows of 10 m pixels in the swath are 44, of 20 m 21, of 60 m 7.
        plane[math.floor(450 / size) :] = 0
        path = write_geotiff(tmp_path / f"{name}.tif", plane[None], transform=north_up(size))
        sources[name] = BandSource(path=str(path))
    scene = dataclasses.replace(scene, bands=sources)
    got = readers.read_bands(scene, tuple(sizes), grid(60, 60))
    missing = np.isnan(got)
    assert not missing[:42].any()
    # Between the centres of the coarse pixels, interpolation meets only 0.
    assert got[16:20, :, 2:] == pytest.approx(np.full((4, 60, 3), 1e-4), abs=1e-6)
    assert missing[48:].all()
    assert np.array_equal(missing[:, 0, 0], np.arange(60) >= 45)
