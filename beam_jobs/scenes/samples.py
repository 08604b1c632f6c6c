"""Samples: full-resolution pixels of a scene, from which units and offset are judged.

Input: a Scene, its bands and positions. Output: planes as archives store them, NaN = no
data. Overviews and resolution levels are never read: they hold averages, which show
neither the darkest pixels nor where no data begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from scipy import ndimage

from beam_jobs.contracts.records import FloatArray
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Raster
from beam_jobs.scenes import radiometry, readers
from beam_jobs.scenes.scene import Scene

Position = tuple[float, float]
"""Place in a raster as fractions of its height and width, 0-1."""

WHOLE_PX = 1 << 20
"""A raster with at most so many pixels is read as a whole."""
SIDE_PX = 256
"""Side of the windows of a larger raster. The usual block is as large or larger."""
STRIP_SHAPE_PX = (64, 1024)
"""Height and width of the windows in a raster whose blocks span its whole width.

Such a block is decoded over its whole width, so a low window costs a quarter.
"""
SPREAD: tuple[Position, ...] = tuple((row / 6, col / 6) for row in (1, 3, 5) for col in (1, 3, 5))
"""Centres of the windows: 9 windows decode about 9 blocks of each band."""
LOOK_PX = 256
"""Side of the thinned-out look that finds where a nearly empty scene has data."""
EDGE_REACH_PX = (12, 4, 1)
"""Pixels so near to no data may be mixed with it, so they do not count.

A cubic kernel reaches 2 source pixels, which are 12 pixels of 10 m where a band of 60 m
was resampled before. Where nothing remains, the smaller reach is taken.
"""
MIN_INNER_PX = 1000
"""Least number of values for which a reach is taken."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A window of bands that lie on one grid.

    Attributes:
        names: of the bands.
        values: float32 [C, h, w] as archives store them (dB or digital numbers), NaN =
            no data.
        cut: whether the window's top, bottom, left and right side lie inside the
            raster, so that no data may begin just beyond them.
    """

    names: tuple[str, ...]
    values: FloatArray
    cut: tuple[bool, bool, bool, bool]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Full-resolution pixels of a scene.

    Attributes:
        planes: windows, in the order of the files and of the positions.
        dtypes: band -> type of its pixels in the file.
    """

    planes: tuple[Plane, ...]
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    def of_band(self, name: str) -> list[FloatArray]:
        """Return the windows [h, w] of one band."""
        return [
            plane.values[plane.names.index(name)] for plane in self.planes if name in plane.names
        ]


def read(
    scene: Scene, band_names: tuple[str, ...], positions: tuple[Position, ...] = SPREAD
) -> Sample:
    """Return the windows of a scene around `positions`; small rasters are read whole.

    The last row is read too, so that a truncated file fails here, before any patch is
    cut.

    Raises:
        DataError: a file cannot be read, or has other bands than the item says.
    """
    parts: dict[tuple[Any, ...], list[tuple[tuple[str, ...], FloatArray, Any]]] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for path, sources in readers.by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            indexes = readers.band_indexes(dataset, sources)
            dataset.read(indexes, window=Window(0, dataset.height - 1, dataset.width, 1))
            for number, window in enumerate(_windows(dataset, positions)):
                stored = dataset.read(indexes, window=window)
                dtypes.update(dict.fromkeys(sources, stored.dtype))
                values = readers.as_archived(
                    stored, dataset, scene=scene, sources=sources, window=window
                )
                # With one file per polarization, fill can be told from a measurement
                # only by a look at all of them.
                key = (number, tuple(dataset.transform), dataset.height, dataset.width)
                parts.setdefault(key, []).append((tuple(sources), values, _cut(window, dataset)))
    planes = [
        Plane(
            names=tuple(name for names, _, _ in found for name in names),
            values=np.concatenate([values for _, values, _ in found]),
            cut=found[0][2],
        )
        for found in parts.values()
    ]
    return Sample(planes=tuple(planes), dtypes=dtypes)


