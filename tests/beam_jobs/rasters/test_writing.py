"""A file that GDAL writes on a full disk is refused, however late the disk gets full."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from beam_jobs.rasters import writing
from tests.data.faults.file_limit import file_limit

PIXELS = np.random.default_rng(0).integers(0, 250, (3, 256, 256), dtype=np.uint8)


def write_geotiff(path, source):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=3,
        height=256,
        width=256,
        dtype="uint8",
        compress="deflate",
        interleave="band",
        blockysize=16,
    ) as file:
        file.write(PIXELS)


def write_cog(path, source):
    rasterio.shutil.copy(source, path, driver="COG", BLOCKSIZE=128, COMPRESS="DEFLATE")


def pixels_of(path):
    """The pixels and all overviews, which fails on a file that lacks a block."""
    with rasterio.open(path) as file:
        pixels, num_levels = file.read(), len(file.overviews(1))
    for level in range(num_levels):
        with rasterio.open(path, overview_level=level) as file:
            file.read()
    return pixels


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("write", [write_geotiff, write_cog])
def test_a_file_is_whole_or_refused_at_any_size_of_the_disk(write, tmp_path):
    source, path = str(tmp_path / "source.tif"), str(tmp_path / "out.tif")
    write_geotiff(source, None)
    write(path, source)
    whole = os.path.getsize(path)
    outcomes = set()
    # The last 64 kB are the ones whose loss GDAL does not tell.
    for missing in range(-2000, 70_000, 3000):
        told = attempt(write, source, path, whole - missing)
        if told is None:
            np.testing.assert_array_equal(pixels_of(path), PIXELS)
            os.unlink(path)
        else:
            assert told in (errno.ENOSPC, errno.EFBIG), missing
        assert os.listdir(tmp_path) == ["source.tif"]
        outcomes.add(told is None)
    assert outcomes == {True, False}


def attempt(write, source, path, num_bytes):
    """Write a file on a small disk; return the number of the error, which names it."""
    try:
        with file_limit(num_bytes), writing.whole(path):
            write(path, source)
    except OSError as error:
        return error.errno if error.filename == path else error
    return None


def fail(path, error):
    """Write half a file, and fail."""
    with writing.whole(path, is_tiff=False):
        Path(path).write_bytes(b"half")
        raise error


def test_other_errors_stay_and_leave_no_file(tmp_path):
    path = tmp_path / "out.gpkg"
    with pytest.raises(RuntimeError, match="polygons cross"):
        fail(path, RuntimeError("polygons cross"))
    assert not path.exists()
    with pytest.raises(FileNotFoundError) as caught:
        fail(path, FileNotFoundError(errno.ENOENT, "no such file", "elsewhere"))
    assert caught.value.filename == "elsewhere"


def test_an_error_of_a_library_on_a_full_disk_becomes_that_of_the_disk(tmp_path):
    error = RuntimeError("Failed to commit transaction")
    with (
        pytest.raises(OSError, match=r"File too large: .*out\.gpkg") as caught,
        file_limit(500_000),
    ):
        fail(tmp_path / "out.gpkg", error)
    assert caught.value.__cause__ is error
