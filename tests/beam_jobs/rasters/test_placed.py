"""Rasters that lost their place: read where their path puts them."""

import numpy as np
import pytest
from rasterio import Affine
from rasterio.windows import Window

from beam_jobs.errors import DataError
from beam_jobs.rasters import placed
from beam_jobs.rasters.opening import open_raster, split_member, with_place
from tests.data.scenes.make_rasters import north_up, write_geotiff

# The fixtures write rasters without a place on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def pixels():
    return np.arange(2 * 40 * 30, dtype=np.float32).reshape(2, 40, 30)


def test_pixels_are_the_files_own_at_the_place_of_the_path(tmp_path, pixels):
    path = tmp_path / "lost.tif"
    write_geotiff(
        path, pixels, transform=Affine.identity(), crs="EPSG:4326", descriptions=("VV", "VH")
    )
    placed_path = with_place(str(path), placed.member_at("EPSG:32631", 500_000.0, 12_000.0, 10.0))
    assert split_member(placed_path) == (str(path), "at=EPSG:32631,500000,12000,10")
    with open_raster(placed_path) as raster:
        assert (raster.name, raster.crs.to_string()) == (placed_path, "EPSG:32631")
        assert raster.bounds == (500_000.0, 11_600.0, 500_300.0, 12_000.0)
        assert (raster.height, raster.width, raster.descriptions) == (40, 30, ("VV", "VH"))
        window = Window(4, 7, 5, 3)
        assert np.array_equal(raster.read([2], window=window), pixels[1:, 7:10, 4:9])
        assert raster.window_transform(window) == Affine(10, 0, 500_040, 0, -10, 11_930)
        assert np.array_equal(raster.read([1, 2]), pixels)


def test_a_file_has_a_place_with_a_crs_and_a_transform_of_its_own(tmp_path, pixels, recwarn):
    cases = {
        "both": ({"crs": "EPSG:32631", "transform": north_up(10.0)}, True),
        "no_transform": ({"crs": "EPSG:4326", "transform": Affine.identity()}, False),
        "no_crs": ({"crs": None, "transform": north_up(10.0)}, False),
    }
    for name, (where, expected) in cases.items():
        write_geotiff(tmp_path / f"{name}.tif", pixels, **where)
        recwarn.clear()
        with open_raster(str(tmp_path / f"{name}.tif")) as raster:
            assert placed.has_place(raster) == expected, name
        assert not recwarn.list


@pytest.mark.parametrize("member", ["at=EPSG:32631,5,6", "at=EPSG:32631,x,6,10", "at=mars,5,6,10"])
def test_a_place_that_is_none_is_refused_with_the_path(tmp_path, pixels, member):
    write_geotiff(tmp_path / "lost.tif", pixels, transform=Affine.identity(), crs="EPSG:4326")
    path = with_place(str(tmp_path / "lost.tif"), member)
    with (
        pytest.raises(
            DataError, match=r"lost.tif#at=.*: a place must be at=crs,x,y,pixel, got 'at="
        ),
        open_raster(path),
    ):
        pass