def positions_with_data(scene: Scene, band_names: tuple[str, ...]) -> tuple[Position, ...]:
    """Return where a scene has data, as at most 9 positions; none where it is empty.

    A thinned-out look finds the places, for example in a tile that the swath only
    touches. The values of that look are not used: they may be averages.
    """
    name = band_names[0]
    source = scene.bands[name]
    with open_raster(source.path) as dataset:
        indexes = readers.band_indexes(dataset, {name: source})
        shape = min(dataset.height, LOOK_PX), min(dataset.width, LOOK_PX)
        stored = dataset.read(indexes, out_shape=(1, *shape))
        values = readers.as_archived(
            stored, dataset, scene=scene, sources={name: source}, out_shape=(1, *shape)
        )
    rows, cols = np.nonzero(measured(values, scene).any(axis=0))
    if not rows.size:
        return ()
    chosen = np.unique(np.linspace(0, rows.size - 1, len(SPREAD)).round().astype(int))
    return tuple(
        (float((rows[i] + 0.5) / shape[0]), float((cols[i] + 0.5) / shape[1])) for i in chosen
    )


def measured(values: FloatArray, scene: Scene) -> npt.NDArray[np.bool_]:
    """Return which of archived values [C, h, w] are measurements, bool [C, h, w]."""
    if scene.sensor == "s1":
        cleaned = radiometry.clean_backscatter_db(values, is_zero_missing=not scene.declares_units)
        return np.isfinite(cleaned)
    return radiometry.is_dn(values)


def away_from_gaps(sample: Sample, scene: Scene) -> dict[str, FloatArray]:
    """Return per band the measurements that do not touch no data, float32 [N].

    Values beside no data may be mixed with it, by averaging or by compression. A gap is
    where all bands of a grid lack data: single zeros of one band are dark pixels.
    """
    found: dict[str, FloatArray] = {}
    for reach in EDGE_REACH_PX:
        parts: dict[str, list[FloatArray]] = {}
        for plane in sample.planes:
            valid = measured(plane.values, scene)
            inner = _far_from_gaps(valid.any(axis=0), reach, plane.cut)
            for name, values, mask in zip(plane.names, plane.values, valid, strict=True):
                parts.setdefault(name, []).append(values[mask & inner])
        found = {name: np.concatenate(values) for name, values in parts.items()}
        if sum(values.size for values in found.values()) >= MIN_INNER_PX:
            break
    return found


def _windows(dataset: Raster, positions: tuple[Position, ...]) -> Iterator[Window]:
    """Yield the windows around positions, moved to the corners of the file's blocks."""
    if dataset.height * dataset.width <= WHOLE_PX:
        yield Window(0, 0, dataset.width, dataset.height)
        return
    block_height, block_width = dataset.block_shape
    is_strips = block_width >= dataset.width and block_height <= STRIP_SHAPE_PX[0]
    height, width = STRIP_SHAPE_PX if is_strips else (SIDE_PX, SIDE_PX)
    height, width = min(height, dataset.height), min(width, dataset.width)
    seen = set()
    for down, across in positions:
        row = _corner(down * dataset.height, height, block_height, dataset.height)
        col = _corner(across * dataset.width, width, block_width, dataset.width)
        if (row, col) not in seen:
            seen.add((row, col))
            yield Window(col, row, width, height)


def _corner(centre: float, size: int, block: int, full: int) -> int:
    """Return the first row or column of a window of `size` that holds `centre`.

    The window lies within one block where that is possible.
    """
    first = int(centre - size / 2)
    if size <= block < full:
        start = int(centre) // block * block
        first = min(max(first, start), start + block - size)
    return min(max(first, 0), full - size)


def _cut(window: Window, dataset: Raster) -> tuple[bool, bool, bool, bool]:
    return (
        window.row_off > 0,
        window.row_off + window.height < dataset.height,
        window.col_off > 0,
        window.col_off + window.width < dataset.width,
    )


def _far_from_gaps(
    valid: npt.NDArray[np.bool_], reach: int, cut: tuple[bool, bool, bool, bool]
) -> npt.NDArray[np.bool_]:
    """Return which pixels have data on all sides, up to `reach` pixels away.

    Beyond a side that is `cut`, there may be no data. Beyond the raster there is
    nothing that could have been mixed in.
    """
    top, bottom, left, right = cut
    if not any(cut) and valid.all():
        return valid
    padded = np.pad(valid, reach, constant_values=True)
    for side, is_cut in (
        (np.s_[:reach, :], top),
        (np.s_[-reach:, :], bottom),
        (np.s_[:, :reach], left),
        (np.s_[:, -reach:], right),
    ):
        if is_cut:
            padded[side] = False
    far = ndimage.minimum_filter(padded, size=2 * reach + 1, mode="nearest")
    return np.asarray(far[reach:-reach, reach:-reach])
