"""Draw the clouds and cloud shadows of one scene.

Input: random stream, size and latitude. Output: `Clouds`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.simulation.fields import FloatArray, fractal_field

CLEAR_PROBABILITY = 0.4
MAX_COVER_FRACTION = 0.35
MASK_OPACITY = 0.2
"""A pixel of at least this opacity counts as cloud."""


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """Clouds of one scene.

    Attributes:
        opacity: float32 [H, W], 0 clear to 1 opaque.
        shadow: float32 [H, W], 0 sunlit to 1 fully shaded.
        brightness: factor on the cloud's spectrum.
    """

    opacity: FloatArray
    shadow: FloatArray
    brightness: float

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Cloud mask bool [H, W], True = cloud; shadows are not cloud."""
        return self.opacity >= MASK_OPACITY


def draw_clouds(rng: np.random.Generator, size_px: int, latitude_degrees: float) -> Clouds:
    """Draw the clouds of a scene: none, or ragged clouds over up to 35 % of it.

    The shadows lie on the side away from the sun.

    Args:
        rng: stream of this scene's clouds.
        size_px: height and width.
        latitude_degrees: gives the direction of the sun at 10:30: south-east in the
            northern hemisphere, north-east in the southern one.
    """
    is_clear = rng.random() < CLEAR_PROBABILITY
    cover = rng.uniform(0.01, MAX_COVER_FRACTION)
    distance_px = rng.uniform(0.03, 0.09) * min(size_px, 512)
    brightness = float(rng.uniform(0.8, 1.15))
    if is_clear:
        empty = np.zeros((size_px, size_px), np.float32)
        return Clouds(opacity=empty, shadow=empty, brightness=brightness)
    field = fractal_field(rng, size_px, min(110.0, size_px / 2.5), num_octaves=6, persistence=0.62)
    edge = np.float32(np.quantile(field[::2, ::2], 1 - cover))
    opacity = np.clip((field - edge) / np.float32(0.5) + np.float32(MASK_OPACITY), 0.0, 1.0)
    # The shadow falls away from the sun: to the north-west in the northern hemisphere
    # (up and left), to the south-west in the southern one.
    down = -distance_px if latitude_degrees >= 0 else distance_px
    shadow = _shift(opacity, round(down), round(-distance_px)) * (1 - opacity)
    return Clouds(opacity=opacity, shadow=shadow, brightness=brightness)


def _shift(field: FloatArray, down_px: int, right_px: int) -> FloatArray:
    """Return `field` moved by whole pixels, with 0 where nothing moves in."""
    height, width = field.shape
    result = np.zeros_like(field)
    rows, columns = (
        slice(max(0, down_px), height + min(0, down_px)),
        slice(max(0, right_px), width + min(0, right_px)),
    )
    from_rows = slice(max(0, -down_px), height - max(0, down_px))
    from_columns = slice(max(0, -right_px), width - max(0, right_px))
    result[rows, columns] = field[from_rows, from_columns]
    return result
