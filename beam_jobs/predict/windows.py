"""Windows: which parts of a scene a model sees, and how their answers join.

Pure geometry. Input: the length of a scene along one axis. Output: its windows. A
window is wider than the pixels that it answers for: the margin on each side only gives
the model its surroundings. Answers of neighbours overlap by `blend_px`, where one fades
out as the other fades in. Beyond the scene's border the pixels are mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AxisWindow:
    """One window along one axis. All numbers are in pixels of the scene.

    Attributes:
        first: first pixel that the model sees; below 0 where the scene is mirrored.
        size: number of pixels that the model sees.
        core: first pixel that the window answers for.
        weights: float32 [n], the window's share in the answer for the pixels `core` to
            `core + n - 1`. Over all windows the shares of a pixel add up to 1.
        margin_px: pixels on each side that the model sees at least, and that the window
            does not answer for.
        stride: of the model; `first` and `size` are multiples of it.
    """

    first: int
    size: int
    core: int
    weights: FloatArray
    margin_px: int
    stride: int

    @property
    def end(self) -> int:
        """The first pixel after those that the window answers for."""
        return self.core + len(self.weights)

    @property
    def inside(self) -> slice:
        """The part of the model's output that the window answers for."""
        return slice(self.core - self.first, self.end - self.first)

    def within(self, wanted: slice) -> AxisWindow | None:
        """Return the window for those of its pixels that are wanted, None if none is.

        It is as small as the margin allows.
        """
        core, end = max(self.core, wanted.start), min(self.end, wanted.stop)
        if core >= end:
            return None
        first = self.first + (core - self.core) // self.stride * self.stride
        size = math.ceil((end + self.margin_px - first) / self.stride) * self.stride
        weights = self.weights[core - self.core : end - self.core]
        return replace(self, first=first, size=size, core=core, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Size and overlap of the windows.

    A model of a stride gives the same answer in a window as in one pass over the whole
    scene if windows begin at multiples of the stride, and if the margin is at least
    half its receptive field. So all three numbers are multiples of the stride.

    Attributes:
        size_px: side of a window.
        margin_px: pixels on each side that a window does not answer for.
        blend_px: overlap of the answers of neighbours.
    """

    size_px: int
    margin_px: int
    blend_px: int

    def check(self, stride: int) -> None:
        """Refuse numbers that do not fit a model of `stride`.

        Raises:
            ValueError: with the rule and the value, in one line.
        """
        for name in ("size_px", "margin_px", "blend_px"):
            value = getattr(self, name)
            if value < 0 or value % stride:
                raise ValueError(
                    f"{name} must be a multiple of the model's stride {stride}, got {value}"
                )
        # Three windows must not meet in one pixel: then shares would not add up to 1.
        if self.core_px < max(2 * self.blend_px, 1):
            raise ValueError(
                f"size_px must be at least 2 * margin_px + 2 * blend_px, and larger than "
                f"2 * margin_px, got {self.size_px} with margin_px {self.margin_px} and "
                f"blend_px {self.blend_px}"
            )

    @property
    def core_px(self) -> int:
        """Number of pixels along an axis that a window answers for."""
        return self.size_px - 2 * self.margin_px

    @property
    def step_px(self) -> int:
        """Distance from one window to the next."""
        return self.core_px - self.blend_px

    def windows(self, length: int, stride: int) -> list[AxisWindow]:
        """Return the windows of an axis of `length` pixels.

        The last one answers for what is left. It is as small as the margin allows.
        """
        count = self._count(length)
        whole = slice(0, length)
        found = [self._window(number, count, stride).within(whole) for number in range(count)]
        return [window for window in found if window is not None]

    def _count(self, length: int) -> int:
        """Return the number of windows of an axis."""
        return math.ceil(max(0, length - self.core_px) / self.step_px) + 1

    def _window(self, number: int, count: int, stride: int) -> AxisWindow:
        weights = np.ones(self.core_px, np.float32)
        if self.blend_px:
            fade = _fade(self.blend_px)
            if number > 0:
                weights[: self.blend_px] = fade
            if number < count - 1:
                weights[-self.blend_px :] = 1.0 - fade
        core = number * self.step_px
        return AxisWindow(
            first=core - self.margin_px,
            size=self.size_px,
            core=core,
            weights=weights,
            margin_px=self.margin_px,
            stride=stride,
        )

    def cuts(self, length: int, part_px: int) -> list[int]:
        """Return where an axis is cut into parts that are predicted one by one.

        A cut lies where the answer of one window ends. So only the next window is
        needed on both sides, and above the cut only for the pixels that are shared.
        Parts have nearly the same number of windows.

        Args:
            length: of the axis.
            part_px: wanted length of a part.

        Returns:
            The first pixel of each part, and `length`.
        """
        count = self._count(length)
        num_parts = max(1, round(count / math.ceil(part_px / self.step_px)))
        numbers = (number * count // num_parts for number in range(1, num_parts))
        return [0, *(number * self.step_px + self.blend_px for number in numbers), length]


def _fade(num_px: int) -> FloatArray:
    """Return the rising half of a Hann window: from nearly 0 to nearly 1.

    Source: Harris 1978, On the use of windows for harmonic analysis, Proc. IEEE 66.
    """
    return (np.sin(0.5 * np.pi * (np.arange(num_px) + 0.5) / num_px) ** 2).astype(np.float32)


def mirrored(first: int, size: int, length: int) -> npt.NDArray[np.int64]:
    """Return the pixels of a scene that a window sees, mirrored at the scene's borders.

    The border pixel itself is not repeated. A short scene is mirrored several times.

    Args:
        first: first pixel of the window; may be below 0.
        size: number of pixels.
        length: of the scene along the axis.
    """
    period = max(2 * (length - 1), 1)
    position = np.abs(np.arange(first, first + size)) % period
    return np.minimum(position, period - position) if length > 1 else np.zeros(size, np.int64)
