"""Input files: which files of this machine an asset's href leads to.

Input: the path of a raster as a catalog writes it. Output: all files that its pixels
come from: the file, its side files, the records of an Earth Engine export, and what a
VRT names. They are hashed (`input_hashes.py`), so a build sees when one of them
changes. Nothing is read but VRTs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.sax.saxutils import unescape

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.rasters.opening import split_member

_FILE_SCHEME = "file://"
_SIDE_ENDINGS = (".msk", ".aux.xml")
"""Files of GDAL beside a raster: its mask, and its no-data, scale and place.

Source: GDAL manual, "PAM" and "GTiff -- Internal nodata masks".
"""
_SIDE_SUFFIXES: dict[str, tuple[str, ...]] = {
    ".shp": (".dbf", ".shx", ".prj", ".cpg"),
    **dict.fromkeys((".tif", ".tiff"), (".tfw", ".wld")),
    **dict.fromkeys((".jp2", ".png", ".jpg", ".jpeg"), (".wld", ".j2w", ".pgw", ".jgw")),
    **dict.fromkeys((".img", ".bin", ".dat", ".bsq"), (".hdr",)),
}
"""Suffix of a file -> suffixes that replace it in the names of its side files."""
_RECORD_ENDINGS = (".tfrecord.gz", ".tfrecord")
_VRT_SOURCE = re.compile(rb"<SourceFilename([^>]*)>([^<]*)</SourceFilename>")
_MAX_VRT_BYTES = 64 << 20
_MAX_VRT_DEPTH = 4
_VIRTUAL = re.compile(r"^(?:/vsi[a-z0-9_]+/)+|^(?:zip|tar|gzip)\+file:/*(?=/)")


def located(href: str, folder: Location) -> str | None:
    """Return the path or URI that an href means; None for a scheme that is not read.

    Relative hrefs begin at the folder of the catalog. `#<member>` is cut off.
    """
    if not href:
        return None
    if href.startswith(_FILE_SCHEME):
        path = href[len(_FILE_SCHEME) :].removeprefix("localhost")
        # Some catalogs encode the path and some do not.
        path = path if os.path.lexists(split_member(path)[0]) else unquote(path)
        return split_member(path)[0]
    if is_remote(href):
        return split_member(href)[0]
    if "://" in href:
        return None
    return split_member(str(folder / href))[0]


def files_of(path: str) -> list[str]:
    """Return the files behind a path of this machine; empty when there is none.

    A folder stands for all files below it. A name such as `netcdf:file.nc:VV` or
    `/vsizip/a.zip/b.tif` stands for the file in it.
    """
    return list(dict.fromkeys(_files_of(path, 0)))


def _files_of(path: str, depth: int) -> Iterator[str]:
    if os.path.isdir(path):
        for root, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(root, name) for name in sorted(names))
        return
    if not os.path.isfile(path):
        yield from _inside(path)
        return
    yield path
    yield from _side_files(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".json":
        yield from _records(path)
    elif suffix == ".vrt" and depth < _MAX_VRT_DEPTH:
        for source in _vrt_sources(path):
            yield from _files_of(source, depth + 1)


def _side_files(path: str) -> Iterator[str]:
    stem, suffix = os.path.splitext(path)
    names = [f"{path}{ending}" for ending in _SIDE_ENDINGS]
    names += [f"{stem}{ending}" for ending in _SIDE_SUFFIXES.get(suffix.lower(), ())]
    yield from filter(os.path.isfile, names)


def _records(mixer_path: str) -> Iterator[str]:
    """Yield the TFRecord files of an Earth Engine export; see `rasters.mixer`."""
    stem = mixer_path.removesuffix(".json")
    stems = {stem, stem.removesuffix("mixer"), stem.removesuffix("mixer").removesuffix("-")}
    for begin in sorted(stems):
        for ending in _RECORD_ENDINGS:
            if os.path.isfile(f"{begin}{ending}"):
                yield f"{begin}{ending}"
            # The names are tried one by one: the folder may hold a million others.
            for sign in ("", "-"):
                number = 0
                while os.path.isfile(found := f"{begin}{sign}{number:05d}{ending}"):
                    yield found
                    number += 1


def _vrt_sources(path: str) -> Iterator[str]:
    if os.path.getsize(path) > _MAX_VRT_BYTES:
        return
    for attributes, name in _VRT_SOURCE.findall(Path(path).read_bytes()):
        source = unescape(name.decode(errors="replace")).strip()
        is_relative = b'relativeToVRT="1"' in attributes
        yield os.path.join(os.path.dirname(path), source) if is_relative else source


def _inside(path: str) -> Iterator[str]:
    """Yield the files that a name of GDAL with more than a path in it holds."""
    parts = [part.strip('"') for part in path.split(":")] if ":" in path else []
    # `<folder of the catalog>/netcdf:file.nc:VV`: what is before the first colon is
    # joined to the folder.
    folder = os.path.dirname(parts[0]) if parts else ""
    found = [
        candidate
        for part in parts[1:]
        for candidate in (part, os.path.join(folder, part))
        if part and os.path.isfile(candidate)
    ]
    yield from found[:1]
    real = _VIRTUAL.sub("/", path)
    while not found and real != path and len(real) > 1:
        if os.path.isfile(real):
            yield real
            return
        real = os.path.dirname(real)
