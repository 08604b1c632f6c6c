"""Input files: which files of this machine an asset's href leads to.

Input: the path of a raster as a catalog writes it. Output: all files that its pixels
come from: the file, its side files, the records of an Earth Engine export, and what a
VRT names. They are hashed (`input_hashes.py`), so a build sees when one of them
changes. Nothing is read but VRTs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contracts.locations import Location
from beam_jobs.errors import DataError
from beam_jobs.rasters import ee_tfrecord, gdal_paths, mixer, vrt
from beam_jobs.rasters.opening import split_member
from beam_jobs.rasters.sources import MAX_VRT_DEPTH
from beam_jobs.scenes import hrefs, label_vectors

_SIDE_ENDINGS = (".msk", ".aux.xml")
"""Files of GDAL beside a raster: its mask, and its no-data, scale and place.

Source: GDAL manual, "PAM" and "GTiff -- Internal nodata masks".
"""
_SIDE_SUFFIXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".tif", ".tiff"), (".tfw", ".wld")),
    **dict.fromkeys((".jp2", ".png", ".jpg", ".jpeg"), (".wld", ".j2w", ".pgw", ".jgw")),
    **dict.fromkeys((".img", ".bin", ".dat", ".bsq"), (".hdr",)),
}
"""Suffix of a raster -> suffixes that replace it in the names of its side files.

GDAL finds them in capital letters too.
"""


def located(href: str, folder: Location) -> str | None:
    """Return the path or URI that an href means; None for one that no build opens.

    Relative hrefs begin at the folder of the catalog. `#<member>` is cut off.
    """
    if not href:
        return None
    try:
        return split_member(hrefs.resolve(href, folder, ""))[0]
    except DataError:
        # The build rejects that scene with this error.
        return None


def files_of(path: str) -> list[str]:
    """Return the files behind a path of this machine; empty when there is none.

    A folder stands for all files below it. A name such as `netcdf:file.nc:VV` stands
    for the file in it.
    """
    return list(dict.fromkeys(_files_of(path, 0)))


def _files_of(path: str, depth: int) -> Iterator[str]:
    parts = None if os.path.exists(path) else gdal_paths.split_subdataset(path)
    path = parts[1] if parts else path
    if os.path.isdir(path):
        for root, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(root, name) for name in sorted(names))
        return
    if not os.path.isfile(path):
        return
    yield path
    yield from _side_files(path)
    if path.lower().endswith(mixer.MIXER_SUFFIX):
        yield from _records(Path(path))
    elif depth < MAX_VRT_DEPTH and vrt.is_vrt(path):
        try:
            found = vrt.sources_of(path)
        except DataError:
            # The build rejects that scene with this error.
            return
        for source in found:
            yield from _files_of(source, depth + 1)


def _side_files(path: str) -> Iterator[str]:
    stem, suffix = os.path.splitext(path)
    names = [f"{path}{ending}" for ending in _SIDE_ENDINGS]
    for ending in _SIDE_SUFFIXES.get(suffix.lower(), ()):
        names += [f"{stem}{ending}", f"{stem}{ending.upper()}"]
    yield from filter(os.path.isfile, names)
    yield from label_vectors.files_of(path)[1:]


def _records(mixer_path: Path) -> Iterator[str]:
    """Yield the TFRecord files of an Earth Engine export; see `rasters.mixer`."""
    begin = str(mixer_path.parent / mixer.stem(mixer_path))
    for ending in ee_tfrecord.RECORD_SUFFIXES:
        if os.path.isfile(f"{begin}{ending}"):
            yield f"{begin}{ending}"
        # The names are tried one by one: the folder may hold a million others.
        for sign in ("", "-"):
            number = 0
            while os.path.isfile(found := f"{begin}{sign}{number:05d}{ending}"):
                yield found
                number += 1
