"""VRT files: their sources, read before GDAL reads them.

Input: the path of a VRT file. Output: the paths of its sources, or a DataError. A VRT
can name any file or server as a source, and can run Python code. GDAL's parser is more
lenient than others, so only what both can read alike is taken.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from beam_jobs.errors import DataError
from beam_jobs.rasters import gdal_paths

MAX_BYTES = 64 << 20
"""Largest VRT that is parsed. A mosaic of 100,000 files takes about 50 MB."""

_HEAD_BYTES = 4096
_MARK = re.compile(rb"<VRTDataset", re.IGNORECASE)
_SUBCLASSES = frozenset(
    ("vrtwarpeddataset", "vrtsourcedrasterband", "vrtwarpedrasterband", "vrtderivedrasterband")
)
_SOURCES = frozenset(("sourcefilename", "sourcedataset"))
_ELEMENTS = frozenset(
    f"""
    vrtdataset srs geotransform metadata mdi gcplist gcp overviewlist blockxsize blockysize
    vrtrasterband nodatavalue nodata hidenodatavalue colorinterp colortable entry
    description unittype offset scale categorynames category histograms histitem histmin
    histmax bucketcount includeoutofrange approximate histcounts overview maskband
    gdalrasterattributetable fielddefn name type usage row f

    simplesource complexsource averagedsource nodatafrommasksource kernelfilteredsource
    {" ".join(_SOURCES)} sourceband sourceproperties srcrect dstrect usemaskband
    kernel size coefs scaleoffset scaleratio lut resampling exponent srcmin srcmax dstmin
    dstmax colortablecomponent maskvaluethreshold

    pixelfunctiontype pixelfunctionarguments sourcetransfertype skipnoncontributingsources

    gdalwarpoptions warpmemorylimit resamplealg workingdatatype option bandlist bandmapping
    srcnodatareal srcnodataimag dstnodatareal dstnodataimag transformer approxtransformer
    maxerror maxerrorforward maxerrorreverse basetransformer genimgprojtransformer
    srcgeotransform srcinvgeotransform dstgeotransform dstinvgeotransform
    reprojecttransformer reprojectiontransformer sourcesrs targetsrs options cutline
    cutlineblenddist
    """.split()
)
"""Elements that are read; GDAL ignores the case of names.

These are the elements of datasets and bands, of sources, of built-in pixel functions,
and of warped datasets. The list has none that run code or open files in other ways:
PixelFunctionCode, PixelFunctionLanguage, OpenOptions, raw bands, pansharpening,
processed datasets, DEMs and geolocation arrays.

Source: https://gdal.org/drivers/raster/vrt.html.
"""


def is_vrt(path: str) -> bool:
    """Return whether the file is a VRT; GDAL looks at the content, not at the name."""
    with open(path, "rb") as file:
        return _MARK.search(file.read(_HEAD_BYTES)) is not None


def sources_of(path: str) -> list[str]:
    """Return the paths of the sources of a VRT file, sorted.

    A source of a NetCDF or HDF5 file keeps its prefix and its variable.

    Raises:
        DataError: reason forbidden_source; the file is no plain VRT, or a source is no
            plain path of a local file.
    """
    sources = set()
    for element in _parse(path).iter():
        name = str(element.tag).lower()
        if name not in _ELEMENTS:
            gdal_paths.refuse(path, f"a VRT must not hold <{element.tag}>")
        attributes = {key.lower(): value for key, value in element.attrib.items()}
        # GDAL takes an attribute for an element of the same name, and ignores case.
        if _SOURCES & attributes.keys() or len(attributes) != len(element.attrib):
            gdal_paths.refuse(path, f"<{element.tag}> has the attributes {list(element.attrib)}")
        subclass = attributes.get("subclass", "")
        if subclass and subclass.lower() not in _SUBCLASSES:
            gdal_paths.refuse(path, f"a VRT must not have the subClass {subclass}")
        if attributes.get("key", "").upper() == gdal_paths.OVERVIEW_TAG:
            gdal_paths.refuse(path, f"must not name a file by the tag {gdal_paths.OVERVIEW_TAG}")
        crs = element.text if name.endswith("srs") else attributes.get("projection")
        if crs and not gdal_paths.is_crs(crs):
            gdal_paths.refuse(path, f"a VRT must not name a file with a CRS, got {crs}")
        if name in _SOURCES:
            sources.add(_source(path, element, attributes.get("relativetovrt", "0")))
    return sorted(sources)


def _parse(path: str) -> ElementTree.Element:
    if os.path.getsize(path) > MAX_BYTES:
        gdal_paths.refuse(path, f"a VRT may have {MAX_BYTES} bytes, got {os.path.getsize(path)}")
    # GDAL reads UTF-8 whatever the file declares, so decode it in the same way.
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        text = re.sub(r"\A\s*<\?xml.*?\?>", "", text, flags=re.DOTALL)
        if "<!" in text or "<?" in text:
            raise ValueError("comments, entities and instructions must be removed")
        return ElementTree.fromstring(text)
    except (ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not a VRT that is read: {error}", "forbidden_source") from error


def _source(path: str, element: ElementTree.Element, relative_to_vrt: str) -> str:
    name = element.text or ""
    if len(element) or not name or name != name.strip() or relative_to_vrt not in ("0", "1"):
        gdal_paths.refuse(path, f"a source of a VRT must be a path, got {name!r}")
    parts = gdal_paths.split_subdataset(name)
    file = parts[1] if parts else name
    if gdal_paths.is_virtual(file) or gdal_paths.is_prefixed(file):
        gdal_paths.refuse(path, f"a source of a VRT must be a plain local path, got {name}")
    if relative_to_vrt == "1":
        file = os.path.join(os.path.dirname(path), file)
    return f'{parts[0]}:"{file}"{parts[2]}' if parts else file
