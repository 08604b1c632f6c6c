"""Label rasters: check where a label lies, and read it on any grid.

Input: a LabelSource and a Grid. Output: uint8 ids of the wanted schema, 255 = ignore.
`label_vectors.py` does the same for polygons and points.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from beam_jobs.contracts import labels
from beam_jobs.contracts.label_target import LabelTarget
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Raster
from beam_jobs.scenes import footprints, resampling, windows
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import Scene

_ROWS = 1024
"""Rows that are counted at a time."""
_MAX_COUNTED = 1 << 16
"""Range of values up to which they are counted and not sorted."""


def check_place(scene: Scene) -> None:
    """Check that a scene's label overlaps the scene.

    The label may be on any grid, since `read` resamples it.

    Raises:
        DataError: the label is missing or unreadable, has no CRS or several bands, or
            does not overlap the scene's footprint.
    """
    if scene.label is None:
        return
    with open_raster(scene.label.path) as dataset:
        if dataset.crs is None:
            raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
        band_index(dataset, scene.label)
        extent = footprints.of_bounds(dataset.crs.to_string(), dataset.bounds)
    footprint = footprints.on_globe(scene.footprint)
    if not footprint.intersects(extent):
        raise DataError(
            f"{scene.label.path}: the label lies at {footprints.degrees(extent.bounds)}, "
            f"its scene {scene.scene_id} at {footprints.degrees(footprint.bounds)}",
            "label_elsewhere",
        )


def read(source: LabelSource, target: LabelTarget | str, grid: Grid) -> npt.NDArray[np.uint8]:
    """Return the label on `grid` in ids of `target`, uint8 [H, W], 255 = ignore.

    The file may have another CRS, pixel size and extent than the images. Each pixel
    takes the id of the label pixel that contains its centre: class ids cannot be
    interpolated. Pixels outside the file are 255.

    Args:
        source: where the label is.
        target: classes of the build, or the name of a known schema.
        grid: wanted grid.

    Raises:
        DataError: a value is no class of the source's schema, a schema is unknown, no
            remap exists between the two schemas, or the file has several bands and the
            item does not say which one.
    """
    if isinstance(target, str):
        target = LabelTarget(schema=labels.get_schema(target))
    with open_raster(source.path) as dataset:
        index = band_index(dataset, source)
        window = windows.read_window(dataset, [index], grid)
        nodata = dataset.nodata_values[index - 1] if source.nodata is None else source.nodata
    stored = window.pixels[0]
    unlabeled = ~np.isfinite(stored) | ~window.valid[0]
    if nodata is not None:
        # A value that the item gives a class counts, even if the file says no data.
        named = np.isin(stored, [int(text) for text in source.values])
        unlabeled |= (stored == nodata) & ~named
    ids = to_ids(stored, unlabeled, source, target)
    return resampling.ids_to_grid(ids, window.source, grid, fill=labels.IGNORE)


def count_values(source: LabelSource) -> Counter[str]:
    """Return the number of pixels of each stored value of a label file.

    Raises:
        DataError: the file cannot be read.
    """
    counts: Counter[str] = Counter()
    with open_raster(source.path) as dataset:
        index = band_index(dataset, source)
        for row in range(0, dataset.height, _ROWS):
            window = Window(0, row, dataset.width, min(_ROWS, dataset.height - row))
            pixels = dataset.read([index], window=window)
            for value, count in zip(*np.unique(pixels, return_counts=True), strict=True):
                counts[f"{value:g}"] += int(count)
    return counts


def band_index(dataset: Raster, source: LabelSource) -> int:
    """Return the 1-based band that holds the label.

    Raises:
        DataError: the file has several bands and the item does not say which one, or
            it has no such band.
    """
    # An alpha band says where there is data. It holds no classes.
    num_bands = len(dataset.descriptions) - (dataset.alpha_index is not None)
    if source.index is None and num_bands > 1:
        raise DataError(
            f"{source.path}: the label has {num_bands} bands; add terrapair:index, the number of "
            "the band with the classes (from 1), to its asset",
            "unknown_band_order",
        )
    index = source.index or 1
    if index > len(dataset.descriptions):
        raise DataError(
            f"{source.path}: terrapair:index of the label is {index}, but the file has "
            f"{len(dataset.descriptions)} bands",
            "missing_bands",
        )
    return index


def _distinct(stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.integer]]:
    """Return the distinct values of a file, and the position of each pixel's value."""
    if stored.size and stored.dtype.kind in "iu":
        low, high = int(stored.min()), int(stored.max())
        # Counting is several times as fast as sorting, which `np.unique` does.
        if high - low <= _MAX_COUNTED:
            shifted = stored.astype(np.int64) - low
            present = np.bincount(shifted, minlength=high - low + 1) > 0
            return np.flatnonzero(present) + low, (np.cumsum(present) - 1)[shifted]
    return np.unique(stored, return_inverse=True)


def to_ids(
    stored: npt.NDArray[Any],
    unlabeled: npt.NDArray[np.bool_],
    source: LabelSource,
    target: LabelTarget,
) -> npt.NDArray[np.uint8]:
    """Return stored label values as ids of `target`, uint8 [H, W], 255 = ignore.

    Args:
        stored: values of the file, [H, W].
        unlabeled: bool [H, W], True = no label.
        source: where the label is, and what its values mean.
        target: classes of the build.

    Raises:
        DataError: a value is not a whole number or has no class.
    """
    result = np.full(stored.shape, labels.IGNORE, np.uint8)
    values, positions = _distinct(stored[~unlabeled])
    fractions = values[np.mod(values, 1) != 0] if values.dtype.kind == "f" else values[:0]
    if fractions.size:
        shown = ", ".join(f"{value:g}" for value in fractions[:3])
        raise DataError(
            f"{source.path}: label values must be whole numbers, got {shown}: write class ids "
            "into the file (a probability needs a threshold)",
            "label_id_outside_schema",
        )
    try:
        ids = target.ids([int(value) for value in values], source.schema, source.values)
    except ValueError as error:
        raise DataError(f"{source.path}: {error}", "label_id_outside_schema") from error
    result[~unlabeled] = np.asarray(ids, np.uint8)[positions]
    return result
