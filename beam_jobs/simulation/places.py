"""Simulated places: squares on the 10 m grid of a real UTM zone.

Input: place index, seed and size. Output: `Place`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyproj import Transformer

from beam_jobs.simulation.fields import stream

PIXEL_SIZE_M = 10.0
_NUM_COLUMNS = 8
_MAX_PLACES = 10_000
# First place of each region, in lon/lat: near the middle of a UTM zone, where there are
# rivers, farmland and coasts.
_REGIONS = (
    (15.2, 48.2),
    (-93.1, 41.5),
    (75.3, 29.0),
    (105.1, 10.2),
    (-57.2, -27.5),
    (147.3, -30.4),
    (3.2, 46.1),
    (33.3, -17.2),
    (117.1, 32.3),
    (-63.2, -17.6),
    (-3.1, 52.3),
    (27.2, 44.3),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One square of land that is seen on several dates.

    Attributes:
        index: number of the place, from 0.
        place_id: its name in paths and catalogs.
        epsg: code of the UTM zone, 326xx north or 327xx south.
        xmin: west edge in UTM metres, a multiple of 10.
        ymax: north edge in UTM metres, a multiple of 10.
        size_px: height and width in pixels of 10 m.
    """

    index: int
    place_id: str
    epsg: int
    xmin: float
    ymax: float
    size_px: int

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine transform (a, b, c, d, e, f) in rasterio order.

        x = a * column + b * row + c and y = d * column + e * row + f.
        """
        return (PIXEL_SIZE_M, 0.0, self.xmin, 0.0, -PIXEL_SIZE_M, self.ymax)

    def footprint(self) -> list[list[float]]:
        """Return the corners as [lon, lat] in degrees, counter-clockwise.

        The first is the south-west corner, and it comes again at the end.
        """
        side_m = self.size_px * PIXEL_SIZE_M
        x = np.array([0.0, side_m, side_m, 0.0, 0.0]) + self.xmin
        y = np.array([0.0, 0.0, side_m, side_m, 0.0]) + self.ymax - side_m
        lon, lat = Transformer.from_crs(self.epsg, 4326, always_xy=True).transform(x, y)
        # Seven decimals are a centimetre. Rounding gives the same text with every
        # version of PROJ.
        return [[round(float(a), 7), round(float(b), 7)] for a, b in zip(lon, lat, strict=True)]

    def centre(self) -> tuple[float, float]:
        """Return longitude and latitude of the centre in degrees."""
        ring = np.array(self.footprint()[:4])
        return float(ring[:, 0].mean()), float(ring[:, 1].mean())


def make_place(index: int, seed: int, size_px: int) -> Place:
    """Return the place of an index; no two places overlap.

    Places go to the regions in turn, and within a region to the next node of a lattice.

    Args:
        index: 0 or above.
        seed: shifts the place by up to 2 km, so that other seeds have other grids.
        size_px: height and width in pixels of 10 m.

    Raises:
        ValueError: more places than the lattice keeps within UTM's limits.
    """
    if index >= _MAX_PLACES:
        raise ValueError(f"at most {_MAX_PLACES} places fit on the map, got place index {index}")
    lon, lat = _REGIONS[index % len(_REGIONS)]
    epsg = (32600 if lat >= 0 else 32700) + int((lon + 180) // 6) + 1
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    row, column = divmod(index // len(_REGIONS), _NUM_COLUMNS)
    spacing_m = max(15_000.0, size_px * PIXEL_SIZE_M + 5_000.0)
    shift_m = stream(seed, "place", index).uniform(-2_000.0, 2_000.0, 2)
    x += (column - _NUM_COLUMNS / 2) * spacing_m + shift_m[0]
    y += row * spacing_m + shift_m[1]
    return Place(
        index=index,
        place_id=f"place-{index:04d}",
        epsg=epsg,
        xmin=float(round(x / PIXEL_SIZE_M) * PIXEL_SIZE_M),
        ymax=float(round(y / PIXEL_SIZE_M) * PIXEL_SIZE_M),
        size_px=size_px,
    )
