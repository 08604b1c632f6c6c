"""Sources: which files GDAL may open, and that none of them leads elsewhere.

Input: a path or URI of a raster. Output: an open dataset, or a DataError. Catalogs and
rasters come from other people, and GDAL can be led to any server by a path
(`/vsicurl/...`), by the XML of a VRT or WMS file, by an overview that a tag names, or by
a file beside the raster. So the drivers are a closed list, VRT files are read here
first, and GDAL's network is shut for all but the file that was asked for.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning

from beam_jobs.contracts import object_store
from beam_jobs.errors import DataError

WEB_SCHEMES = ("http", "https")
"""Schemes that are read only if the config allows it (`allow_http`)."""
REMOTE_SCHEMES = (*object_store.SCHEMES, *WEB_SCHEMES)
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
    "Zarr",
)
"""GDAL's drivers that may open a file.

They read the file itself and files of the same name beside it. Left out are drivers
whose files name other files or servers (WMS, WCS, GTI, MRF, STACTA, ERS, DIMAP, ...).
VRT is opened after `_check_vrt` only.

Source: https://gdal.org/drivers/raster/.
"""
SUBDATASET_DRIVERS = {"netcdf": "netCDF", "hdf5": "HDF5Image", "zarr": "Zarr"}
"""Prefix of a path that names one raster of a file (`netcdf:<file>:VV`) -> driver."""

_SUBDATASET = re.compile(
    rf"(?P<kind>{'|'.join(SUBDATASET_DRIVERS)}):(?P<quote>\"?)(?P<file>.+?)(?P=quote)"
    r"(?P<member>:[^:\"]+)",
    re.IGNORECASE,
)
_GDAL_PATH = re.compile(r"/+vsi\w+[/?]", re.IGNORECASE)
_PREFIXED = re.compile(r"[A-Za-z][\w+.-]*:")
_IMAGE_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"EHFA_HEADER_TAG")
"""First bytes of TIFF, BigTIFF and HFA, the formats of overviews and mask files."""
_SIDE_FILES = (".ovr", ".OVR", ".msk", ".MSK", ".aux", ".AUX", ".rrd")
_HEAD_BYTES = 4096
_VRT_MARK = re.compile(rb"<VRTDataset", re.IGNORECASE)
MAX_VRT_BYTES = 64 << 20
"""Largest VRT that is parsed. A mosaic of 100,000 files takes about 50 MB."""
MAX_VRT_DEPTH = 8
"""Limit of VRT files in VRT files; mosaics of mosaics have two or three levels."""
_NO_FILE = "none"
"""Name that no file on a server has: GDAL may open no other."""

_VRT_SUBCLASSES = frozenset(
    ("vrtwarpeddataset", "vrtsourcedrasterband", "vrtwarpedrasterband", "vrtderivedrasterband")
)
_VRT_SOURCES = frozenset(("sourcefilename", "sourcedataset"))
_VRT_ELEMENTS = frozenset(
    # Dataset and bands.
    "vrtdataset srs geotransform metadata mdi gcplist gcp overviewlist blockxsize blockysize"
    " vrtrasterband nodatavalue nodata hidenodatavalue colorinterp colortable entry description"
    " unittype offset scale categorynames category histograms histitem histmin histmax"
    " bucketcount includeoutofrange approximate histcounts overview maskband"
    " gdalrasterattributetable fielddefn name type usage row f"
    # Sources of a band.
    " simplesource complexsource averagedsource nodatafrommasksource sourcefilename sourceband"
    " sourceproperties srcrect dstrect usemaskband scaleoffset scaleratio lut resampling"
    " exponent srcmin srcmax dstmin dstmax colortablecomponent maskvaluethreshold"
    # Built-in pixel functions of derived bands.
    " pixelfunctiontype pixelfunctionarguments sourcetransfertype skipnoncontributingsources"
    # Warped datasets, as `gdalwarp -of VRT` writes them.
    " gdalwarpoptions warpmemorylimit resamplealg workingdatatype option sourcedataset bandlist"
    " bandmapping srcnodatareal srcnodataimag dstnodatareal dstnodataimag transformer"
    " approxtransformer maxerror maxerrorforward maxerrorreverse basetransformer"
    " genimgprojtransformer srcgeotransform srcinvgeotransform dstgeotransform"
    " dstinvgeotransform reprojecttransformer reprojectiontransformer sourcesrs targetsrs"
    " cutline cutlineblenddist".split()
)
"""Elements of VRT files that are read; GDAL ignores the case of names.

