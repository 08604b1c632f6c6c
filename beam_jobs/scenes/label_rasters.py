"""Label rasters: check where a label lies, and read it on any grid.

Input: a LabelSource and a Grid. Output: uint8 ids of the wanted schema, 255 = ignore.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import labels
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import footprints, resampling, windows
from beam_jobs.scenes.assets import LabelSource
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene


def check_place(scene: Scene) -> None:
    """Check that a scene's label overlaps the scene.

    The label may be on any grid, since `read` resamples it.

    Raises:
        DataError: the label is missing or unreadable, has no CRS, or does not overlap
            the scene's footprint.
    """
    if scene.label is None:
        return
    with open_raster(scene.label.path) as dataset:
        if dataset.crs is None:
            raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
        extent = footprints.of_bounds(dataset.crs.to_string(), dataset.bounds)
    footprint = footprints.on_globe(scene.footprint)
    if not footprint.intersects(extent):
        raise DataError(
            f"{scene.label.path}: the label lies at {footprints.degrees(extent.bounds)}, "
            f"its scene {scene.scene_id} at {footprints.degrees(footprint.bounds)}",
            "label_elsewhere",
        )


def read(source: LabelSource, target_schema: str, grid: Grid) -> npt.NDArray[np.uint8]:
    """Return the label on `grid` in ids of `target_schema`, uint8 [H, W], 255 = ignore.

    The file may have another CRS, pixel size and extent than the images. Each pixel
    takes the id of the label pixel that contains its centre: class ids cannot be
    interpolated. Pixels outside the file are 255.

    Raises:
        DataError: an id is not in the source's schema, a schema is unknown, or no remap
            exists between the two schemas.
    """
    with open_raster(source.path) as dataset:
        window = windows.read_window(dataset, [1], grid)
        nodata = dataset.nodata_values[0] if source.nodata is None else source.nodata
    stored = window.pixels[0]
    unlabeled = ~np.isfinite(stored.astype(np.float64)) | (stored == labels.IGNORE)
    unlabeled |= ~window.valid[0]
    if nodata is not None:
        unlabeled |= stored == nodata
    try:
        schema = labels.get_schema(source.schema)
        values = np.where(unlabeled, labels.IGNORE, stored)
        if values.size and (values.min() < 0 or values.max() > labels.IGNORE):
            raise ValueError(f"label ids must lie in 0-255, got {values.min()} to {values.max()}")
        remapped = labels.remap(values.astype(np.uint8), schema, labels.get_schema(target_schema))
    except ValueError as error:
        raise DataError(f"{source.path}: {error}", "label_id_outside_schema") from error
    return resampling.ids_to_grid(remapped, window.source, grid, fill=labels.IGNORE)
