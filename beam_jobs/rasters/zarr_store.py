"""Zarr stores as rasters: `.zarr.zip` files, or tar shards of such files.

The arrays are as xarray writes them. Members:

- `<file>.zarr.zip#<array>/<i>/<j>` is one raster of an array. It has an index for each
  dimension other than band, y and x, in the array's order.
- `<shard>.tar#<name>.zarr.zip/<array>/<i>` is the same in a shard.

Dimensions are known by the names that xarray writes (`_ARRAY_DIMENSIONS`). Coordinates
have the names of SSL4EO-S12 v1.1 and TerraMesh: `x_`, `y_` or `x`, `y` in metres of the
CRS, `crs` as EPSG code, `band` as names.

Source: https://github.com/DLR-MF-DAS/SSL4EO-S12-v1.1 (README, zarr_dataset.py,
ssl4eos12_dataset.py).
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from functools import lru_cache
from lzma import LZMAError
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from beam_jobs.errors import DataError
from beam_jobs.rasters import zarr_bounds
from beam_jobs.rasters.raster import GridRaster, Header, Pixels

STORE_SUFFIX, SHARD_SUFFIX = ".zarr.zip", ".tar"
SUFFIXES = (STORE_SUFFIX, SHARD_SUFFIX)
_PIXEL_DIMENSIONS = ("band", "y", "x")
_UNITS = {
    "days": "D",
    "hours": "h",
    "minutes": "m",
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
}


class ArrayRaster(GridRaster):
    """One band stack [band, y, x], or one plane [y, x], of a zarr array."""

    def __init__(self, name: str, group: zarr.Group, array: zarr.Array, at: dict[str, int]) -> None:
        self._array, self._at = array, at
        self._dimensions = dimensions(array, name)
        sizes = dict(zip(self._dimensions, array.shape, strict=True))
        chunks = dict(zip(self._dimensions, array.chunks, strict=True))
        fill = array.attrs.get("_FillValue")
        header = Header(
            crs=_crs(group, at, name),
            transform=_transform(group, at, name),
            height=sizes["y"],
            width=sizes["x"],
            descriptions=band_names(group, name) if "band" in sizes else (array.basename,),
            nodata=float(fill) if isinstance(fill, (int, float)) else None,
            block_shape=(chunks["y"], chunks["x"]),
        )
        super().__init__(name, header)

    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        wanted: dict[str, Any] = {
            **self._at,
            "band": [index - 1 for index in indexes],
            "y": slice(row, row + height),
            "x": slice(col, col + width),
        }
        try:
            pixels = self._array.get_orthogonal_selection(
                tuple(wanted[dimension] for dimension in self._dimensions)
            )
        except (ValueError, RuntimeError, LZMAError) as error:
            raise DataError(
                f"{self.name}: cannot read the raster: {_line(error)}", "unreadable_raster"
            ) from error
        left = [dimension for dimension in self._dimensions if dimension in _PIXEL_DIMENSIONS]
        pixels = pixels.transpose(
            [left.index(dimension) for dimension in _PIXEL_DIMENSIONS if dimension in left]
        )
        return pixels if "band" in left else pixels[None]


def open_array(name: str, file: str, member: str) -> ArrayRaster:
    """Return the raster of a member.

    Raises:
        DataError: the store lacks the array, an index is out of range, or coordinates
            are missing or not evenly spaced.
    """
    store, path = "", member
    if file.endswith(SHARD_SUFFIX):
        store, _, path = member.partition(f"{STORE_SUFFIX}/")
        store += STORE_SUFFIX
    array_name, *indexes = path.split("/")
    group = open_group(file, store)
    array = array_of(group, array_name, name)
    others = [
        (dim, size)
        for dim, size in zip(dimensions(array, name), array.shape, strict=True)
        if dim not in _PIXEL_DIMENSIONS
    ]
    valid = len(indexes) == len(others) and all(text.isdecimal() for text in indexes)
    if not valid or any(int(text) >= size for text, (_, size) in zip(indexes, others, strict=True)):
        expected = "/".join(f"<{dim} below {size}>" for dim, size in others)
        raise DataError(
            f"{name}: {array_name} needs the indexes {expected}, got {'/'.join(indexes)!r}",
            "missing_bands",
        )
    return ArrayRaster(
        name, group, array, {dim: int(text) for text, (dim, _) in zip(indexes, others, strict=True)}
    )


def open_group(file: str, store: str = "") -> zarr.Group:
    """Return the zarr group of a `.zarr.zip` file, or of a store in a tar shard.

    Raises:
        DataError: the shard has no such store, or the store is not a zarr group.
    """
    stat = os.stat(file)
    try:
        return _group(file, store, stat.st_size, stat.st_mtime_ns)
    except (
        zarr.errors.GroupNotFoundError,
        ValueError,
        KeyError,
        RecursionError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        where = f"{file}#{store}" if store else file
        raise DataError(
            f"{where}: not a readable zarr store: {_line(error)}", "unreadable_raster"
        ) from error


def store_names(file: str) -> list[str]:
    """Return the names of the stores in a tar shard, sorted."""
    stat = os.stat(file)
    try:
        return sorted(_shard_index(file, stat.st_size, stat.st_mtime_ns))
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: not a readable tar shard: {_line(error)}", "unreadable_raster"
        ) from error


def array_of(group: zarr.Group, array_name: str, where: str) -> zarr.Array:
    """Return an array of the group by name.

    Raises:
        DataError: the store has no array of that name.
    """
    try:
        array = zarr_bounds.open_array(group, array_name)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: not a readable zarr store: {_line(error)}", "unreadable_raster"
        ) from error
    if array is None:
        names = ", ".join(group.array_keys())
        raise DataError(f"{where}: has no array {array_name!r}; it has {names}", "missing_bands")
    return array


def dimensions(array: zarr.Array, where: str) -> tuple[str, ...]:
    """Return the names of an array's dimensions, as xarray writes them."""
    names = tuple(array.attrs.get("_ARRAY_DIMENSIONS", ()))
    if len(names) != array.ndim:
        raise DataError(
            f"{where}: array {array.basename!r} does not name its {array.ndim} dimensions",
            "bad_item",
        )
    return names


