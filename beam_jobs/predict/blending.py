"""Blending: a scene's probabilities, window by window, in blocks of finished pixels.

Input: a function that reads pixels, a function that is the model, and the windows.
Output: blocks of the scene, row by row of windows. Pixels are read while the model
runs. Memory holds some windows, and what neighbours share, whatever the size of the
scene.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict import memory
from beam_jobs.predict.pipelining import ahead
from beam_jobs.predict.windows import AxisWindow, mirrored

Pixels = Mapping[Sensor, FloatArray]
"""Physical values of each sensor of a model, float32 [..., H, W, C], NaN = no data."""
BoolArray = npt.NDArray[np.bool_]
_READS_PER_BATCH = 4
"""In so many pieces, at least, are the pixels read that the model gets at once."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A scene and the model that predicts it.

    Attributes:
        read: returns the pixels [H, W, C] of rows and columns of the scene.
        model: pixels [B, H, W, C] -> probabilities float32 [B, H, W, K].
        num_classes: K.
        reading: context in which one thread calls `read`, such as files kept open.
    """

    read: Callable[[slice, slice], Pixels]
    model: Callable[[Pixels], FloatArray]
    num_classes: int
    reading: Callable[[], AbstractContextManager[None]] = nullcontext


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
class Block:
    """Finished pixels of a scene.

    Attributes:
        area: where they lie.
        probabilities: float32 [H, W, K]; 0 where no sensor has data. Each class is
            contiguous in memory.
        valid: bool [H, W], True where at least one sensor has data.
    """

    area: Area
    probabilities: FloatArray
    valid: BoolArray


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A window with what was read for it.

    Attributes:
        row: the window along the height.
        col: the window along the width.
        pixels: all that the model sees [H, W, C]; none if the model is not asked, or
            once they are in a batch.
        valid: bool, where the pixels that the window answers for have data.
    """

    row: AxisWindow
    col: AxisWindow
    pixels: Pixels
    valid: BoolArray

    @property
    def has_data(self) -> bool:
        """Whether the model is asked."""
        return bool(self.valid.any())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the model sees."""
        return self.row.size, self.col.size


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Windows in order, and the pixels [B, H, W, C] of those that have data."""

    windows: Sequence[_Window]
    pixels: Pixels


def blend(source: Source, windows: Windows, area: Area, max_batch_px: int) -> Iterator[Block]:
    """Yield the pixels of an area, row by row of windows, each row from left to right.

    Their values do not depend on the area, if the margin of the windows covers what the
    model sees. A window is skipped if no pixel that it answers for has data.

    Args:
        source: scene and model.
        windows: of the whole scene.
        area: wanted part of the scene.
        max_batch_px: most pixels that the model gets at once, but at least one window.
    """
    rows = [found for row in windows.rows if (found := row.within(area.rows))]
    cols = [found for col in windows.cols if (found := col.within(area.cols))]
    read = _read(source, rows, cols, windows.shape, max_batch_px)
    with ahead(_batches(read, max_batch_px)) as batches:
        answers = (answer for batch in batches for answer in _answers(source, batch))
        yield from _finished(answers, rows, cols, source.num_classes)


def _finished(
    answers: Iterator[tuple[_Window, FloatArray | None]],
    rows: Sequence[AxisWindow],
    cols: Sequence[AxisWindow],
    num_classes: int,
) -> Iterator[Block]:
    """Yield the pixels that no further window answers for, window by window.

    Args:
        answers: windows, row by row, with their answers [K, h, w], if they have data.
        rows: windows along the height.
        cols: windows along the width.
        num_classes: K.
    """
    after_row = {row.core: after.core for row, after in itertools.pairwise(rows)}
    after_col = {col.core: after.core for col, after in itertools.pairwise(cols)}
    start, width = cols[0].core, cols[-1].end - cols[0].core
    # Sums of the answers for shared pixels: with the next row of windows, with the row
    # before, and with the window before in the same row.
    below = above = left = np.zeros((num_classes, 0, width), np.float32)
    for window, answer in answers:
        row, col = window.row, window.col
        end_row, end_col = after_row.get(row.core, row.end), after_col.get(col.core, col.end)
        if col is cols[0]:
            above = below
            below = np.zeros((num_classes, row.end - end_row, width), np.float32)
            left = np.zeros((num_classes, len(row.weights), 0), np.float32)
        sums = np.zeros((num_classes, len(row.weights), len(col.weights)), np.float32)
        num_left = left.shape[2]
        sums[:, :, :num_left] = left
        at = col.core - start
        sums[:, : above.shape[1], num_left:] = above[:, :, at + num_left : at + len(col.weights)]
        if answer is not None:
            sums += row.weights[:, np.newaxis] * col.weights * answer
        area = Area(rows=slice(row.core, end_row), cols=slice(col.core, end_col))
        done = sums[:, : end_row - row.core, : end_col - col.core]
        below[:, :, at : at + done.shape[2]] = sums[:, done.shape[1] :, : done.shape[2]]
        left = sums[:, :, done.shape[2] :]
        valid = window.valid[: done.shape[1], : done.shape[2]]
        found = np.moveaxis(np.where(valid, done, np.float32(0)), 0, -1)
        yield Block(area=area, probabilities=found, valid=valid)


