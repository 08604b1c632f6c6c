"""Files stay open inside a context, per thread and bounded, and never serve old pixels."""

import os
import threading

import numpy as np
import pytest
import rasterio

from beam_jobs.rasters import open_files
from beam_jobs.rasters.opening import open_raster
from tests.data.scenes.make_rasters import backscatter, write_geotiff


@pytest.fixture
def opener():
    """An opener that remembers what it opened."""

    def opened(file):
        opened.datasets.append(rasterio.open(file))
        return opened.datasets[-1]

    opened.datasets = []
    return opened


def take(file, opener):
    with open_files.opened(str(file), opener) as dataset:
        return dataset.read(1)


def test_a_file_is_opened_once_inside_and_closed_at_the_end(tmp_path, opener):
    file = write_geotiff(tmp_path / "a.tif", backscatter(8, 8))
    with open_files.keep_open():
        with open_files.keep_open():
            take(file, opener)
        assert np.array_equal(take(file, opener), backscatter(8, 8)[0])
        assert [dataset.closed for dataset in opener.datasets] == [False]
    assert [dataset.closed for dataset in opener.datasets] == [True]
    take(file, opener)
    assert [dataset.closed for dataset in opener.datasets] == [True, True]


def test_files_are_closed_after_an_error_too(tmp_path, opener):
    file = write_geotiff(tmp_path / "a.tif", backscatter(8, 8))

    def fail():
        with open_files.keep_open():
            take(file, opener)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert opener.datasets[0].closed


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    file = tmp_path / "a.tif"
    with open_files.keep_open():
        for seed in range(2):
            write_geotiff(tmp_path / "new.tif", backscatter(8, 8, seed))
            (tmp_path / "new.tif").replace(file)
            with open_raster(str(file)) as raster:
                assert np.array_equal(raster.read([1, 2]), backscatter(8, 8, seed))


def test_the_number_of_open_files_is_bounded(tmp_path, opener, monkeypatch):
    monkeypatch.setattr(open_files, "MAX_OPEN", 3)
    files = [write_geotiff(tmp_path / f"{i}.tif", backscatter(8, 8, i)) for i in range(5)]
    with open_files.keep_open():
        for number, file in enumerate(files):
            assert np.array_equal(take(file, opener), backscatter(8, 8, number)[0])
            # The first one stays in use, so it is not the one that is closed.
            take(files[0], opener)
        assert [dataset.closed for dataset in opener.datasets] == [False, True, True, False, False]
    assert all(dataset.closed for dataset in opener.datasets)


def test_another_thread_or_process_opens_its_own(tmp_path, opener, monkeypatch):
    file = write_geotiff(tmp_path / "a.tif", backscatter(8, 8))
    with open_files.keep_open():
        take(file, opener)
        thread = threading.Thread(target=take, args=(file, opener))
        thread.start()
        thread.join()
        assert len(opener.datasets) == 2
        # In a forked child the process id is another one.
        monkeypatch.setattr(os, "getpid", lambda: -1)
        take(file, opener)
        assert len(opener.datasets) == 3
        monkeypatch.undo()


def test_the_block_cache_holds_what_the_context_says(tmp_path, monkeypatch):
    """Blocks of 128 rows are decoded once for 16 strips of 8 rows."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 9999, (128, 128)).astype(np.uint16)
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    file = write_geotiff(tmp_path / "blocks.tif", pixels[None], **blocks)
    with open_files.keep_open():
        strips = []
        for row in range(0, 128, 8):
            with open_raster(str(file)) as raster:
                strips.append(raster.read([1], window=rasterio.windows.Window(0, row, 128, 8))[0])
            if row == 0:
                # The file is deleted. The other rows come from the decoded block.
                stat = file.stat()
                file.write_bytes(bytes(stat.st_size))
                os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert np.array_equal(np.concatenate(strips), pixels)