Left out are those that run code or open files in other ways: PixelFunctionCode,
PixelFunctionLanguage, OpenOptions, raw bands, pansharpening, processed datasets, DEMs
and geolocation arrays.

Source: https://gdal.org/drivers/raster/vrt.html.
"""


def is_remote(path: str) -> bool:
    """Return whether `path` is a URI of an object store or of a web server."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in REMOTE_SCHEMES


def check_local(path: str) -> str:
    """Return `path` as an absolute path, if it is a plain path of a file or folder here.

    GDAL and OGR open an absolute path of an existing file as that file and nothing else.

    Raises:
        DataError: reason forbidden_source, the path is one of GDAL's own or a URI; or
            missing_file, there is no such file.
    """
    if _GDAL_PATH.match(path) or path.lstrip().startswith(("<", "{")) or "\0" in path:
        _refuse(path, "must be a plain path of a local file")
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        if "://" in path or _PREFIXED.match(path):
            _refuse(path, "must be a plain path of a local file")
        raise DataError(
            f"{path}: cannot read the raster: No such file or directory", "missing_file"
        )
    return absolute


def split_subdataset(path: str) -> tuple[str, str, str] | None:
    """Return (prefix, file, member with its colon) of `netcdf:<file>:VV`, else None."""
    match = _SUBDATASET.fullmatch(path)
    return (match["kind"].lower(), match["file"], match["member"]) if match else None


