"""The comparison: summaries of reference and new data -> findings.

All rules are about the size of a change, not about its significance: with enough
patches, every change is significant. A limit grows by the standard errors of both
figures, so that few scenes do not cause a refusal. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from beam_jobs.contracts.bands import PIXEL_FORMATS, SENSORS, Sensor
from models.drift.config import SENSOR_RULES, DriftConfig, Rule
from models.drift.report import Finding
from models.drift.summary import BandSummary, DataSummary

FloatArray = npt.NDArray[np.float64]

LEAST_SPREAD: dict[Sensor, float] = {"s1": 3.0, "s2": 0.08}
"""Smallest unit of shifts, dB or reflectance: data of one kind of ground spread less.

Speckle alone spreads backscatter by 2.2 dB (`beam_jobs/scenes/plausibility.py`). 0.08
is the spread of B1 in SSL4EO-S12, clouds included. Source:
https://github.com/zhu-xlab/SSL4EO-S12, means and standard deviations of the data set.
"""
LEAST_GAP_HOURS = 12.0
"""Smallest unit of shifts of time gaps: the distance of morning and evening passes."""
NO_DATA_FLOOR = 0.01
"""Additional share of pixels without data that always passes."""
MIN_STD = 1e-3
"""Smallest standard deviation in a ratio, dB or reflectance."""
CO_POLARIZED: dict[str, str] = {"VH": "VV", "HV": "HH"}
_CONFIDENCE = 0.999
_ERROR_OVER_MEAN = {"mean": 1.0, "median": 1.25, "tails": 2.9}
"""Standard error of a quantile in units of that of the mean, for a normal distribution.

