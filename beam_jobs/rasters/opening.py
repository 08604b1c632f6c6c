"""Opening: a path as a catalog writes it to an open Raster.

Every error while opening or reading becomes a DataError of one line that names the
file.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError
from beam_jobs.rasters import ee_tfrecord, open_files, placed, zarr_store
from beam_jobs.rasters.gdal import GdalRaster
from beam_jobs.rasters.mixer import MIXER_SUFFIX
from beam_jobs.rasters.raster import Raster

_MEMBER = "#"
_HOLDERS = (MIXER_SUFFIX, *ee_tfrecord.RECORD_SUFFIXES, *zarr_store.SUFFIXES)
"""Ends of the names of files that hold many rasters."""


def split_member(path: str) -> tuple[str, str]:
    """Return (file, member) of a path; the member names one raster of a file.

    `<file>#<member>` names one raster of a file that holds many; each format defines
    its members. `<file>#at=...` gives a place to a raster that has none (`placed.py`).
    In any other path, `#` is part of the file's name and the member is "".
    """
    file, sign, member = path.rpartition(_MEMBER)
    is_member = file.endswith(_HOLDERS) or member.startswith(placed.PREFIX)
    return (file, member) if sign and is_member else (path, "")


def with_place(path: str, member: str) -> str:
    """Return the path that opens a raster at the place of `placed.member_at`."""
    return f"{path}{_MEMBER}{member}"


@contextmanager
def open_raster(path: str) -> Iterator[Raster]:
    """Open a raster; every error inside the context becomes a DataError that names it.

    Args:
        path: of a GeoTIFF (or another format of GDAL), of an Earth Engine
            `...mixer.json` or TFRecord, or of a zarr store, zipped or in a tar; with
            `#<member>` where the file holds many rasters.

    Raises:
        DataError: the file is missing, cut short, or not of the format that its name
            says.
    """
    file, member = split_member(path)
    try:
        with _opened(path, file, member) as raster:
            yield raster
    except RasterioError as error:
        reason: Reason = "missing_file" if "No such file" in str(error) else "unreadable_raster"
        # GDAL's message is in the cause; rasterio's own message only says that reading
        # failed.
        detail = str(error.__cause__ or error).split("\n")[0]
        raise DataError(f"{path}: cannot read the raster: {detail}", reason) from error
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: cannot read the raster: no such file {error.filename}", "missing_file"
        ) from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        detail = (str(error) or type(error).__name__).split("\n")[0]
        raise DataError(f"{path}: cannot read the raster: {detail}", "unreadable_raster") from error


def _opened(path: str, file: str, member: str) -> AbstractContextManager[Raster]:
    if is_remote(file) and file.endswith(_HOLDERS):
        raise DataError(
            f"{path}: only rasters that GDAL reads can be opened in an object store: "
            "copy this file to a local folder",
            "unreadable_raster",
        )
    if file.endswith(MIXER_SUFFIX):
        return nullcontext(ee_tfrecord.open_export(path, file, member))
    if file.endswith(ee_tfrecord.RECORD_SUFFIXES):
        return nullcontext(ee_tfrecord.open_record(path, file, member))
    if file.endswith(zarr_store.SUFFIXES):
        return nullcontext(zarr_store.open_array(path, file, member))
    return _opened_by_gdal(path, file, member)


@contextmanager
def _opened_by_gdal(path: str, file: str, member: str) -> Iterator[Raster]:
    # On a store, GDAL would list the whole folder to look for side files. The folder
    # may hold a million scenes.
    options = (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR") if is_remote(file) else nullcontext()
    )
    with options, open_files.opened(file, _without_warning) as dataset:
        raster = GdalRaster(dataset)
        yield placed.PlacedRaster(raster, path, member) if member else raster


def _without_warning(file: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without a place gets one, or is refused with its own reason.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(file)
