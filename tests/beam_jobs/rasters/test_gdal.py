"""Masks that travel with a file: inside it, beside it, as alpha band, per band."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from beam_jobs.rasters import placed
from beam_jobs.rasters.opening import open_raster, with_place
from tests.data.scenes.make_rasters import north_up, write_geotiff

WINDOW = Window(2, 1, 5, 4)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, 200, (2, 8, 9)).astype(np.uint8)


@pytest.fixture
def hidden():
    return np.random.default_rng(1).random((8, 9)) < 0.4


def masked(path, pixels, hidden, *, inside):
    write_geotiff(path, pixels)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(~hidden)
    return path


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_inside_or_beside_the_file_hides_pixels_of_all_bands(
    tmp_path, pixels, hidden, inside
):
    path = masked(tmp_path / "masked.tif", pixels, hidden, inside=inside)
    assert (tmp_path / "masked.tif.msk").exists() != inside
    with open_raster(str(path)) as raster:
        assert raster.nodata_values == (None, None)
        got = raster.read_valid([2, 1])
        part = raster.read_valid([1], window=WINDOW)
        thin = raster.read_valid([1, 2], out_shape=(2, 4, 3))
    assert got.dtype == np.bool_
    assert np.array_equal(got, np.stack([~hidden, ~hidden]))
    assert np.array_equal(part, ~hidden[None, 1:5, 2:7])
    assert thin.shape == (2, 4, 3)


def test_a_mask_beside_a_no_data_value_hides_pixels_too(tmp_path, pixels, hidden):
    path = masked(tmp_path / "both.tif", pixels, hidden, inside=True)
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = 7
    with open_raster(str(path)) as raster:
        assert raster.nodata_values == (7.0, 7.0)
        assert np.array_equal(raster.read_valid([1])[0], ~hidden)


def with_alpha(path, pixels, hidden, **writing):
    alpha = np.where(hidden, 0, 255).astype(pixels.dtype)[None]
    write_geotiff(path, np.concatenate([pixels, alpha]), **writing)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    return path


@pytest.mark.parametrize("nodata", [None, 7])
def test_an_alpha_band_hides_pixels_unless_it_is_listed_as_data(tmp_path, pixels, hidden, nodata):
    path = with_alpha(tmp_path / "alpha.tif", pixels, hidden, nodata=nodata)
    with open_raster(str(path)) as raster:
        assert raster.alpha_index == 3
        assert np.array_equal(raster.read_valid([1, 2]), np.stack([~hidden, ~hidden]))
        assert raster.read_valid([1, 3], alpha_is_data=True).all()
        assert np.array_equal(raster.read_valid([2], window=WINDOW)[0], ~hidden[1:5, 2:7])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_at_a_place_of_the_path_keeps_its_masks(tmp_path, pixels, hidden):
    path = tmp_path / "lost.png"
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    with rasterio.open(path, "w", driver="PNG", count=2, height=8, width=9, dtype="uint8") as file:
        file.write(np.stack([pixels[0], alpha]))
    place = with_place(str(path), placed.member_at("EPSG:32631", 500_000.0, 12_000.0, 10.0))
    with open_raster(place) as raster:
        assert raster.alpha_index == 2
        assert np.array_equal(raster.read_valid([1], window=WINDOW)[0], ~hidden[1:5, 2:7])


def vrt(path, files, nodata):
    """Write a VRT with one file per band, and a no-data value for each band."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}">'
        + ("" if value is None else f"<NoDataValue>{value}</NoDataValue>")
        + f"<SimpleSource><SourceFilename>{file}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for number, (file, value) in enumerate(zip(files, nodata, strict=True), start=1)
    )
    transform = north_up().to_gdal()
    path.write_text(
        f'<VRTDataset rasterXSize="9" rasterYSize="8"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{', '.join(map(str, transform))}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def test_no_data_values_may_differ_per_band(tmp_path, pixels):
    files = [write_geotiff(tmp_path / f"{i}.tif", pixels[i : i + 1]) for i in range(2)]
    with open_raster(str(vrt(tmp_path / "stack.vrt", files, (None, 9)))) as raster:
        assert raster.nodata_values == (None, 9.0)
        # A value is no mask: the reader knows whether it counts in one band or in all.
        assert raster.read_valid([1, 2]).all()