def _read(
    source: Source,
    rows: Sequence[AxisWindow],
    cols: Sequence[AxisWindow],
    shape: tuple[int, int],
    max_px: int,
) -> Generator[_Window, None, None]:
    """Yield all windows with their pixels, mirrored at the borders of the scene.

    No pixel of a row of windows is read twice.
    """
    height, width = shape
    at_cols = [mirrored(col.first, col.size, width) for col in cols]
    with source.reading():
        for row in rows:
            at_rows = mirrored(row.first, row.size, height)
            of_row = _Columns(
                read=partial(source.read, _span(at_rows)),
                stop=_span(at_cols[-1]).stop,
                num_at_once=math.ceil(max(row.size, max_px // row.size) / _READS_PER_BATCH),
            )
            for col, at_col in zip(cols, at_cols, strict=True):
                held = of_row.get(_span(at_col))
                yield _window(
                    row, col, {name: _picked(held[name], at_rows, at_col) for name in held}
                )
                # While the next columns are read, only what they share is needed.
                del held


def _window(row: AxisWindow, col: AxisWindow, pixels: Pixels) -> _Window:
    """Return a window with its pixels [H, W, C], without them if none has data."""
    valid = valid_mask({name: values[row.inside, col.inside] for name, values in pixels.items()})
    if valid.any():
        return _Window(row=row, col=col, pixels=pixels, valid=valid)
    # Many such windows may wait for the next one that has data, so they take no memory.
    return _Window(row=row, col=col, pixels={}, valid=np.broadcast_to(np.False_, valid.shape))


@dataclass(kw_only=True)
class _Columns:
    """Columns of some rows, read from left to right.

    Attributes:
        read: returns the pixels of columns.
        stop: end of all columns that will be wanted.
        num_at_once: most columns that one call of `read` gets. So many are also read
            at least, unless the scene ends.
        held: pixels that the next window may want.
        first: column of the first pixel of `held`.
    """

    read: Callable[[slice], Pixels]
    stop: int
    num_at_once: int
    held: dict[Sensor, FloatArray] = field(default_factory=dict)
    first: int = 0

    def get(self, wanted: slice) -> Pixels:
        """Return the pixels of columns, which begin no earlier than those before."""
        for name, values in self.held.items():
            self.held[name] = values[:, wanted.start - self.first :]
        self.first = wanted.start
        end = wanted.start + max((values.shape[1] for values in self.held.values()), default=0)
        if end < wanted.stop:
            self._fill(end, max(wanted.stop, min(self.stop, end + self.num_at_once)))
        return {name: values[:, : wanted.stop - wanted.start] for name, values in self.held.items()}

    def _fill(self, end: int, stop: int) -> None:
        """Hold further columns, from the end of those that are held.

        A reader needs several times the memory of what it returns, so it gets some
        columns at a time.
        """
        held: dict[Sensor, FloatArray] = {}
        for start in range(end, stop, self.num_at_once):
            fresh = self.read(slice(start, min(stop, start + self.num_at_once)))
            at = start - self.first
            for name, values in fresh.items():
                if name not in held:
                    height, _, num_bands = values.shape
                    # Each band is contiguous in memory, as readers give it.
                    planes = np.empty((num_bands, height, stop - self.first), values.dtype)
                    held[name] = np.moveaxis(planes, 0, -1)
                    held[name][:, :at] = self.held.pop(name, values[:, :0])
                held[name][:, at : at + values.shape[1]] = values
        self.held = held


def _span(index: npt.NDArray[np.int64]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)


def _picked(
    values: FloatArray, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the pixels of rows and columns, of which some may be mirrored."""
    if values.shape[:2] == (len(rows), len(cols)):
        return values
    return values[np.ix_(rows - rows.min(), cols - cols.min())]


def valid_mask(pixels: Pixels) -> BoolArray:
    """Return bool [..., H, W], True where all bands of at least one sensor are finite.

    This is the mask inside the models; see `PixelNormalization`.
    """
    # Band by band: reducing the last, short axis would take several times as long.
    masks = [
        np.logical_and.reduce([np.isfinite(band) for band in np.moveaxis(values, -1, 0)])
        for values in pixels.values()
    ]
    return np.logical_or.reduce(masks)


def _batches(windows: Generator[_Window, None, None], max_batch_px: int) -> Iterator[_Batch]:
    """Yield all windows in order, as many of one size together as the model may get."""
    together: list[_Window] = []
    asked: list[_Window] = []
    # The thread that reads must also end the reading, which closes files.
    with closing(windows):
        for window in windows:
            if window.has_data and asked and window.size != asked[0].size:
                yield _batch(together, asked)
                together, asked = [], []
            together.append(window)
            if window.has_data:
                asked.append(window)
            if not asked or (len(asked) + 1) * math.prod(asked[0].size) > max_batch_px:
                yield _batch(together, asked)
                together, asked = [], []
            # Its pixels are not needed while the next ones are read.
            del window
    if together:
        yield _batch(together, asked)


def _batch(together: list[_Window], asked: list[_Window]) -> _Batch:
    pixels = {}
    for sensor in asked[0].pixels if asked else ():
        found = [one.pixels[sensor] for one in asked]
        # Interleaved, as models take them, or each model would copy them again.
        interleaved = memory.empty_aligned((len(found), *found[0].shape))
        pixels[sensor] = np.stack(found, out=interleaved)
    return _Batch(windows=[replace(one, pixels={}) for one in together], pixels=pixels)


def _answers(source: Source, batch: _Batch) -> Iterator[tuple[_Window, FloatArray | None]]:
    """Yield the windows of a batch with the model's answer for their core [K, h, w].

    It is None for windows without data.
    """
    answers = iter(source.model(batch.pixels)) if batch.pixels else iter(())
    for window in batch.windows:
        if not window.has_data:
            yield window, None
            continue
        found = next(answers)[window.row.inside, window.col.inside]
        yield window, np.moveaxis(found, -1, 0)
