"""Open files: datasets of GDAL that stay open while many windows are read.

A file that is opened again for each strip decodes its blocks again for each strip. A
block of JPEG 2000 has 1024 rows, a strip may have 64. Within `keep_open`, files stay
open, and GDAL's block cache holds a row of blocks until all its strips are read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rasterio

from beam_jobs.contracts.object_store import is_remote

MAX_OPEN = 64
"""Most files that one thread keeps open.

A pair has one file per band at most (17), a label and a cloud mask.
"""
CACHE_BYTES = 512 << 20
"""Bound of GDAL's block cache, per process.

It must hold one row of blocks of all bands of a pair. For a Sentinel-2 product (four
bands of 10,980 columns, blocks of 1024 rows, two bytes, and the coarser ones) and two
float bands of Sentinel-1 it is about 220 MiB. `GDAL_CACHEMAX` in the environment takes
precedence.
"""

_Opener = Callable[[str], rasterio.DatasetReader]
_Key = tuple[str, int, int, int]


class _OpenFiles:
    """Datasets by file, the least recently used first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._datasets: OrderedDict[_Key, rasterio.DatasetReader] = OrderedDict()

    def get(self, file: str, opener: _Opener) -> rasterio.DatasetReader:
        """Return the dataset of `file`; open it if it is not open or has changed."""
        key = _key(file)
        if key not in self._datasets:
            if len(self._datasets) >= MAX_OPEN:
                _, oldest = self._datasets.popitem(last=False)
                oldest.close()
            self._datasets[key] = opener(file)
        self._datasets.move_to_end(key)
        return self._datasets[key]

    def close(self) -> None:
        """Close all datasets."""
        while self._datasets:
            self._datasets.popitem()[1].close()


class _Kept(threading.local):
    """The open files of a thread: a dataset of GDAL must not be used by two at once."""

    files: _OpenFiles | None = None


_KEPT = _Kept()


def cache_bound(num_bytes: int) -> dict[str, int]:
    """Return the option of GDAL that bounds its block cache.

    It is empty if the environment has that option.
    """
    # rasterio takes bytes here, unlike GDAL, whose variable counts in megabytes.
    return {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": num_bytes}


@contextmanager
def keep_open(cache_bytes: int = CACHE_BYTES) -> Iterator[None]:
    """Keep files open that this thread opens inside the context; close them at its end.

    A file that is written anew inside the context is opened anew.

    Args:
        cache_bytes: bound of GDAL's block cache, which all threads share.
    """
    if _current() is not None:
        yield
        return
    files = _KEPT.files = _OpenFiles()
    try:
        with rasterio.Env(**cache_bound(cache_bytes)):
            yield
    finally:
        _KEPT.files = None
        files.close()


@contextmanager
def opened(file: str, opener: _Opener) -> Iterator[rasterio.DatasetReader]:
    """Open a file; close it at the end, unless `keep_open` keeps it."""
    files = _current()
    if files is not None:
        yield files.get(file, opener)
        return
    with opener(file) as dataset:
        yield dataset


def _current() -> _OpenFiles | None:
    """Return the open files of this thread, if it keeps any.

    A forked process must not use those of its parent, whose file positions it shares.
    """
    files = _KEPT.files
    return files if files is not None and files.pid == os.getpid() else None


def _key(file: str) -> _Key:
    """Return what changes when the file does; on a store, only its name is known."""
    if is_remote(file) or not os.path.exists(file):
        return file, 0, 0, 0
    stat = os.stat(file)
    return file, stat.st_size, stat.st_mtime_ns, stat.st_ino
