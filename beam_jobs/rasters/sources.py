"""Sources: which files GDAL may open, and that none of them leads elsewhere.

Input: a path or URI of a raster. Output: an open dataset, or a DataError. Catalogs and
rasters come from other people, and GDAL can be led to any server: by a path
(`/vsicurl/...`), by the XML of a VRT or WMS file, by an overview that a tag names, or
by a file beside the raster. So the drivers are a closed list, VRT files are read here
first, and GDAL's network is shut for all but the file that was asked for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import rasterio
from rasterio.crs import CRS
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import CRSError, NotGeoreferencedWarning

from beam_jobs.contracts import object_store
from beam_jobs.errors import DataError
from beam_jobs.rasters import gdal_paths, vrt
from beam_jobs.rasters.gdal_paths import SUBDATASET_DRIVERS, WEB_SCHEMES, refuse

DRIVERS = (
    "GTiff",
    "JP2OpenJPEG",
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "HFA",
    "ENVI",
    "EHdr",
    "AAIGrid",
    "GRIB",
    "netCDF",
    "HDF5",
    "HDF5Image",
)
"""GDAL's drivers that may open a file.

They read the file itself and files of the same name beside it. The list has no driver
whose files name other files or servers (WMS, WCS, GTI, MRF, STACTA, ERS, DIMAP, ...).
VRT is opened after `_check_vrt` only, and Zarr only for a folder.

Source: https://gdal.org/drivers/raster/.
"""
MAX_VRT_DEPTH = 8
"""Limit of VRT files in VRT files; mosaics of mosaics have two or three levels."""

_IMAGE_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"EHFA_HEADER_TAG")
"""First bytes of TIFF, BigTIFF and HFA, the formats of overviews and mask files."""
_SIDE_FILES = (".ovr", ".OVR", ".msk", ".MSK", ".aux", ".AUX", ".rrd", ".RRD")
_NO_FILE = "none"
"""Name that no file on a server has: GDAL may open no other."""


def check_local(path: str) -> str:
    """Return `path` as an absolute path, if it is a plain path of a local file.

    It may be a folder too. GDAL and OGR open an absolute path of an existing file as
    that file and nothing else.

    Raises:
        DataError: reason forbidden_source, the path is one of GDAL's own or a URI; or
            missing_file, there is no such file.
    """
    absolute = os.path.abspath(path) if not gdal_paths.is_virtual(path) else ""
    if not absolute or (not os.path.exists(absolute) and gdal_paths.is_prefixed(path)):
        refuse(path, "must be a plain path of a local file")
    if not os.path.exists(absolute):
        raise DataError(f"{path}: No such file or directory", "missing_file")
    return absolute


def open_checked(path: str) -> rasterio.DatasetReader:
    """Open a raster with GDAL, which then reads this file and those beside it.

    Call it, and read the dataset, within `shut(path)`.

    Args:
        path: a local path, a URI of an object store or web server, or
            `netcdf:<file>:<variable>`.

    Raises:
        DataError: reason forbidden_source, the path or the file leads elsewhere;
            missing_file, there is no such file.
        UnreachableStoreError: the object store does not answer.
    """
    if gdal_paths.is_remote(path):
        # GDAL waits for minutes for a store that does not answer.
        object_store.check_reachable(path)
        target, drivers = path, list(DRIVERS)
    else:
        target, drivers = _checked_local(path)
    dataset = _opened(target, drivers)
    try:
        _check_overview_tag(dataset, path)
    except DataError:
        dataset.close()
        raise
    return dataset


@contextmanager
def open_dataset(path: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster with GDAL for the length of the context; see `open_checked`."""
    with shut(path), open_checked(path) as dataset:
        yield dataset


