"""Quality: whether a patch is kept, and its score. Pure functions over pixels and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from beam_jobs.config import PairingConfig, QualityConfig
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.reasons import Reason, Refusal
from beam_jobs.contracts.records import FloatArray, valid_fraction
from beam_jobs.judging.registration import MAX_SHIFT_PX

EDGE_NOISE_DB = -40.0
"""Backscatter below it, beside no data, is noise of the swath's edge: the sensor's noise floor lies at about -22 dB.

Source: Sentinel-1 IW noise-equivalent sigma zero of -22 dB (ESA, Sentinel-1 SAR
Technical Guide); the border's artefacts: Ali et al. 2018, doi
10.1109/JSTARS.2017.2787650.
"""
EDGE_REACH_PX = 10
"""How far from no data edge noise is looked for; further away such dark pixels are smooth water."""
SATURATED_REFLECTANCE = 6.45
"""From here on a pixel sits at the top of uint16: 65535 is 6.5535, and 6.4535 where the offset of 1000 was taken away."""


@dataclass(frozen=True)
class _Limit:
    """The most that a fraction of a patch may be; `what` names it in the detail."""

    reason: Reason
    what: str
    value: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is measured of a patch; the score and every decision come from it alone.

    Attributes:
        s1_valid_fraction: share of Sentinel-1 pixels with data in every band, 0-1; NaN
            = there is no such scene.
        s2_valid_fraction: likewise of Sentinel-2.
        cloud_fraction: share of cloud among the valid Sentinel-2 pixels, 0-1; NaN =
            unknown.
        edge_noise_fraction: share of the valid Sentinel-1 pixels that are noise of the
            swath's edge, 0-1.
        saturated_fraction: share of the valid Sentinel-2 pixels that are saturated,
            0-1.
        time_gap_hours: Sentinel-2 minus Sentinel-1.
        offset_px: measured shift between the two, pixels; NaN = unknown.
    """

    s1_valid_fraction: float
    s2_valid_fraction: float
    cloud_fraction: float
    edge_noise_fraction: float
    saturated_fraction: float
    time_gap_hours: float
    offset_px: float = math.nan


def measure(s1: FloatArray, s2: FloatArray, clouds: float, time_gap_hours: float) -> Parts:
    """The parts of a patch but for its shift, which costs most and is measured last.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        clouds: what `cloud_fraction` says.
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


def cloud_fraction(
    cloud_mask: npt.NDArray[np.bool_] | None, s2: FloatArray, scene_cloud_fraction: float
) -> float:
    """Share of cloud among the valid Sentinel-2 pixels of a patch, 0-1.

    Args:
        cloud_mask: bool [H, W], True = cloud; None when the source has no mask.
        s2: reflectance float32 [H, W, C], NaN = no data.
        scene_cloud_fraction: what the catalog says of the whole scene, the answer when
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
    """(reason, detail) why a patch is not kept, or None when it is; its shift and score are judged later."""
    # A NaN compares False: a patch whose source tells nothing of clouds is kept, and so
    # is one without the other sensor.
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
    """Share of the valid pixels of backscatter float32 [H, W, C] (dB, NaN = no data) that are noise of the swath's edge.

    Such a pixel is below EDGE_NOISE_DB in any polarization and lies within
    EDGE_REACH_PX of no data.
    """
    if np.isfinite(s1).all():
        return 0.0
    valid_mask = np.isfinite(s1).all(axis=-1)
    dark = valid_mask & (np.where(valid_mask[..., None], s1, 0.0) < EDGE_NOISE_DB).any(axis=-1)
    # Only where an edge can be is it looked for.
    if not dark.any():
        return 0.0
    beside_edge = ndimage.binary_dilation(
        ~valid_mask, np.ones((3, 3), bool), iterations=EDGE_REACH_PX
    )
    return float((dark & beside_edge).sum() / valid_mask.sum())


def saturated_fraction(s2: FloatArray) -> float:
    """Share of the valid pixels of reflectance float32 [H, W, C] (NaN = no data) that are saturated in any band."""
    # NaN is above nothing, so nearly every patch ends here.
    if not (s2 >= SATURATED_REFLECTANCE).any():
        return 0.0
    valid_mask = np.isfinite(s2).all(axis=-1)
    saturated = (s2[valid_mask] >= SATURATED_REFLECTANCE).any(axis=-1)
    return float(saturated.mean()) if saturated.size else 0.0


def offset_refusal(offset_px: float, max_offset_px: float | None) -> Refusal | None:
    """(reason, detail) when the measured shift in pixels is too long; NaN = not measured, which is no reason."""
    if max_offset_px is not None and offset_px > max_offset_px:
        return (
            "misregistered",
            f"Sentinel-2 lies {offset_px:.2f} px beside Sentinel-1, more than {max_offset_px:g}",
        )
    return None


def label_refusal(label: npt.NDArray[np.uint8], min_labeled_fraction: float) -> Refusal | None:
    """(reason, detail) when too few pixels of uint8 [H, W] have a label other than 255."""
    labeled = float((label != IGNORE).mean())
    if labeled < min_labeled_fraction:
        return "unlabeled", f"labelled fraction {labeled:.3f} is below {min_labeled_fraction:g}"
    return None


def label_kind_refusal(is_weak: bool, weak_only: bool, split: str | None) -> Refusal | None:
    """(reason, detail) when a patch's split has no use for its kind of label.

    Nothing is measured on weak labels; where they alone are to train, those drawn by
    hand do not.
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
    """Quality of a pair, 0-1: the product of what each part leaves of it, so it never rises when a part gets worse.

    score = valid x clear x clean x unsaturated x closeness x alignment, where valid =
    the smaller valid fraction of the two sensors, clear = 1 - cloud_fraction, clean = 1
    - edge_noise_fraction, unsaturated = 1 - saturated_fraction, closeness falls
    linearly from 1 at no gap to 0.5 at the largest gap allowed, alignment falls
    linearly from 1 at no shift to 0 at the longest that is kept, or that is looked for
    where all are kept. An unknown (NaN) cloud fraction or shift counts as none: what
    cannot be told is no fault of the patch. Nor is a sensor without a scene (NaN valid
    fraction): the score is then that of the other sensor's image.
    """
    clear = 1.0 if math.isnan(parts.cloud_fraction) else 1.0 - parts.cloud_fraction
    closeness = 1.0 - 0.5 * min(abs(parts.time_gap_hours) / pairing.max_time_gap_hours, 1.0)
    longest = MAX_SHIFT_PX if config.max_offset_px is None else config.max_offset_px
    alignment = 1.0 if math.isnan(parts.offset_px) else max(1.0 - parts.offset_px / longest, 0.0)
    unspoilt = (1.0 - parts.edge_noise_fraction) * (1.0 - parts.saturated_fraction)
    valid = float(np.fmin(parts.s1_valid_fraction, parts.s2_valid_fraction))
    return valid * clear * unspoilt * closeness * alignment


def weight(quality: float, config: QualityConfig) -> float:
    """What a pair of a score counts in training, 0-1: in full from `full_weight_quality` on, in proportion below it."""
    return min(quality / config.full_weight_quality, 1.0)


def score_refusal(quality: float, config: QualityConfig) -> Refusal | None:
    """(reason, detail) when the score is too low to be kept at any weight."""
    if quality < config.min_quality:
        return "low_quality", f"score {quality:.3f} is below {config.min_quality:g}"
    return None