Source: sqrt(q (1 - q)) / density at the quantile, for 50 % and 2 %.
"""


def why_incomparable(reference: DataSummary, new: DataSummary) -> str | None:
    """Return how the data differ in kind, with both values; None: they do not."""
    for what, old, now in (
        ("kind of shards", reference.kind, new.kind),
        *(
            (
                f"bands of {sensor}",
                ", ".join(one.band for one in reference.bands[sensor]),
                ", ".join(one.band for one in new.bands[sensor]),
            )
            for sensor in SENSORS
        ),
        (
            "Sentinel-2 processing level",
            reference.s2_processing_level,
            new.s2_processing_level,
        ),
        ("pixel size in metres", reference.pixel_size_m, new.pixel_size_m),
        ("classes", _names(reference), _names(new)),
    ):
        if old != now:
            return f"the reference has the {what} {old}, the new data {now}"
    return None


def compare(reference: DataSummary, new: DataSummary, config: DriftConfig) -> list[Finding]:
    """Return the findings of all rules about figures, but those that are off.

    Args:
        reference: of the data that the model in service was trained on.
        new: of the new data, which must be comparable.
        config: limits and severities.
    """
    found: list[Finding] = []
    for sensor in SENSORS:
        found += _compare_bands(reference, new, sensor, config)
        found += _compare_no_data(reference, new, sensor, config)
    found += _compare_darkest(reference, new, config)
    found += _compare_polarizations(reference, new, config)
    found += _compare_classes(reference, new, config)
    found += _compare_time_gap(reference, new, config)
    return [one for one in found if one.severity != "off"]


def divergence_noise(num_bins: int, reference_units: int, new_units: int) -> float:
    """Return a Jensen-Shannon divergence that equal distributions hardly exceed.

    Two samples of `num_bins` outcomes have the divergence of a chi-square variable
    times (1 / n1 + 1 / n2) / (8 ln 2), in bits.

    Source: Grosse et al. 2002, Analysis of symbolic sequences using the Jensen-Shannon
    divergence, Physical Review E 65, section II.C.
    """
    chi_square = float(special.chdtri(max(num_bins - 1, 1), 1.0 - _CONFIDENCE))
    return chi_square * (1.0 / reference_units + 1.0 / new_units) / (8.0 * math.log(2.0))


def jensen_shannon(first: FloatArray, second: FloatArray) -> float:
    """Return the Jensen-Shannon divergence of two distributions [K], in bits, 0-1."""
    middle = (first + second) / 2.0
    return sum(
        0.5 * float(special.rel_entr(one, middle).sum()) / math.log(2.0) for one in (first, second)
    )


def _compare_bands(
    reference: DataSummary, new: DataSummary, sensor: Sensor, config: DriftConfig
) -> Iterator[Finding]:
    for old, now in zip(reference.bands[sensor], new.bands[sensor], strict=True):
        if _is_absent(old) or _is_absent(now):
            continue
        yield _moved("mean", sensor, ("mean", old.mean, now.mean), (old, now), config)
        yield _moved("median", sensor, ("median", old.p50, now.p50), (old, now), config)
        # Of the two tails, the one that moved further.
        tails = (
            ("2nd percentile", old.p02, now.p02),
            ("98th percentile", old.p98, now.p98),
        )
        further = max(tails, key=lambda tail: abs(tail[2] - tail[1]))
        yield _moved("tails", sensor, further, (old, now), config)
        yield _widened(
            sensor,
            now.band,
            ("standard deviation", old.std, now.std),
            math.hypot(old.std_error, now.std_error),
            config,
        )
        yield _widened(
            sensor,
            now.band,
            ("standard deviation within a patch", old.patch_std, now.patch_std),
            math.hypot(old.patch_std_error, now.patch_std_error),
            config,
        )


def _moved(
    figure: Literal["mean", "median", "tails"],
    sensor: Sensor,
    place: tuple[str, float, float],
    bands: tuple[BandSummary, BandSummary],
    config: DriftConfig,
) -> Finding:
    """Return the finding about one place of a band's distribution.

    Args:
        figure: which rule.
        sensor: of the band.
        place: its name, value in the reference and new value.
        bands: the band in the reference, and the new one.
        config: limits.
    """
    what, before, after = place
    old, now = bands
    rule, unit = SENSOR_RULES[figure][sensor], PIXEL_FORMATS[sensor].unit
    spread = max(old.std, LEAST_SPREAD[sensor])
    value = abs(after - before) / spread
    error = _ERROR_OVER_MEAN[figure] * math.hypot(old.mean_error, now.mean_error) / spread
    return _finding(
        rule,
        now.band,
        (before, after),
        (value, config.limit_of(rule) + config.noise * error),
        f"{now.band}: the {what} is {after:.3g} {unit}, {before:.3g} in the reference: moved by "
        f"{value:.2f} spreads of the reference ({spread:.3g} {unit})",
        config,
    )


def _widened(
    sensor: Sensor,
    band: str,
    spread: tuple[str, float, float],
    error: float,
    config: DriftConfig,
) -> Finding:
    """Return the finding about one spread of a band: its name and values."""
    what, before, after = spread
    rule, unit = SENSOR_RULES["spread"][sensor], PIXEL_FORMATS[sensor].unit
    quotient = max(after, MIN_STD) / max(before, MIN_STD)
    return _finding(
        rule,
        f"{band}{what.removeprefix('standard deviation')}",
        (before, after),
        (max(quotient, 1.0 / quotient), config.limit_of(rule) * math.exp(config.noise * error)),
        f"{band}: the {what} is {after:.3g} {unit}, {before:.3g} in the reference: "
        f"{quotient:.2f} times as large",
        config,
    )


def _compare_no_data(
    reference: DataSummary, new: DataSummary, sensor: Sensor, config: DriftConfig
) -> Iterator[Finding]:
    olds, nows = reference.bands[sensor], new.bands[sensor]
    if all(_is_absent(one) for one in olds):
        return
    pixels = "of the pixels have no data"
    for old, now in zip(olds, nows, strict=True):
        errors = (reference.no_data[sensor].error, new.no_data[sensor].error)
        yield _share(now.band, pixels, (old.no_data, now.no_data), errors, config)
    before, after = reference.no_data_refused[sensor], new.no_data_refused[sensor]
    yield _share(
        sensor,
        "of the patches were refused since pixels are missing",
        (before.value, after.value),
        (before.error, after.error),
        config,
    )


def _share(
    about: str,
    what: str,
    shares: tuple[float, float],
    errors: tuple[float, float],
    config: DriftConfig,
) -> Finding:
    old, now = shares
    largest = max(config.limit_of("no_data") * old, old + NO_DATA_FLOOR)
    # A few scenes may happen to have no edge, and then no error either.
    limit = largest + config.noise * math.sqrt(2.0) * max(errors)
    return _finding(
        "no_data",
        about,
        shares,
        (now, limit),
        f"{about}: {now:.1%} {what}, {old:.1%} in the reference",
        config,
    )


def _compare_darkest(
    reference: DataSummary, new: DataSummary, config: DriftConfig
) -> Iterator[Finding]:
    pairs = [
        (old, now)
        for old, now in zip(reference.bands["s2"], new.bands["s2"], strict=True)
        if not (_is_absent(old) or _is_absent(now))
    ]
    if not pairs:
        return
    shifts = [now.p02 - old.p02 for old, now in pairs]
    # What all bands have in common: the smallest shift, if all go one way.
    is_up = min(shifts) > 0.0
    common = min(shifts) if is_up else -max(shifts)
    least = shifts.index(min(shifts) if is_up else max(shifts))
    old, now = pairs[least]
    yield _finding(
        "s2_offset",
        now.band,
        (old.p02, now.p02),
        (max(common, 0.0), config.limit_of("s2_offset")),
        f"{now.band}: the darkest 2 % are at reflectance {now.p02:.3f}, {old.p02:.3f} in the "
        f"reference, and all other bands moved at least as far: {max(common, 0.0):.3f}, as an "
        "offset does",
        config,
    )


def _compare_polarizations(
    reference: DataSummary, new: DataSummary, config: DriftConfig
) -> Iterator[Finding]:
    old = {one.band: one for one in reference.bands["s1"] if not _is_absent(one)}
    now = {one.band: one for one in new.bands["s1"] if not _is_absent(one)}
    for cross, co in CO_POLARIZED.items():
        if not {cross, co} <= old.keys() & now.keys():
            continue
        before, after = (bands[co].mean - bands[cross].mean for bands in (old, now))
        # The errors of one date's two bands go together, so the worse one tells.
        error = math.hypot(
            *(max(bands[co].mean_error, bands[cross].mean_error) for bands in (old, now))
        )
        yield _finding(
            "polarizations",
            f"{co}-{cross}",
            (before, after),
            (
                abs(after - before),
                config.limit_of("polarizations") + config.noise * error,
            ),
            f"{co}-{cross}: the difference of the means is {after:.1f} dB, {before:.1f} in the "
            f"reference: changed by {abs(after - before):.1f} dB",
            config,
        )


def _compare_classes(
    reference: DataSummary, new: DataSummary, config: DriftConfig
) -> Iterator[Finding]:
    names = list(reference.class_shares)
    old, now = (
        np.array([one.class_shares[name] for name in names], np.float64) for one in (reference, new)
    )
    if not names or not old.any() or not now.any():
        return
    units = [max(one.num_units.values()) for one in (reference, new)]
    value = jensen_shannon(old, now)
    moved = int(np.abs(now - old).argmax())
    yield _finding(
        "class_shares",
        names[moved],
        (float(old[moved]), float(now[moved])),
        (
            value,
            config.limit_of("class_shares") + divergence_noise(np.count_nonzero(old + now), *units),
        ),
        f"{names[moved]}: {now[moved]:.1%} of the labelled pixels, {old[moved]:.1%} in the "
        f"reference, the largest change of a class: the shares diverge by {value:.3f} bits",
        config,
    )


def _compare_time_gap(
    reference: DataSummary, new: DataSummary, config: DriftConfig
) -> Iterator[Finding]:
    old, now = reference.time_gap_hours, new.time_gap_hours
    if old is None or now is None:
        return
    spread = max(old.spread, LEAST_GAP_HOURS)
    value = abs(now.value - old.value) / spread
    noise = config.noise * math.sqrt(2.0) * max(old.error, now.error) / spread
    yield _finding(
        "time_gap",
        "time_gap_hours",
        (old.value, now.value),
        (value, config.limit_of("time_gap") + noise),
        f"time_gap_hours: Sentinel-2 follows Sentinel-1 by {now.value:.1f} hours on average, "
        f"{old.value:.1f} in the reference: moved by {value:.2f} spreads ({spread:.0f} hours)",
        config,
    )


def _finding(
    rule: Rule,
    about: str,
    figures: tuple[float, float],
    measured: tuple[float, float],
    text: str,
    config: DriftConfig,
) -> Finding:
    value, limit = measured
    word = "above" if value > limit else "within"
    return Finding(
        rule=rule,
        about=about,
        reference=figures[0],
        found=figures[1],
        value=value,
        limit=limit,
        severity=config.severity_of(rule),
        reason=f"{text}, {word} the limit {limit:.3g} of the rule {rule}",
    )


def _names(summary: DataSummary) -> str:
    ordered = sorted(summary.label_classes.items(), key=lambda item: int(item[0]))
    return ", ".join(f"{key} {name}" for key, name in ordered)


def _is_absent(band: BandSummary) -> bool:
    return band.no_data >= 1.0
