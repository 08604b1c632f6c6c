"""Blending: a scene's probabilities, window by window, in strips of finished rows.

Input: a function that reads pixels, a function that is the model, and the windows.
Output: rows of the scene from top to bottom. Pure functions. Memory holds one row of
windows, whatever the height of the scene.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict.windows import AxisWindow, mirrored

Pixels = Mapping[Sensor, FloatArray]
"""Physical values of each sensor of a model, float32 [..., H, W, C], NaN = no data."""
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A scene and the model that predicts it.

    Attributes:
        read: returns the pixels [H, W, C] of rows and columns of the scene.
        model: pixels [B, H, W, C] -> probabilities float32 [B, H, W, K].
        num_classes: K.
    """

    read: Callable[[slice, slice], Pixels]
    model: Callable[[Pixels], FloatArray]
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class Windows:
    """All windows of a scene: those along its height, and those along its width."""

    rows: Sequence[AxisWindow]
    cols: Sequence[AxisWindow]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scene."""
        return self.rows[-1].end, self.cols[-1].end


@dataclass(frozen=True, kw_only=True)
class Area:
    """A part of a scene: rows and columns, in pixels."""

    rows: slice
    cols: slice


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Finished rows of an area.

    Attributes:
        first: first row, in pixels of the scene.
        probabilities: float32 [H, W, K]; 0 where no sensor has data.
        valid: bool [H, W], True where at least one sensor has data.
    """

    first: int
    probabilities: FloatArray
    valid: BoolArray


def blend(source: Source, windows: Windows, area: Area, max_batch_px: int) -> Iterator[Strip]:
    """Yield the rows of an area from top to bottom.

    Their values do not depend on the area. A window is skipped if no pixel that it
    answers for has data.

    Args:
        source: scene and model.
        windows: of the whole scene.
        area: wanted part of the scene.
        max_batch_px: most pixels that the model gets at once, but at least one window.
    """
    rows = [window for window in windows.rows if _meets(window, area.rows)]
    cols = [window for window in windows.cols if _meets(window, area.cols)]
    width = area.cols.stop - area.cols.start
    at = slice(area.cols.start - cols[0].first, area.cols.stop - cols[0].first)
    sums = np.zeros((0, width, source.num_classes), np.float32)
    for row, after in itertools.zip_longest(rows, rows[1:]):
        pixels = _read_row(source, row, cols, windows.shape)
        valid = valid_mask(pixels)
        sums = np.pad(sums, ((0, len(row.weights) - len(sums)), (0, 0), (0, 0)))
        asked = [col for col in cols if valid[row.inside, _inside(col, cols)].any()]
        for col, answer in _answers(source, pixels, cols, asked, max_batch_px):
            _add(sums, answer, row, col, area.cols)
        end = after.core if after is not None else row.end
        done = slice(max(row.core, area.rows.start), min(end, area.rows.stop))
        if done.start < done.stop:
            shown = valid[done.start - row.first : done.stop - row.first, at]
            found = sums[done.start - row.core : done.stop - row.core]
            yield Strip(first=done.start, probabilities=found * shown[..., np.newaxis], valid=shown)
        sums = sums[end - row.core :]


def _meets(window: AxisWindow, wanted: slice) -> bool:
    return window.core < wanted.stop and window.end > wanted.start


def _read_row(
    source: Source, row: AxisWindow, cols: Sequence[AxisWindow], shape: tuple[int, int]
) -> Pixels:
    """Return what a row of windows sees, mirrored at the borders of the scene."""
    first, last = cols[0], cols[-1]
    height, width = shape
    at_rows = mirrored(row.first, row.size, height)
    at_cols = mirrored(first.first, last.first + last.size - first.first, width)
    found = source.read(_span(at_rows), _span(at_cols))
    index = np.ix_(at_rows - at_rows.min(), at_cols - at_cols.min())
    return {sensor: pixels[index] for sensor, pixels in found.items()}


def _span(index: npt.NDArray[np.int64]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)


def valid_mask(pixels: Pixels) -> BoolArray:
    """Return bool [H, W], True where all bands of at least one sensor are finite.

    This is the mask inside the models; see `PixelNormalization`.
    """
    masks = [np.isfinite(values).all(axis=-1) for values in pixels.values()]
    return np.logical_or.reduce(masks)


def _inside(col: AxisWindow, cols: Sequence[AxisWindow]) -> slice:
    """Return the columns that a window answers for, within its row of windows."""
    return slice(col.core - cols[0].first, col.end - cols[0].first)


def _answers(
    source: Source,
    pixels: Pixels,
    cols: Sequence[AxisWindow],
    asked: Sequence[AxisWindow],
    max_batch_px: int,
) -> Iterator[tuple[AxisWindow, FloatArray]]:
    """Yield the windows of a row with the model's probabilities [H, W, K]."""
    height = len(next(iter(pixels.values())))
    num_together = max(1, max_batch_px // (height * cols[0].size))
    for first in range(0, len(asked), num_together):
        batch = asked[first : first + num_together]
        seen = [
            slice(col.first - cols[0].first, col.first - cols[0].first + col.size) for col in batch
        ]
        found = source.model(
            {
                sensor: np.stack([values[:, one] for one in seen])
                for sensor, values in pixels.items()
            }
        )
        yield from zip(batch, found, strict=True)


def _add(
    sums: FloatArray, answer: FloatArray, row: AxisWindow, col: AxisWindow, wanted: slice
) -> None:
    """Add the share of one window to the columns `wanted` of its rows."""
    first, last = max(col.core, wanted.start), min(col.end, wanted.stop)
    weights = row.weights[:, np.newaxis] * col.weights[first - col.core : last - col.core]
    part = answer[row.inside, first - col.first : last - col.first]
    sums[:, first - wanted.start : last - wanted.start] += weights[..., np.newaxis] * part
