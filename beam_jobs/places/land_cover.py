"""Land cover map: random points of a class, uniform over its area on the sphere.

Input: any GeoTIFF of label ids. Output: longitudes and latitudes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.errors import DataError
from beam_jobs.rasters.sources import open_dataset
from beam_jobs.scenes.grids import LONLAT

MAX_PIXELS = 1 << 25
"""A larger raster is thinned out to this many pixels, by nearest neighbour: 0.045
degrees for the whole Earth."""


class LandCoverMap:
    """Label ids on a grid of longitude and latitude.

    Attributes:
        classes: ids that occur within the limits, ascending.
    """

    def __init__(
        self, source: Path | bytes, schema: LabelSchema, min_lat: float, max_lat: float
    ) -> None:
        """Read the raster and blank everything outside of the latitude limits.

        Args:
            source: path of a GeoTIFF, or its bytes.
            schema: meaning of the ids.
            min_lat: southern limit, degrees.
            max_lat: northern limit, degrees.

        Raises:
            DataError: the raster cannot be read, has no CRS, holds ids outside of the
                schema, or has no class of it within the limits.
        """
        name = "WorldCover overview" if isinstance(source, bytes) else str(source)
        try:
            if isinstance(source, bytes):
                with MemoryFile(source) as file, file.open() as dataset:
                    self._read(dataset)
            else:
                with open_dataset(str(source)) as dataset:
                    self._read(dataset)
        except RasterioError as error:
            raise DataError(
                f"{name}: cannot read the land cover: {error}", "unreadable_raster"
            ) from error
        centres = self._north - (np.arange(len(self._ids)) + 0.5) * self._step_lat
        self._ids[(centres < min_lat) | (centres > max_lat)] = self._nodata
        present = np.unique(self._ids).tolist()
        self.classes = tuple(value for value in present if value in schema.classes)
        unknown = [
            value
            for value in present
            if value not in schema.classes and value not in (self._nodata, 0, 255)
        ]
        if unknown:
            raise DataError(
                f"{name}: ids {unknown} are not in label schema {schema.name!r}; set label_schema "
                f"to the schema of the raster",
                "label_id_outside_schema",
            )
        if not self.classes:
            raise DataError(
                f"{name}: holds no class of {schema.name!r} "
                f"between {min_lat:g} and {max_lat:g} degrees north",
                "no_class",
            )

    def draw(
        self, class_id: int, num_points: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Draw points of a class, uniform over its area on the sphere.

        Args:
            class_id: one of `classes`.
            num_points: number of points N.
            rng: source of the randomness.

        Returns:
            lon [N] and lat [N], float64 degrees.
        """
        pixels = np.flatnonzero(self._ids == class_id)
        rows, columns = np.divmod(pixels, self._ids.shape[1])
        north = self._north - rows * self._step_lat
        # A pixel's area is proportional to the difference of the sines of its two
        # latitudes (Archimedes' hat-box theorem).
        top, bottom = np.sin(np.radians(north)), np.sin(np.radians(north - self._step_lat))
        reach = np.cumsum(top - bottom)
        chosen = np.searchsorted(reach, rng.random(num_points) * reach[-1], side="right")
        sines = bottom[chosen] + rng.random(num_points) * (top - bottom)[chosen]
        lon = self._west + (columns[chosen] + rng.random(num_points)) * self._step_lon
        return np.where(lon > 180.0, lon - 360.0, lon), np.degrees(np.arcsin(sines))

    def _read(self, dataset: rasterio.DatasetReader) -> None:
        if dataset.crs is None:
            raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
        with WarpedVRT(dataset, crs=LONLAT, resampling=Resampling.nearest) as lonlat:
            shrink = max(1.0, math.sqrt(lonlat.width * lonlat.height / MAX_PIXELS))
            shape = max(1, int(lonlat.height / shrink)), max(1, int(lonlat.width / shrink))
            ids = lonlat.read(1, out_shape=shape, resampling=Resampling.nearest)
            self._nodata = 255 if lonlat.nodata is None else lonlat.nodata
            self._ids = np.array(ids)
            self._west, self._north = lonlat.bounds.left, lonlat.bounds.top
            self._step_lon = (lonlat.bounds.right - lonlat.bounds.left) / shape[1]
            self._step_lat = (lonlat.bounds.top - lonlat.bounds.bottom) / shape[0]
