"""Hrefs: the path or URI that an href of a STAC item stands for.

Input: an href, and the folder of its catalog. Output: a path or a URI that the readers
open. A catalog may come from anybody, so only plain paths, `file:` URLs and the schemes
below are taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import SCHEMES
from beam_jobs.errors import DataError
from beam_jobs.rasters import gdal_paths
from beam_jobs.rasters.gdal_paths import REMOTE_SCHEMES, WEB_SCHEMES
from beam_jobs.rasters.opening import split_member

_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*)|(?!//))(?P<path>/.*)", re.IGNORECASE | re.DOTALL)


def resolve(href: str, folder: Location, where: str) -> str:
    """Return the path or URI of an asset; relative paths start at the catalog's folder.

    Args:
        href: a plain path, `file:///...` with percent-encoding, `s3://...`, `gs://...`,
            or `http(s)://...`; `netcdf:<path>:<variable>` names one raster of a file.
        folder: folder of the catalog.
        where: catalog and item, for messages.

    Raises:
        DataError: reason forbidden_source; the href is anything else.
    """
    scheme, separator, _ = href.partition("://")
    scheme = scheme.lower()
    if separator and scheme in REMOTE_SCHEMES and href.isprintable():
        return f"{scheme}{href[len(scheme) :]}"
    parts = gdal_paths.split_subdataset(href)
    if parts is not None:
        kind, file, member = parts
        return f'{kind}:"{resolve(file, folder, where)}"{member}'
    path = href
    url = _FILE_URL.fullmatch(href)
    if url is not None:
        if url["host"] not in (None, "", "localhost"):
            _refuse(href, where)
        path = unquote(url["path"])
    elif separator or href.lower().startswith("file:"):
        _refuse(href, where)
    if gdal_paths.is_virtual(path) or not path.isprintable():
        _refuse(href, where)
    return path if url is not None else str(_plain(path, folder))


def is_local(href: str) -> bool:
    """Return whether an href names a file of this machine, as `resolve` reads it."""
    return not gdal_paths.is_remote(href.lower())


def on_web(path: str) -> bool:
    """Return whether a path that `resolve` gave is a URL of a web server."""
    return path.startswith(tuple(f"{scheme}://" for scheme in WEB_SCHEMES))


def check_web(paths: Iterable[str], where: str) -> None:
    """Check that no path is a URL of a web server.

    Raises:
        DataError: reason forbidden_source; one is.
    """
    for path in sorted(paths):
        if on_web(path):
            raise DataError(
                f"{where}: its asset lies on a web server, {path}; "
                "download it, or set allow_http to read from web servers",
                "forbidden_source",
            )


def _plain(href: str, folder: Location) -> Location:
    """Return the file of a plain path; percent signs are decoded if only that exists.

    STAC hrefs are references to URIs, so some catalogs encode a relative path too.
    """
    path = folder / href
    if "%" in href and isinstance(path, Path) and not _exists(path):
        decoded = folder / unquote(href)
        return decoded if _exists(decoded) else path
    return path


def _exists(path: Location) -> bool:
    return os.path.exists(split_member(str(path))[0])


def _refuse(href: str, where: str) -> None:
    raise DataError(
        f"{where}: assets must be local files or lie on {', '.join(SCHEMES)}, "
        f"got {' '.join(href.split())}",
        "forbidden_source",
    )
