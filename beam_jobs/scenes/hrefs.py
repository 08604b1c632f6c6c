"""Hrefs: the path or URI that an href of a STAC item stands for.

Input: an href, and the folder of its catalog. Output: a path or a URI that the readers
open. A catalog may come from anybody, so only plain paths, `file:` URLs and the schemes
below are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import SCHEMES
from beam_jobs.errors import DataError
from beam_jobs.rasters import gdal_paths
from beam_jobs.rasters.gdal_paths import REMOTE_SCHEMES, WEB_SCHEMES

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
    return path if url is not None else str(folder / path)


def check_web(paths: Iterable[str], where: str) -> None:
    """Check that no path is a URL of a web server.

    Raises:
        DataError: reason forbidden_source; one is.
    """
    for path in sorted(paths):
        if path.startswith(tuple(f"{scheme}://" for scheme in WEB_SCHEMES)):
            raise DataError(
                f"{where}: its asset lies on a web server, {path}; "
                "download it, or set allow_http to read from web servers",
                "forbidden_source",
            )


def _refuse(href: str, where: str) -> None:
    raise DataError(
        f"{where}: assets must be local files or lie on {', '.join(SCHEMES)}, "
        f"got {' '.join(href.split())}",
        "forbidden_source",
    )
