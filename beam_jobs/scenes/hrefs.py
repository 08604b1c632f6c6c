"""Hrefs: where the files of an item lie.

Input: the href of an asset and the folder of its catalog. Output: a path or URI that
`rasters/opening.py` opens.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import SCHEMES, is_remote
from beam_jobs.errors import DataError
from beam_jobs.rasters import subdatasets
from beam_jobs.rasters.opening import split_member

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def resolve(href: str, folder: Location, where: str) -> str:
    """Return the path or URI of an asset; relative hrefs start at the catalog folder.

    `file:` URIs are percent-decoded. A plain path is taken as it is; if no such file
    exists and the decoded one does, it is percent-decoded too, since STAC hrefs are URI
    references. The name of a subdataset (`NETCDF:"a.nc":VV`) keeps its form.

    Args:
        href: of the asset.
        folder: of the catalog.
        where: catalog and item, for messages.

    Raises:
        DataError: the scheme or the host is none that is read.

    Source: RFC 8089 (file URIs); STAC best practices, use of relative hrefs.
    """
    part = subdatasets.parse(href)
    if part is not None:
        file = resolve(part.file, folder, where)
        if is_remote(file):
            raise DataError(
                f"{where}: {part.prefix} opens local files only, got {href}", "bad_item"
            )
        return str(part.with_file(file))
    if href.lower().startswith("file:"):
        return _checked(_of_file_uri(href, folder, where), where)
    if _SCHEME.match(href):
        if href.partition("://")[0] in SCHEMES:
            return href
        raise DataError(
            f"{where}: assets must be local files or lie on {', '.join(SCHEMES)}, got {href}: "
            "download the file and write its path as href",
            "bad_item",
        )
    return _checked(str(_plain(href, folder)), where)


def is_local(href: str) -> bool:
    """Return whether an href names a file of this machine."""
    return _SCHEME.match(href) is None or href.lower().startswith("file:")


def file_of(path: str) -> str:
    """Return the file of a path that `resolve` gave, without member or subdataset."""
    part = subdatasets.parse(path)
    return split_member(path)[0] if part is None else part.file


def _checked(path: str, where: str) -> str:
    """Return `path` unless GDAL would take it for something else than a file.

    Source: https://gdal.org/en/stable/user/virtual_file_systems.html
    """
    if path.startswith("/vsi"):
        raise DataError(
            f"{where}: virtual file systems of GDAL are not read, got {path}", "bad_item"
        )
    return path


def _of_file_uri(href: str, folder: Location, where: str) -> str:
    # Whatever follows # names a member of the file, as in a plain path.
    uri, sign, member = href.partition("#")
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise DataError(
            f"{where}: a file URI must name a file of this machine (file:///...), got {href}",
            "bad_item",
        )
    return str(folder / f"{unquote(parts.path)}{sign}{unquote(member)}")


def _plain(href: str, folder: Location) -> Location:
    path = folder / href
    if "%" in href and isinstance(path, Path) and not Path(file_of(str(path))).exists():
        decoded = folder / unquote(href)
        return decoded if Path(file_of(str(decoded))).exists() else path
    return path
