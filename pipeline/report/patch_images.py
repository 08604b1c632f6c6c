"""Pixels of a patch as images: radar in grey or colours, true colour, class ids in their schema's colours.

Physical values and manifest -> RGB [H, W, 3], 0-1. Called by the pictures of tasks and
of neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb

from beam_jobs.contracts import records
from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.contracts.manifest import Manifest

NODATA_COLOR = "#ff00ff"
"""Magenta: no land, no radar image and no class has it."""
TRUE_COLOR = ("B4", "B3", "B2")
GAMMA = 0.8
"""Lifts the dark end a little, where land is."""
MAX_OVER_MEDIAN = 4.0
"""White of the optical image is at most this many times the brightest band's median reflectance."""
RATIO_REACH_DB = 6.0
"""How far the ratio of two polarizations is shown on either side of its middle."""

RGB = npt.NDArray[np.float64]


def radar_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """First band of `s1` dB [H, W, C] in grey, from the train split's 2nd to 98th percentile; no data in magenta."""
    statistics = manifest.s1_statistics[0]
    grey = _stretch(s1[..., :1], statistics.p02, statistics.p98)
    return _with_nodata(np.repeat(grey, 3, axis=-1), np.isfinite(s1[..., 0]))


def radar_color_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """Two polarizations of `s1` dB [H, W, C] in red and green, their ratio in blue, each stretched; one alone in grey.

    Source of the composite VV, VH, VV / VH: NASA ARSET, "SAR Part 1"; the stretch is by
    the statistics of the train split.
    """
    if len(manifest.s1_bands) < 2:
        return radar_image(s1, manifest)
    first, second = manifest.s1_statistics[:2]
    middle = first.p50 - second.p50
    image = np.stack(
        [
            _stretch(s1[..., 0], first.p02, first.p98),
            _stretch(s1[..., 1], second.p02, second.p98),
            # In dB a ratio is a difference.
            _stretch(s1[..., 0] - s1[..., 1], middle - RATIO_REACH_DB, middle + RATIO_REACH_DB),
        ],
        axis=-1,
    )
    return _with_nodata(image, np.isfinite(s1[..., :2]).all(axis=-1))


def optical_image(s2: records.FloatArray, manifest: Manifest) -> RGB:
    """True colour of `s2` reflectance [H, W, C], one stretch for all three bands so that colours keep their hue."""
    channels = _color_channels(manifest)
    low = min(manifest.s2_statistics[i].p02 for i in channels)
    # Clouds lift the 98th percentile far above land, which would leave land black: they
    # may saturate instead.
    high = min(
        max(manifest.s2_statistics[i].p98 for i in channels),
        MAX_OVER_MEDIAN * max(manifest.s2_statistics[i].p50 for i in channels),
    )
    picked = s2[..., channels]
    return _with_nodata(_stretch(picked, low, high) ** GAMMA, np.isfinite(picked).all(axis=-1))


def label_image(label: npt.NDArray[np.integer], schema: LabelSchema, ignore_color: str) -> RGB:
    """Class ids [H, W] in the schema's colours, 255 in `ignore_color`."""
    table = np.tile(to_rgb(ignore_color), (256, 1))
    for class_id, color in schema.colors.items():
        table[class_id] = to_rgb(color)
    return table[np.asarray(label).astype(np.uint8)]


def _color_channels(manifest: Manifest) -> list[int]:
    # A run without the visible bands still gets a picture: of its first three bands.
    names = TRUE_COLOR if set(TRUE_COLOR) <= set(manifest.s2_bands) else manifest.s2_bands[:3]
    channels = [manifest.s2_bands.index(name) for name in names]
    return (channels * 3)[:3] if len(channels) < 3 else channels


def color_name(manifest: Manifest) -> str:
    """What `optical_image` shows: its bands, and whether they are true colour."""
    names = "/".join(manifest.s2_bands[i] for i in _color_channels(manifest))
    return f"true colour {names}" if names == "/".join(TRUE_COLOR) else names


def _stretch(pixels: records.FloatArray, low: float, high: float) -> RGB:
    # NaN becomes 0 here and magenta later.
    return np.clip(np.nan_to_num((pixels - low) / max(high - low, 1e-6)), 0.0, 1.0).astype(
        np.float64
    )


def _with_nodata(image: RGB, valid_mask: npt.NDArray[np.bool_]) -> RGB:
    return np.where(valid_mask[..., None], image, np.array(to_rgb(NODATA_COLOR)))
