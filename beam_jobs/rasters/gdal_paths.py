"""GDAL's paths: which texts GDAL takes for a path of a local file.

Input: a path, as a catalog or a VRT names it. Output: its parts, or a DataError. GDAL
takes many texts for more than a path: `/vsicurl/...` reads a web server, `WMS:...` and
XML describe one, and `zip+...` opens an archive.
"""

from __future__ import annotations

import re
from typing import NoReturn

from beam_jobs.contracts import object_store
from beam_jobs.errors import DataError

WEB_SCHEMES = ("http", "https")
"""Schemes that are read only if the config allows it (`allow_http`)."""
REMOTE_SCHEMES = (*object_store.SCHEMES, *WEB_SCHEMES)
SUBDATASET_DRIVERS = {"netcdf": "netCDF", "hdf5": "HDF5Image", "zarr": "Zarr"}
"""Prefix of a path that names one raster of a file (`netcdf:<file>:VV`) -> driver."""
OVERVIEW_TAG = "OVERVIEW_FILE"
"""Tag by which a raster may name any other file as its overviews."""

_SUBDATASET = re.compile(
    rf"(?P<kind>{'|'.join(SUBDATASET_DRIVERS)}):(?P<quote>\"?)(?P<file>.+?)(?P=quote)"
    r"(?P<member>:[^:\"]+)",
    re.IGNORECASE,
)
_VIRTUAL = re.compile(r"/+vsi\w+[/?]", re.IGNORECASE)
_PREFIXED = re.compile(r"[A-Za-z][\w+.-]*:")
_MAX_QUOTED = 400


def is_remote(path: str) -> bool:
    """Return whether `path` is a URI of an object store or of a web server."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in REMOTE_SCHEMES


def is_virtual(path: str) -> bool:
    """Return whether GDAL takes `path` for its own file systems, or for XML or JSON."""
    is_text = path.lstrip().startswith(("<", "{"))
    return is_text or "\0" in path or _VIRTUAL.match(path) is not None


def is_prefixed(path: str) -> bool:
    """Return whether `path` begins like a URI, or like a driver's own names."""
    return "://" in path or _PREFIXED.match(path) is not None


def split_subdataset(path: str) -> tuple[str, str, str] | None:
    """Return (prefix, file, member with its colon) of `netcdf:<file>:VV`, else None."""
    match = _SUBDATASET.fullmatch(path)
    return (match["kind"].lower(), match["file"], match["member"]) if match else None


def is_crs(text: str) -> bool:
    """Return whether GDAL takes `text` for a code, WKT, PROJ or PROJJSON.

    It would take another text with a slash for the name of a file with a CRS, or for
    its URL, and open it.
    """
    is_structured = re.match(r"\s*(\w+\s*[\[(]|\{)", text)
    is_name = re.match(r"https?://(www\.)?opengis\.net/def/crs/", text)
    return bool(is_structured or is_name) or not set(text) & {"/", "\\"}


def refuse(path: str, rule: str) -> NoReturn:
    """Raise the DataError of a path or file that leads elsewhere, in one line."""
    # A path may be XML of many lines.
    path, rule = (" ".join(text.split())[:_MAX_QUOTED] for text in (path, rule))
    raise DataError(
        f"{path}: {rule}; copy the raster to a local GeoTIFF and name that", "forbidden_source"
    )
