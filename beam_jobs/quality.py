"""Quality: whether a patch is kept, and its score. Pure functions over pixels and masks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from beam_jobs.config import PairingConfig, QualityConfig
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.records import FloatArray, valid_fraction


def cloud_fraction(cloud_mask: npt.NDArray[np.bool_] | None, s2: FloatArray, scene_cloud_fraction: float) -> float:
    """Share of cloud among the valid Sentinel-2 pixels of a patch, 0-1.

    Args:
        cloud_mask: bool [H, W], True = cloud; None when the source has no mask.
        s2: reflectance float32 [H, W, C], NaN = no data.
        scene_cloud_fraction: what the catalog says of the whole scene, the answer when there is no mask; NaN = unknown.
    """
    if cloud_mask is None:
        return scene_cloud_fraction
    valid_mask = np.isfinite(s2).all(axis=-1)
    return float(cloud_mask[valid_mask].mean()) if valid_mask.any() else 0.0


def refusal(s1: FloatArray, s2: FloatArray, clouds: float, config: QualityConfig) -> tuple[str, str] | None:
    """(reason, detail) why a patch is not kept, or None when it is."""
    for sensor, pixels in (("s1", s1), ("s2", s2)):
        valid = valid_fraction(pixels)
        if valid < config.min_valid_fraction:
            return f"{sensor}_no_data", f"valid fraction {valid:.3f} is below {config.min_valid_fraction:g}"
    # A NaN compares False: a patch whose source tells nothing of clouds is kept.
    if clouds > config.max_cloud_fraction:
        return "cloudy", f"cloud fraction {clouds:.3f} is above {config.max_cloud_fraction:g}"
    return None


def label_refusal(label: npt.NDArray[np.uint8], min_labeled_fraction: float) -> tuple[str, str] | None:
    """(reason, detail) when too few pixels of uint8 [H, W] have a label other than 255."""
    labeled = float((label != IGNORE).mean())
    if labeled < min_labeled_fraction:
        return "unlabeled", f"labelled fraction {labeled:.3f} is below {min_labeled_fraction:g}"
    return None


def score(s1: FloatArray, s2: FloatArray, clouds: float, time_gap_hours: float, config: PairingConfig) -> float:
    """Quality of a pair, 0-1: valid share of the worse sensor x cloud-free share x closeness in time.

    Closeness falls linearly from 1 at no gap to 0.5 at the largest gap allowed; unknown cloud counts as none.
    """
    valid = min(valid_fraction(s1), valid_fraction(s2))
    clear = 1.0 if math.isnan(clouds) else 1.0 - clouds
    closeness = 1.0 - 0.5 * min(abs(time_gap_hours) / config.max_time_gap_hours, 1.0)
    return valid * clear * closeness
