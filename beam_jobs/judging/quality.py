"""Quality: whether a patch is kept, its score and its weight in training.

Input: pixels and masks of a patch. Output: Parts, refusals and scores. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from beam_jobs.config import LabelConfig, PairingConfig, QualityConfig
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.reasons import Reason, Refusal
from beam_jobs.contracts.records import FloatArray, valid_fraction
from beam_jobs.judging.registration import MAX_SHIFT_PX

EDGE_NOISE_DB = -40.0
"""Backscatter below this, near no data, is noise of the swath's edge.

The sensor's noise floor lies at about -22 dB.

Source: Sentinel-1 IW noise-equivalent sigma zero of -22 dB (ESA, Sentinel-1 SAR
Technical Guide); artefacts at the border: Ali et al. 2018, doi
10.1109/JSTARS.2017.2787650.
"""
EDGE_REACH_PX = 10
"""Largest distance of edge noise from no data.

Dark pixels further away are smooth water.
"""
SATURATED_REFLECTANCE = 6.45
"""A pixel from here on is saturated: it is at the top of uint16.

65535 is a reflectance of 6.5535, and of 6.4535 where the offset of 1000 was removed.
"""


@dataclass(frozen=True)
class _Limit:
    """The most that a fraction of a patch may be; `what` names it in the detail."""

    reason: Reason
    what: str
    value: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Measurements of a patch, from which its score and every refusal are computed.

    Attributes:
        s1_valid_fraction: share of Sentinel-1 pixels with data in every band, 0-1; NaN
            = there is no such scene.
        s2_valid_fraction: the same for Sentinel-2.
        cloud_fraction: share of cloud among the valid Sentinel-2 pixels, 0-1; NaN =
            unknown.
        edge_noise_fraction: share of the valid Sentinel-1 pixels that are noise of the
            swath's edge, 0-1.
        saturated_fraction: share of the valid Sentinel-2 pixels that are saturated,
            0-1.
        time_gap_hours: Sentinel-2 minus Sentinel-1.
        offset_px: measured shift between the two images, pixels; NaN = unknown.
    """

    s1_valid_fraction: float
    s2_valid_fraction: float
    cloud_fraction: float
    edge_noise_fraction: float
    saturated_fraction: float
    time_gap_hours: float
    offset_px: float = math.nan


def measure(s1: FloatArray, s2: FloatArray, clouds: float, time_gap_hours: float) -> Parts:
    """Return the parts of a patch except its shift, which is measured last.

    The shift costs most, so it is measured only for patches that are otherwise kept.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        clouds: result of `cloud_fraction`.
        time_gap_hours: Sentinel-2 minus Sentinel-1.
    """
    return Parts(
        s1_valid_fraction=valid_fraction(s1),
        s2_valid_fraction=valid_fraction(s2),
        cloud_fraction=clouds,
        edge_noise_fraction=edge_noise_fraction(s1),
        saturated_fraction=saturated_fraction(s2),
        time_gap_hours=time_gap_hours,
    )


def without_unused(parts: Parts, label: LabelConfig | None) -> Parts:
    """Return the parts that judge a patch: those of the sensors that tasks use.

    Gaps, noise and saturation of a sensor that no task uses say nothing about the patch
    (NaN, or 0). Its clouds still count if the label was made from its scene, which may
    show the cloud in place of the ground.

    Args:
        parts: of the patch.
        label: config of the label; None = the patch is for pretraining, which uses
            both sensors.
    """
    if label is None or not label.sensors:
        return parts
    if "s1" not in label.sensors:
        parts = replace(parts, s1_valid_fraction=math.nan, edge_noise_fraction=0.0)
    if "s2" not in label.sensors:
        parts = replace(parts, s2_valid_fraction=math.nan, saturated_fraction=0.0)
        if label.label_from != "s2":
            parts = replace(parts, cloud_fraction=math.nan)
    return parts if len(label.sensors) > 1 else replace(parts, offset_px=math.nan)


def cloud_fraction(
    cloud_mask: npt.NDArray[np.bool_] | None, s2: FloatArray, scene_cloud_fraction: float
) -> float:
    """Return the share of cloud among a patch's valid Sentinel-2 pixels, 0-1.

    Args:
        cloud_mask: bool [H, W], True = cloud; None when the source has no mask.
        s2: reflectance float32 [H, W, C], NaN = no data.
        scene_cloud_fraction: the catalog's value for the whole scene, returned when
            there is no mask; NaN = unknown.
    """
    if cloud_mask is None:
        return scene_cloud_fraction
    finite = np.isfinite(s2)
    if finite.all():
        return float(cloud_mask.mean())
    valid_mask = finite.all(axis=-1)
    return float(cloud_mask[valid_mask].mean()) if valid_mask.any() else 0.0


def refusal(parts: Parts, config: QualityConfig) -> Refusal | None:
    """Return (reason, detail) if a patch is not kept, else None.

    Shift, label and score are judged by the other functions.
    """
    # NaN compares False: a patch with unknown cloud cover is kept, and so is a patch
    # without the other sensor.
    fractions: dict[Reason, float] = {
        "s1_no_data": parts.s1_valid_fraction,
        "s2_no_data": parts.s2_valid_fraction,
    }
    for reason, valid in fractions.items():
        if valid < config.min_valid_fraction:
            return reason, f"valid fraction {valid:.3f} is below {config.min_valid_fraction:g}"
    limits: tuple[_Limit, ...] = (
        _Limit("cloudy", "cloud", parts.cloud_fraction, config.max_cloud_fraction),
        _Limit(
            "edge_noise", "edge noise", parts.edge_noise_fraction, config.max_edge_noise_fraction
        ),
        _Limit("saturated", "saturated", parts.saturated_fraction, config.max_saturated_fraction),
    )
    for limit in limits:
        if limit.value > limit.most:
            detail = f"{limit.what} fraction {limit.value:.3f} is above {limit.most:g}"
            return limit.reason, detail
    return None


