"""Files that GDAL reads as rasters: GeoTIFF, JPEG 2000, PNG, VRT and others.

Input: an open rasterio dataset. Output: a Raster with the masks that the file brings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from beam_jobs.rasters.raster import Georeferenced, Pixels, Valid

_WITHOUT_MASK = ({MaskFlags.all_valid}, {MaskFlags.nodata})
"""Mask flags of bands that no mask hides: none at all, or a no-data value per band.

Source: https://gdal.org/development/rfc/rfc15_nodatabitmask.html
"""


class GdalRaster(Georeferenced):
    """A rasterio dataset behind the Raster protocol; the dataset must stay open."""

    def __init__(self, dataset: rasterio.DatasetReader) -> None:
        self._dataset = dataset
        self.name, self.crs, self.transform = dataset.name, dataset.crs, dataset.transform
        self.height, self.width = dataset.height, dataset.width
        self.descriptions = dataset.descriptions
        self.block_shape = dataset.block_shapes[0]
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        self.decodes_all_bands = structure.get("INTERLEAVE") == "PIXEL"
        self.nodata_values = dataset.nodatavals
        self.alpha_index = next(
            (
                index
                for index, meaning in enumerate(dataset.colorinterp, start=1)
                if meaning == ColorInterp.alpha
            ),
            None,
        )

    def read(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
    ) -> Pixels:
        """Return stored pixels [C, h, w] of `window`, or of the whole raster."""
        return self._dataset.read(indexes, window=window, out_shape=out_shape)

    def read_valid(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
        *,
        alpha_is_data: bool = False,
    ) -> Valid:
        """Return where neither a mask nor an alpha band hides a pixel, bool [C, h, w].

        A mask hides a pixel where it is 0, as for GDAL's own programs: a pixel that is
        partly opaque counts.
        """
        asked: dict[str, Any] = {"window": window, "out_shape": out_shape}
        alpha = None if alpha_is_data else self.alpha_index
        # For a band with a no-data value, GDAL's mask ignores the alpha band. The alpha
        # band hides pixels there too.
        opaque = None if alpha is None else self._dataset.read([alpha], **_of_one(asked)) != 0
        planes = []
        for index in indexes:
            flags = set(self._dataset.mask_flag_enums[index - 1])
            if flags in _WITHOUT_MASK or MaskFlags.alpha in flags:
                planes.append(opaque)
                continue
            valid = self._dataset.read_masks([index], **_of_one(asked)) != 0
            planes.append(valid if opaque is None else valid & opaque)
        if all(plane is None for plane in planes):
            return np.ones(self.shape_of(len(indexes), window, out_shape), bool)
        whole = np.ones(self.shape_of(1, window, out_shape), bool)
        return np.concatenate([whole if plane is None else plane for plane in planes])

    def tags(self) -> dict[str, str]:
        """Return the texts that the file carries, by name."""
        return self._dataset.tags()


def _of_one(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a read of many bands for a read of one."""
    shape = asked["out_shape"]
    return asked if shape is None else {**asked, "out_shape": (1, *shape[1:])}
