"""Maps: join the parts of a scene into files that any GIS opens.

Input: the files of `parts.py`. Output: Cloud Optimized GeoTIFFs: `class.tif` with
colors, `probability.tif`, `uncertainty.tif`. GDAL reads the parts through a VRT file,
block by block, so memory does not grow with the size of a scene.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import rasterio
import rasterio.shutil
from rasterio.crs import CRS

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict import memory
from beam_jobs.predict.blending import Area
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.parts import NO_DATA, SHARE_PER_COUNT, part_name
from beam_jobs.rasters import open_files, writing
from beam_jobs.scenes.grids import Grid

CLASS_FILE = "class.tif"
PROBABILITY_FILE = "probability.tif"
UNCERTAINTY_FILE = "uncertainty.tif"
_BLOCK_PX = 512
_CACHE_BYTES = 32 << 20
"""GDAL's cache while a file is written. It holds the blocks of the parts below a row of
blocks. With 32 to 1200 MB, a large frame takes as long."""
_NUM_THREADS = 2
"""Threads that compress. More of them hold more blocks; other workers need cores."""
_GDAL_TYPES = {"uint8": "Byte", "float16": "Float32"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One band of a map.

    Attributes:
        band: 1-based band of the parts that holds it.
        description: what it is, as a GIS shows it.
        scale: what one count stands for; 1 for class ids and for floats.
        dtype: of the pixels.
        colors: class id -> #rrggbb, for class ids only.
    """

    band: int
    description: str
    scale: float = 1.0
    dtype: Literal["uint8", "float16"] = "uint8"
    colors: Mapping[int, str] = field(default_factory=dict)

    @property
    def nodata(self) -> float:
        """The value of pixels where no sensor has data."""
        return float(NO_DATA) if self.dtype == "uint8" else math.nan


def class_layer(classes: Sequence[LabelClass]) -> Layer:
    """Return the layer of class ids."""
    return Layer(band=1, description="class", colors={one.id: one.color for one in classes})


def probability_layers(classes: Sequence[LabelClass], config: PredictConfig) -> list[Layer]:
    """Return the layers of the probabilities: of all classes, the highest, or none."""
    if config.probabilities == "none":
        return []
    bands = (
        {2 + one.id: one.name for one in classes}
        if config.probabilities == "all"
        else {3 + len(classes): "highest probability"}
    )
    return [
        Layer(
            band=band,
            description=name,
            scale=SHARE_PER_COUNT if config.probability_dtype == "uint8" else 1.0,
            dtype=config.probability_dtype,
        )
        for band, name in bands.items()
    ]


def uncertainty_layers(classes: Sequence[LabelClass], config: PredictConfig) -> list[Layer]:
    """Return the layers of the uncertainty."""
    if config.uncertainty == "none":
        return []
    bands = {2 + len(classes): "entropy"}
    if config.uncertainty == "disagreement":
        bands |= {4 + len(classes): "mutual information", 5 + len(classes): "standard deviation"}
    return [
        Layer(band=band, description=name, scale=SHARE_PER_COUNT) for band, name in bands.items()
    ]


def write_cog(
    parts_dir: Path,
    areas: Sequence[Area],
    grid: Grid,
    layers: Sequence[Layer],
    tags: Mapping[str, str],
    path: Path,
) -> None:
    """Write layers of a map as one Cloud Optimized GeoTIFF with overviews.

    Overviews of class ids hold the most frequent class, others the mean.

    Args:
        parts_dir: folder of the parts.
        areas: of the parts.
        grid: of the map.
        layers: bands of the file, in order.
        tags: metadata of the file.
        path: of the file.

    Raises:
        rasterio.errors.RasterioError: the file cannot be written.
    """
    vrt = parts_dir / f"{path.stem}.vrt"
    vrt.write_text(_vrt(areas, grid, layers, tags))
    copy_as_cog(
        vrt,
        path,
        has_classes=any(layer.colors for layer in layers),
        is_half=layers[0].dtype == "float16",
    )
    vrt.unlink()


