"""Names of simulated scenes as Earth Engine assets, and pixels of files on a grid."""

import re

import numpy as np
import pytest
import rasterio

from beam_jobs.emulator.archive import mgrs_tile, open_archive
from beam_jobs.emulator.rasters import sample
from beam_jobs.errors import DataError
from beam_jobs.scenes.grids import Grid


@pytest.mark.parametrize(
    ("crs", "x", "y", "tile"),
    [
        ("EPSG:32631", 448_251, 5_411_932, "31UDQ"),  # Paris
        ("EPSG:32756", 334_000, 6_252_000, "56HLH"),  # Sydney
        ("EPSG:32633", 601_000, 5_340_000, "33UXP"),  # Vienna
        ("EPSG:32618", 583_960, 4_507_523, "18TWL"),  # New York
    ],
)
def test_tiles_are_those_of_the_military_grid(crs, x, y, tile):
    assert mgrs_tile(crs, x, y) == tile


def test_ids_look_as_in_earth_engine(simulated):
    archive = open_archive(simulated.parent)
    s1 = [image.properties for image in archive.collection("COPERNICUS/S1_GRD")]
    s2 = [image.properties for image in archive.collection("COPERNICUS/S2_SR_HARMONIZED")]
    assert (len(s1), len(s2), len(archive.collection("COPERNICUS/S2_HARMONIZED"))) == (6, 6, 0)
    for properties in s1:
        index = properties["system:index"]
        match = re.fullmatch(
            r"S1A_IW_GRDH_1SDV_(\d{8}T\d{6})_\d{8}T\d{6}_(\d{6})_[0-9A-F]{6}_[0-9A-F]{4}", index
        )
        # Track = (orbit - 73) mod 175 + 1, as for every real Sentinel-1A product.
        assert (int(match[2]) - 73) % 175 + 1 == properties["relativeOrbitNumber_start"]
        assert (
            np.datetime64(properties["system:time_start"], "ms").item().strftime("%Y%m%dT%H%M%S")
            == match[1]
        )
    for properties in s2:
        match = re.fullmatch(
            r"(\d{8}T\d{6})_\d{8}T\d{6}_T(\d\d[C-X][A-Z]{2})", properties["system:index"]
        )
        assert match[2] == properties["MGRS_TILE"]
        assert (
            np.datetime64(properties["system:time_start"], "ms").item().strftime("%Y%m%dT%H%M%S")
            == match[1]
        )


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"items\.ndjson: no such file; `terrapair simulate` writes it"
    ):
        open_archive(tmp_path)


def test_a_grid_between_pixels_gets_the_pixel_under_each_centre(tmp_path):
    path = tmp_path / "scene.tif"
    pixels = np.arange(1, 13, dtype=np.uint16).reshape(3, 4)
    pixels[1, 2] = 0
    transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_000_000)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=3,
        width=4,
        dtype="uint16",
        crs="EPSG:32631",
        transform=transform,
        nodata=0,
    ) as dataset:
        dataset.write(pixels[None])
    # 7 m pixels from 4 m west and 6 m north: centres at x = -0.5, 6.5, 13.5, 20.5 and y
    # = -2.5 (outside), 4.5, 11.5.
    grid = Grid(
        crs="EPSG:32631", transform=(7.0, 0.0, 599_996.0, 0.0, -7.0, 5_000_006.0), height=3, width=4
    )
    got = sample(str(path), grid)[0].filled(999)
    expected = [[999, 999, 999, 999], [999, 1, 2, 3], [999, 5, 6, 999]]
    np.testing.assert_array_equal(got, expected)