def shut(path: str) -> rasterio.Env:
    """Return GDAL settings that allow no file on the network but `path`."""
    if gdal_paths.is_remote(path):
        # On a store, GDAL would list the whole folder to look for side files. The
        # folder may hold a million scenes.
        return _shut(_vsi_path(path), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    return _shut(_NO_FILE)


def parse_crs(text: str) -> CRS:
    """Return the CRS of a text: authority and code, WKT, PROJ or PROJJSON.

    Raises:
        CRSError: the text is none of these.
    """
    if not gdal_paths.is_crs(text):
        raise CRSError(f"a CRS must be a code such as EPSG:32631, WKT or PROJ, got {text!r}")
    return CRS.from_string(text)


def _shut(allowed: str, **options: str) -> rasterio.Env:
    """Return GDAL settings that allow one file on the network, and no code in files."""
    return rasterio.Env(
        CPL_VSIL_CURL_ALLOWED_FILENAME=allowed, GDAL_VRT_ENABLE_PYTHON="NO", **options
    )


# rasterio.open takes one driver only, so its class is used; like rasterio.open, the
# decorator looks up the keys of a store.
@ensure_env_with_credentials
def _opened(target: str, drivers: list[str]) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without a place gets one, or is refused with its own reason.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.DatasetReader(target, driver=drivers)


def _vsi_path(uri: str) -> str:
    """Return the name that GDAL gives to the file of a URI."""
    scheme, _, rest = uri.partition("://")
    return f"/vsicurl/{uri}" if scheme in WEB_SCHEMES else f"/vsi{scheme}/{rest}"


def _checked_local(path: str) -> tuple[str, list[str]]:
    """Return the name of a local raster for GDAL, and the drivers that may open it.

    Raises:
        DataError: see `open_checked`.
    """
    parts = None if os.path.exists(path) else gdal_paths.split_subdataset(path)
    if parts is not None:
        kind, file, member = parts
        absolute = check_local(file)
        _check_beside(absolute)
        return f'{kind.upper()}:"{absolute}"{member}', [SUBDATASET_DRIVERS[kind]]
    absolute = check_local(path)
    if os.path.isdir(absolute):
        return absolute, ["Zarr"]
    if vrt.is_vrt(absolute):
        stat = os.stat(absolute)
        _check_vrt_once(absolute, stat.st_size, stat.st_mtime_ns)
        return absolute, ["VRT"]
    _check_beside(absolute)
    return absolute, list(DRIVERS)


def _check_beside(path: str) -> None:
    """Check overviews and masks in files of their own: GDAL opens them by any driver.

    Raises:
        DataError: such a file is not an image.
    """
    for start in dict.fromkeys((path, os.path.splitext(path)[0])):
        for ending in _SIDE_FILES:
            side = start + ending
            if side == path or not os.path.isfile(side):
                continue
            with open(side, "rb") as file:
                if not file.read(16).startswith(_IMAGE_MAGIC):
                    refuse(side, "a file of overviews or masks must be TIFF or HFA")
            if len(side) > len(path):
                _check_beside(side)


def _check_overview_tag(dataset: rasterio.DatasetReader, path: str) -> None:
    """Check that no tag names a file of overviews.

    The tag may be in the raster or in its `.aux.xml`.
    """
    name = dataset.tags(ns="OVERVIEWS").get(gdal_paths.OVERVIEW_TAG)
    if name is not None:
        refuse(path, f"must not name a file by the tag {gdal_paths.OVERVIEW_TAG}, got {name}")


@lru_cache(maxsize=1024)
def _check_vrt_once(path: str, _size: int, _mtime_ns: int) -> None:
    # A build opens a mosaic once for each of its strips. A file that was written again
    # is checked again.
    _check_vrt(path, 0)


def _check_vrt(path: str, depth: int) -> None:
    """Check that a VRT file has local rasters as sources, and runs no code.

    Raises:
        DataError: a source is not a local raster, or the file may run code.
    """
    if depth == MAX_VRT_DEPTH:
        refuse(path, f"VRT files may hold each other {MAX_VRT_DEPTH} deep at most")
    _check_beside(path)
    for source in vrt.sources_of(path):
        _check_source(source, depth + 1)


def _check_source(source: str, depth: int) -> None:
    """Check that a driver of the list opens a source of a VRT, as GDAL will later.

    GDAL opens sources by any driver, such as WMS.

    Raises:
        DataError: see `open_checked`.
        RasterioIOError: no driver of the list opens it.
    """
    if os.path.isfile(source) and vrt.is_vrt(source):
        _check_vrt(os.path.abspath(source), depth)
        return
    target, drivers = _checked_local(source)
    with _shut(_NO_FILE), _opened(target, drivers) as dataset:
        _check_overview_tag(dataset, source)
