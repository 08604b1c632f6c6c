"""Pixels of a patch as images: radar, optical image, and classes in their colours.

Physical values and manifest -> RGB [H, W, 3], 0-1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.contracts.manifest import Manifest

NODATA_COLOR = "#ff00ff"
"""Magenta, which occurs in no land, radar image or class colour."""
TRUE_COLOR = ("B4", "B3", "B2")
GAMMA = 0.8
"""Brightens dark pixels a little, because most land is dark."""
MAX_OVER_MEDIAN = 4.0
"""Upper end of the optical stretch, in medians of the brightest band."""
RATIO_REACH_DB = 6.0
"""Range of the polarization ratio that is shown, on either side of its middle."""

RGB = npt.NDArray[np.float64]


def radar_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """Return the first band of `s1` dB [H, W, C] in grey, no data in magenta.

    It is stretched from the 2nd to the 98th percentile of the train split.
    """
    statistics = manifest.statistics("s1")[0]
    grey = _stretch(s1[..., :1], statistics.p02, statistics.p98)
    return _with_nodata(np.repeat(grey, 3, axis=-1), np.isfinite(s1[..., 0]))


def radar_color_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """Return two polarizations of `s1` dB [H, W, C] in red and green, ratio in blue.

    Each is stretched by the statistics of the train split. A single polarization is
    shown in grey.

    Source of the composite VV, VH, VV / VH: NASA ARSET, "SAR Part 1".
    """
    if len(manifest.bands("s1")) < 2:
        return radar_image(s1, manifest)
    first, second = manifest.statistics("s1")[:2]
    middle = first.p50 - second.p50
    image = np.stack(
        [
            _stretch(s1[..., 0], first.p02, first.p98),
            _stretch(s1[..., 1], second.p02, second.p98),
            # A ratio is a difference in dB.
            _stretch(s1[..., 0] - s1[..., 1], middle - RATIO_REACH_DB, middle + RATIO_REACH_DB),
        ],
        axis=-1,
    )
    return _with_nodata(image, np.isfinite(s1[..., :2]).all(axis=-1))


def optical_image(s2: records.FloatArray, manifest: Manifest) -> RGB:
    """Return `s2` reflectance [H, W, C] in true colour, no data in magenta.

    All three bands have one stretch, so colours keep their hue.
    """
    channels = _color_channels(manifest)
    statistics = [manifest.statistics("s2")[i] for i in channels]
    low = min(band.p02 for band in statistics)
    # Clouds raise the 98th percentile far above land, and land would be black. With the
    # second limit, clouds saturate instead.
    high = min(
        max(band.p98 for band in statistics),
        MAX_OVER_MEDIAN * max(band.p50 for band in statistics),
    )
    picked = s2[..., channels]
    return _with_nodata(_stretch(picked, low, high) ** GAMMA, np.isfinite(picked).all(axis=-1))


def label_image(label: npt.NDArray[np.integer], schema: LabelSchema, ignore_color: str) -> RGB:
    """Return class ids [H, W] in the schema's colours, 255 in `ignore_color`."""
    table = np.tile(to_rgb(ignore_color), (256, 1))
    for class_id, color in schema.colors.items():
        table[class_id] = to_rgb(color)
    return table[np.asarray(label).astype(np.uint8)]


def _color_channels(manifest: Manifest) -> list[int]:
    # Without the visible bands, the first three bands are shown.
    bands = manifest.bands("s2")
    names = TRUE_COLOR if set(TRUE_COLOR) <= set(bands) else bands[:3]
    channels = [bands.index(name) for name in names]
    return (channels * 3)[:3] if len(channels) < 3 else channels


def color_image(sensor: Sensor, pixels: records.FloatArray, manifest: Manifest) -> RGB:
    """Return physical values [H, W, C] of one sensor in colours, no data in magenta."""
    image = {"s1": radar_color_image, "s2": optical_image}[sensor]
    return image(pixels, manifest)


def color_name(sensor: Sensor, manifest: Manifest) -> str:
    """Return what the colours of `color_image` are: its bands, or true colour."""
    if sensor == "s1":
        first, *others = manifest.bands("s1")
        return f"{first}, {others[0]}, {first}-{others[0]}" if others else first
    names = "/".join(manifest.bands("s2")[i] for i in _color_channels(manifest))
    return f"true colour {names}" if names == "/".join(TRUE_COLOR) else names


def _stretch(pixels: records.FloatArray, low: float, high: float) -> RGB:
    # NaN becomes 0 here; `_with_nodata` paints it magenta.
    return np.clip(np.nan_to_num((pixels - low) / max(high - low, 1e-6)), 0.0, 1.0).astype(
        np.float64
    )


def _with_nodata(image: RGB, valid_mask: npt.NDArray[np.bool_]) -> RGB:
    return np.where(valid_mask[..., None], image, np.array(to_rgb(NODATA_COLOR)))