def copy_as_cog(source: Path, path: Path, *, has_classes: bool, is_half: bool = False) -> None:
    """Copy a raster into a Cloud Optimized GeoTIFF with overviews.

    GDAL's own driver writes it, block by block.

    Args:
        source: any raster that GDAL reads.
        path: of the copy.
        has_classes: overviews hold the most frequent value, not the mean.
        is_half: floats are kept as 16 bits.

    Raises:
        rasterio.errors.RasterioError: the file cannot be written.
    """
    with rasterio.open(source) as dataset:
        # GDAL keeps the overviews in a file of their own for a while.
        num_bytes = 2 * dataset.count * dataset.height * dataset.width * (4 if is_half else 1)
    bounded = rasterio.Env(**open_files.cache_bound(_CACHE_BYTES))
    with writing.whole(path, num_bytes=num_bytes), bounded:
        rasterio.shutil.copy(
            os.fspath(source),
            os.fspath(path),
            driver="COG",
            COMPRESS="DEFLATE",
            # Takes a third of the time of the default level. Probabilities and entropy
            # get 4 to 9 % larger.
            LEVEL="1",
            NUM_THREADS=str(_NUM_THREADS),
            BLOCKSIZE=str(_BLOCK_PX),
            OVERVIEW_RESAMPLING="MODE" if has_classes else "AVERAGE",
            BIGTIFF="IF_SAFER",
            # GDAL 3.9 has no type float16; the file has 16 bits a value.
            **({"NBITS": "16"} if is_half else {}),
        )
    memory.give_back()


def colormap(colors: Mapping[int, str]) -> dict[int, tuple[int, int, int, int]]:
    """Return value -> (red, green, blue, alpha) of all bytes.

    Values without a color are transparent.
    """
    found = dict.fromkeys(range(256), (0, 0, 0, 0))
    for value, color in colors.items():
        red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
        found[value] = (red, green, blue, 255)
    return found


def _vrt(
    areas: Sequence[Area], grid: Grid, layers: Sequence[Layer], tags: Mapping[str, str]
) -> str:
    """Return the VRT file that joins the parts.

    Source: GDAL manual, "VRT -- GDAL Virtual Format".
    """
    a, b, c, d, e, f = grid.transform
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height)
    )
    _add(root, "SRS", CRS.from_string(grid.crs).to_wkt())
    _add(root, "GeoTransform", ", ".join(repr(float(value)) for value in (c, a, b, f, d, e)))
    metadata = ElementTree.SubElement(root, "Metadata")
    for key, value in tags.items():
        _add(metadata, "MDI", value, key=key)
    for number, layer in enumerate(layers, start=1):
        band = ElementTree.SubElement(
            root, "VRTRasterBand", dataType=_GDAL_TYPES[layer.dtype], band=str(number)
        )
        _add(band, "Description", layer.description)
        _add(band, "NoDataValue", f"{layer.nodata:g}")
        if layer.scale != 1.0:
            _add(band, "Scale", repr(layer.scale))
        if layer.colors:
            _add(band, "ColorInterp", "Palette")
            _add_colors(band, layer.colors)
        for area in areas:
            _add_source(band, area, layer.band)
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: Any, name: str, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, name, attributes).text = text


def _add_colors(band: Any, colors: Mapping[int, str]) -> None:
    table = ElementTree.SubElement(band, "ColorTable")
    for parts in colormap(colors).values():
        named = dict(zip(("c1", "c2", "c3", "c4"), map(str, parts), strict=True))
        ElementTree.SubElement(table, "Entry", named)


def _add_source(band: Any, area: Area, source_band: int) -> None:
    width = area.cols.stop - area.cols.start
    height = area.rows.stop - area.rows.start
    source = ElementTree.SubElement(band, "SimpleSource")
    _add(source, "SourceFilename", part_name(area), relativeToVRT="1")
    _add(source, "SourceBand", str(source_band))
    for name, col, row in (("SrcRect", 0, 0), ("DstRect", area.cols.start, area.rows.start)):
        ElementTree.SubElement(
            source, name, xOff=str(col), yOff=str(row), xSize=str(width), ySize=str(height)
        )
