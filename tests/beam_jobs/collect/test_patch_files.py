"""Answers of Earth Engine as files: masks, fractions, no data, reproducible bytes."""

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from beam_jobs.collect import patch_files
from beam_jobs.collect.config import CollectConfig
from beam_jobs.config import EarthEngineConfig
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.requests import PixelRequest
from beam_jobs.errors import DataError
from beam_jobs.scenes.grids import Grid

GRID = Grid(
    crs="EPSG:32633", transform=(10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), height=16, width=16
)
CONFIG = CollectConfig(
    size_px=16, s2_bands=("B2", "B8"), earth_engine=EarthEngineConfig(label="worldcover")
)


def geotiff(data: np.ndarray) -> bytes:
    with MemoryFile() as file:
        with file.open(
            driver="GTiff",
            count=len(data),
            height=16,
            width=16,
            dtype=data.dtype.name,
            crs=GRID.crs,
            transform=GRID.affine,
        ) as dataset:
            dataset.write(data)
        return file.read()


@pytest.fixture
def request_s2() -> PixelRequest:
    return PixelRequest(
        sensor="s2",
        image_id="x/y",
        bands=("B2", "B8"),
        crs=GRID.crs,
        transform=GRID.transform,
        height=16,
        width=16,
        cloud_score=True,
        label="worldcover",
    )


@pytest.fixture
def answer() -> np.ndarray:
    """Rows 0-3 without data, rows 4-7 cloud, row 8 unknown, the rest clear; B8 has one more 0."""
    data = np.full((4, 16, 16), 800, np.uint16)
    data[:2, :4] = 0
    data[1, 9, 0] = 0
    data[2] = 9000
    data[2, 4:8] = 5999
    data[2, 8] = 65535
    data[3] = np.arange(256).reshape(16, 16)
    return data


def test_score_becomes_a_mask_and_no_data_does_not_count(answer, request_s2):
    patch = patch_files.decode_s2(geotiff(answer), request_s2, CONFIG)
    np.testing.assert_array_equal(patch.data, answer[:2])
    assert patch.cloud[:, 0].tolist() == [0] * 4 + [1] * 4 + [255] + [0] * 7
    assert patch.label.dtype == np.uint8
    assert patch.label[15, 15] == 255
    # 4 cloudy rows and the unknown one, of 12 rows with data.
    assert patch.cloud_fraction == pytest.approx(5 / 12)


def test_patches_beyond_the_limits_are_refused(answer, request_s2):
    patch = patch_files.decode_s2(geotiff(answer), request_s2, CONFIG)
    patch_files.check_s2(patch, CollectConfig(max_cloud_fraction=0.42, min_valid_fraction=0.75))
    with pytest.raises(
        DataError, match=r"Sentinel-2 is 42 % cloud; max_cloud_fraction is 0\.41"
    ) as error:
        patch_files.check_s2(patch, CollectConfig(max_cloud_fraction=0.41))
    assert error.value.reason == "too_cloudy"
    with pytest.raises(
        DataError, match="Sentinel-2 has measurements in 75 % of the pixels"
    ) as error:
        patch_files.check_s2(patch, CollectConfig(min_valid_fraction=0.76))
    assert error.value.reason == "s2_invalid"


def test_files_come_back_as_they_were_and_their_fraction_with_them(answer, request_s2, tmp_path):
    patch = patch_files.decode_s2(geotiff(answer), request_s2, CONFIG)
    folder = tmp_path / "scenes" / "abc"
    stem = f"{folder}/p"
    patch_files.write_s2(stem, patch, GRID, CONFIG)
    assert sorted(path.name for path in folder.iterdir()) == [
        "p_cloud.tif",
        "p_label.tif",
        "p_s2.tif",
    ]
    with rasterio.open(patch_files.path_of(stem, "s2")) as dataset:
        np.testing.assert_array_equal(dataset.read(), answer[:2])
        assert (dataset.nodata, dataset.descriptions) == (0, ("B2", "B8"))
        assert (dataset.crs.to_string(), dataset.transform) == (GRID.crs, GRID.affine)
    assert patch_files.stored_cloud_fraction(stem) == patch.cloud_fraction
    before = (folder / "p_s2.tif").read_bytes()
    patch_files.write_s2(stem, patch, GRID, CONFIG)
    assert (folder / "p_s2.tif").read_bytes() == before


def test_radar_without_a_measurement_is_nan(tmp_path):
    data = np.full((2, 16, 16), -12.5, np.float32)
    data[0, :8], data[1, 0, 0] = -32768, -32768
    found = patch_files.decode_s1(geotiff(data))
    assert np.isnan(found[0, :8]).all()
    assert np.isnan(found[1]).sum() == 1
    assert (found[0, 8:] == -12.5).all()
    with pytest.raises(
        DataError,
        match=r"Sentinel-1 has measurements in 50 % of the pixels; min_valid_fraction is 0\.7",
    ):
        patch_files.check_s1(found, CollectConfig())
    patch_files.write_s1(f"{tmp_path}/p", found, GRID, CONFIG)
    with rasterio.open(tmp_path / "p_s1.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), found)
        assert np.isnan(dataset.nodata)


def test_answer_cut_short_is_asked_again():
    with pytest.raises(EarthEngineError) as error:
        patch_files.decode_s1(geotiff(np.ones((2, 16, 16), np.float32))[:40])
    assert error.value.retriable
