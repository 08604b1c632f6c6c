"""Writing: a file that GDAL writes is whole, or an error says why it is not.

When a disk is full, GDAL tells it in many ways, and what it holds back until a file is
closed it loses without an error (seen with GDAL 3.9: up to the last 64 kB).
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

_LEAST_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(
    path: str | os.PathLike[str], *, is_tiff: bool = True, num_bytes: int = _LEAST_BYTES
) -> Iterator[None]:
    """Check the file that the body writes and closes; remove it after an error.

    Args:
        path: of the file.
        is_tiff: whether it is a TIFF, of which all blocks must be there.
        num_bytes: about how much the body may write. If there is less room after an
            error of a library, the disk is said to be full.

    Raises:
        OSError: the disk is full, or refuses files of this size. It names `path`.
    """
    try:
        yield
        if is_tiff:
            _check_blocks(os.fspath(path))
    except Exception as error:
        # GDAL's errors have an `errno` with numbers of their own.
        number = error.errno if isinstance(error, OSError) else None
        if number is None:
            number = _why_no_room(os.path.dirname(path) or ".", max(num_bytes, _LEAST_BYTES))
        Path(path).unlink(missing_ok=True)
        if number not in _NO_ROOM or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def _check_blocks(path: str) -> None:
    """Refuse a TIFF that ends before its last block.

    Raises:
        OSError: it is cut short.
    """
    try:
        num_bytes = os.path.getsize(path)
        with rasterio.open(path) as dataset:
            num_levels = len(dataset.overviews(1))
            end = max(_end_of_blocks(dataset, level) for level in range(-1, num_levels))
    except RasterioError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
    if end > num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _end_of_blocks(dataset: rasterio.DatasetReader, level: int) -> int:
    """Return where the last block of the pixels, or of an overview, ends in the file.

    Args:
        dataset: a TIFF.
        level: number of the overview; -1 = the pixels.

    Source: GDAL manual, "GTiff -- Metadata": the domain TIFF.
    """
    overview = {} if level < 0 else {"ovr": level}
    factor = 1 if level < 0 else dataset.overviews(1)[level]
    height, width = dataset.block_shapes[0]
    end = 0
    for band in dataset.indexes:
        for row in range(math.ceil(dataset.height / factor / height)):
            for col in range(math.ceil(dataset.width / factor / width)):
                offset, size = (
                    dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", band, **overview)
                    for what in ("OFFSET", "SIZE")
                )
                if offset and size:
                    end = max(end, int(offset) + int(size))
    return end


def _why_no_room(folder: str, num_bytes: int) -> int | None:
    """Return the error number if the disk has no room for a file; None = it has."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            return error.errno
    return None