@contextmanager
def open_dataset(path: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster with GDAL; it reads this file, its sources and the files beside it.

    Args:
        path: a local path, a URI of `REMOTE_SCHEMES`, or `netcdf:<file>:<variable>`.

    Raises:
        DataError: reason forbidden_source, the path or the file leads elsewhere;
            missing_file, there is no such file.
    """
    if is_remote(path):
        # On a store, GDAL would list the whole folder to look for side files. The
        # folder may hold a million scenes.
        options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
        allowed, target, drivers = _vsi_path(path), path, list(DRIVERS)
    else:
        options, allowed = {}, _NO_FILE
        target, drivers = _checked_local(path, 0)
    with rasterio.Env(
        CPL_VSIL_CURL_ALLOWED_FILENAME=allowed, GDAL_VRT_ENABLE_PYTHON="NO", **options
    ):
        with _opened(target, drivers) as dataset:
            _check_overview_tag(dataset, path)
            yield dataset


def parse_crs(text: str) -> CRS:
    """Return the CRS of a text: authority and code, WKT, PROJ or PROJJSON.

    Raises:
        CRSError: the text is none of these. GDAL would take a path or URL for the name
            of a file with a CRS, and open it.
    """
    is_structured = re.match(r"\s*(\w+\s*[\[(]|\{)", text)
    is_name = re.match(r"https?://(www\.)?opengis\.net/def/crs/", text)
    if not is_structured and not is_name and ("/" in text or "\\" in text):
        raise CRSError(f"a CRS must be a code such as EPSG:32631, WKT or PROJ, got {text!r}")
    return CRS.from_string(text)


def _opened(target: str, drivers: list[str]) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without a place gets one, or is refused with its own reason.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(target, driver=drivers)


def _vsi_path(uri: str) -> str:
    """Return the name that GDAL gives to the file of a URI."""
    scheme, _, rest = uri.partition("://")
    return f"/vsicurl/{uri}" if scheme in WEB_SCHEMES else f"/vsi{scheme}/{rest}"


def _checked_local(path: str, depth: int) -> tuple[str, list[str]]:
    """Return the name of a local raster for GDAL, and the drivers that may open it.

    Raises:
        DataError: see `open_dataset`.
    """
    parts = None if os.path.exists(path) else split_subdataset(path)
    if parts is not None:
        kind, file, member = parts
        absolute = check_local(file)
        _check_beside(absolute)
        return f'{kind.upper()}:"{absolute}"{member}', [SUBDATASET_DRIVERS[kind]]
    absolute = check_local(path)
    if os.path.isfile(absolute):
        with open(absolute, "rb") as file:
            is_vrt = _VRT_MARK.search(file.read(_HEAD_BYTES)) is not None
        if is_vrt:
            _check_vrt(absolute, depth)
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
                    _refuse(side, "a file of overviews or masks must be TIFF or HFA")
            _check_beside(side)


def _check_overview_tag(dataset: rasterio.DatasetReader, path: str) -> None:
    """Check that no tag names a file of overviews.

    The tag may be in the raster or in its `.aux.xml`.
    """
    name = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if name is not None:
        _refuse(path, f"must not name another file by the tag OVERVIEW_FILE, got {name}")


def _check_vrt(path: str, depth: int) -> None:
    """Check that a VRT file has local rasters as sources, and runs no code.

    Raises:
        DataError: it has not, or holds an element that is not read.
    """
    if depth == MAX_VRT_DEPTH:
        _refuse(path, f"VRT files may hold each other {MAX_VRT_DEPTH} deep at most")
    _check_beside(path)
    if os.path.getsize(path) > MAX_VRT_BYTES:
        _refuse(path, f"a VRT may have {MAX_VRT_BYTES} bytes, got {os.path.getsize(path)}")
    # GDAL reads UTF-8 whatever the file declares, so decode it in the same way.
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise ValueError("it declares entities")
        root = ElementTree.fromstring(re.sub(r"\A\s*<\?xml.*?\?>", "", text, flags=re.DOTALL))
    except (ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not a VRT that can be read: {error}", "forbidden_source") from error
    sources = set()
    for element in root.iter():
        name = str(element.tag).lower()
        if name not in _VRT_ELEMENTS:
            _refuse(path, f"a VRT must not hold <{element.tag}>")
        attributes = {key.lower(): value for key, value in element.attrib.items()}
        subclass = attributes.get("subclass", "").lower()
        if subclass and subclass not in _VRT_SUBCLASSES:
            _refuse(path, f"a VRT must not hold {element.attrib}")
        # GDAL takes an attribute for an element of the same name.
        if _VRT_SOURCES & attributes.keys():
            _refuse(path, "a VRT must name its sources in elements, not in attributes")
        if attributes.get("key", "").upper() == "OVERVIEW_FILE":
            _refuse(path, "must not name another file by the tag OVERVIEW_FILE")
        if name in _VRT_SOURCES:
            is_relative = attributes.get("relativetovrt", "0").strip() not in ("", "0")
            sources.add(_source(path, element, is_relative))
    for source in sorted(sources):
        _checked_local(source, depth + 1)


def _source(path: str, element: ElementTree.Element, is_relative: bool) -> str:
    """Return the path of a source of a VRT; a subdataset keeps its prefix."""
    name = element.text or ""
    if len(element) or not name:
        _refuse(path, f"a source of a VRT must be a path, got {name!r}")
    parts = split_subdataset(name)
    file = parts[1] if parts else name
    if _GDAL_PATH.match(file) or "://" in file or _PREFIXED.match(file) or file[0] in "<{ \t\n":
        _refuse(path, f"a source of a VRT must be a plain path of a local file, got {name}")
    if is_relative:
        file = os.path.join(os.path.dirname(path), file)
    return f'{parts[0]}:"{file}"{parts[2]}' if parts else file


def _refuse(path: str, rule: str) -> NoReturn:
    raise DataError(
        f"{path}: {rule}; copy the raster to a local GeoTIFF and name that", "forbidden_source"
    )