def edge_noise_fraction(s1: FloatArray) -> float:
    """Return the share of valid pixels that are noise of the swath's edge, 0-1.

    Such a pixel is below EDGE_NOISE_DB in any polarization, and within EDGE_REACH_PX of
    no data.

    Args:
        s1: backscatter float32 [H, W, C], dB, NaN = no data.
    """
    if np.isfinite(s1).all():
        return 0.0
    valid_mask = np.isfinite(s1).all(axis=-1)
    dark = valid_mask & (np.where(valid_mask[..., None], s1, 0.0) < EDGE_NOISE_DB).any(axis=-1)
    # The dilation is slow: skip it if no pixel is dark enough.
    if not dark.any():
        return 0.0
    beside_edge = ndimage.binary_dilation(
        ~valid_mask, np.ones((3, 3), bool), iterations=EDGE_REACH_PX
    )
    return float((dark & beside_edge).sum() / valid_mask.sum())


def saturated_fraction(s2: FloatArray) -> float:
    """Return the share of valid pixels that are saturated in any band, 0-1.

    Args:
        s2: reflectance float32 [H, W, C], NaN = no data.
    """
    # Fast path for nearly every patch; NaN compares False.
    if not (s2 >= SATURATED_REFLECTANCE).any():
        return 0.0
    valid_mask = np.isfinite(s2).all(axis=-1)
    saturated = (s2[valid_mask] >= SATURATED_REFLECTANCE).any(axis=-1)
    return float(saturated.mean()) if saturated.size else 0.0


def offset_refusal(offset_px: float, max_offset_px: float | None) -> Refusal | None:
    """Return (reason, detail) if the measured shift is too long, else None.

    An `offset_px` of NaN means not measured, and is kept.
    """
    if max_offset_px is not None and offset_px > max_offset_px:
        return (
            "misregistered",
            f"Sentinel-2 lies {offset_px:.2f} px beside Sentinel-1, more than {max_offset_px:g}",
        )
    return None


def label_refusal(label: npt.NDArray[np.uint8], min_labeled_fraction: float) -> Refusal | None:
    """Return (reason, detail) if too few pixels have a label, else None.

    Args:
        label: uint8 [H, W]; 255 is no label.
        min_labeled_fraction: least share of pixels with a label, 0-1.
    """
    labeled = float((label != IGNORE).mean())
    if labeled < min_labeled_fraction:
        return "unlabeled", f"labelled fraction {labeled:.3f} is below {min_labeled_fraction:g}"
    return None


def label_kind_refusal(is_weak: bool, weak_only: bool, split: str | None) -> Refusal | None:
    """Return (reason, detail) if a patch's split does not use its kind of label.

    Weak labels are never in eval or test. If weak labels alone are for training
    (`weak_only`), labels drawn by hand are not in train.
    """
    if is_weak and split not in (None, "train"):
        return (
            "weak_label_judged",
            f"its label is weak and its split {split}; weak labels are for train only",
        )
    if weak_only and not is_weak and split == "train":
        return (
            "hand_label_in_train",
            "its label is drawn by hand; label.weak_only trains on weak ones alone",
        )
    return None


def score(parts: Parts, pairing: PairingConfig, config: QualityConfig) -> float:
    """Return the quality of a pair, 0-1.

    The score is a product, so it never rises when a part gets worse:

    score = valid x clear x clean x unsaturated x closeness x alignment

    - valid: the smaller valid fraction of the two sensors.
    - clear: 1 - cloud_fraction.
    - clean: 1 - edge_noise_fraction.
    - unsaturated: 1 - saturated_fraction.
    - closeness: falls linearly from 1 at no time gap to 0.5 at the largest gap allowed.
    - alignment: falls linearly from 1 at no shift to 0 at `max_offset_px`, or at
      MAX_SHIFT_PX where every shift is kept.

    An unknown (NaN) cloud fraction or shift counts as none. If one sensor has no scene
    (NaN valid fraction), the score is that of the other image.
    """
    clear = 1.0 if math.isnan(parts.cloud_fraction) else 1.0 - parts.cloud_fraction
    closeness = 1.0 - 0.5 * min(abs(parts.time_gap_hours) / pairing.max_time_gap_hours, 1.0)
    longest = MAX_SHIFT_PX if config.max_offset_px is None else config.max_offset_px
    alignment = 1.0 if math.isnan(parts.offset_px) else max(1.0 - parts.offset_px / longest, 0.0)
    unspoilt = (1.0 - parts.edge_noise_fraction) * (1.0 - parts.saturated_fraction)
    valid = float(np.fmin(parts.s1_valid_fraction, parts.s2_valid_fraction))
    return valid * clear * unspoilt * closeness * alignment


def weight(quality: float, config: QualityConfig) -> float:
    """Return the weight of a pair in training, 0-1.

    It is 1 from `full_weight_quality` on, and proportional to the score below.
    """
    return min(quality / config.full_weight_quality, 1.0)


def score_refusal(quality: float, config: QualityConfig) -> Refusal | None:
    """Return (reason, detail) if the score is below `min_quality`, else None."""
    if quality < config.min_quality:
        return "low_quality", f"score {quality:.3f} is below {config.min_quality:g}"
    return None