def band_names(group: zarr.Group, where: str) -> tuple[str, ...]:
    """Return the names of the bands, from the coordinate `band`."""
    return tuple(str(name) for name in array_of(group, "band", where)[...].tolist())


def times(group: zarr.Group, name: str, where: str) -> npt.NDArray[Any]:
    """Return array `name` as UTC times, datetime64[s] of the array's shape.

    xarray stores times as numbers with a unit.

    Raises:
        DataError: there is no such array, or its unit is not a unit of time.
    """
    array = array_of(group, name, where)
    values = array[...]
    if np.issubdtype(values.dtype, np.datetime64):
        return values.astype("datetime64[s]")
    # Numbers without a unit are nanoseconds since 1970, as in TerraMesh's own reader.
    units = str(array.attrs.get("units", "nanoseconds since 1970-01-01"))
    match = re.fullmatch(
        r"(\w+) since (\d{4}-\d{2}-\d{2})(?:[ T](\d{2}:\d{2}:\d{2})(?:\.\d+)?)?(?:Z|\+00:00)?",
        units,
    )
    unit = {**_UNITS, "nanoseconds": "ns"}.get(match[1]) if match else None
    if match is None or unit is None:
        raise DataError(f"{where}: {name} has the unit {units!r}, which is no time", "bad_item")
    start = np.datetime64(f"{match[2]}T{match[3] or '00:00:00'}", "s")
    return start + (values.astype(np.int64) * np.timedelta64(1, unit)).astype("timedelta64[s]")


@lru_cache(maxsize=16)
def _group(file: str, store: str, size: int, mtime_ns: int) -> zarr.Group:
    # A batch holds hundreds of scenes. Size and modification time are in the key, so a
    # file that was written again is opened again.
    if not store:
        with zipfile.ZipFile(file) as archive:
            zarr_bounds.check_store(archive)
        return zarr.open_group(zarr.ZipStore(file, mode="r"), mode="r")
    offset, length = _shard_index(file, size, mtime_ns)[store]
    with open(file, "rb") as shard:
        shard.seek(offset)
        content = shard.read(length)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        zarr_bounds.check_store(archive)
        return zarr.open_group({name: archive.read(name) for name in archive.namelist()}, mode="r")


@lru_cache(maxsize=16)
def _shard_index(file: str, _size: int, _mtime_ns: int) -> dict[str, tuple[int, int]]:
    with tarfile.open(file, "r:") as shard:
        return {
            member.name.removeprefix("./"): (member.offset_data, member.size)
            for member in zarr_bounds.members_of(shard)
            if member.isfile() and member.name.endswith(STORE_SUFFIX)
        }


def _crs(group: zarr.Group, at: dict[str, int], where: str) -> CRS:
    code = _coordinate(group, "crs", at, where)
    try:
        return CRS.from_epsg(int(code))
    except (CRSError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: crs must be an EPSG code, got {code!r}", "missing_crs"
        ) from error


def _transform(group: zarr.Group, at: dict[str, int], where: str) -> Affine:
    x, y = (_axis(group, name, at, where) for name in ("x", "y"))
    (dx, x0), (dy, y0) = x, y
    return Affine(dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2)


def _axis(group: zarr.Group, name: str, at: dict[str, int], where: str) -> tuple[float, float]:
    """Return (step, centre of the first pixel) of an axis.

    In batches metres are in `x_`, since `x` counts pixels there.
    """
    centres = np.asarray(
        _coordinate(group, f"{name}_" if f"{name}_" in group else name, at, where), np.float64
    )
    steps = np.diff(centres)
    if centres.size < 2 or not np.allclose(steps, steps[0], rtol=1e-3, atol=0.0) or steps[0] == 0:
        raise DataError(f"{where}: the coordinates {name} are not evenly spaced", "bad_item")
    return float(centres[-1] - centres[0]) / (centres.size - 1), float(centres[0])


def _coordinate(group: zarr.Group, name: str, at: dict[str, int], where: str) -> Any:
    """Return the part of a coordinate array that belongs to the raster at `at`."""
    array = array_of(group, name, where)
    values = array[tuple(at.get(dimension, slice(None)) for dimension in dimensions(array, where))]
    return values if np.ndim(values) else np.asarray(values).item()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
