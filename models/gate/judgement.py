"""The judgement: two models' counts on the same test patches -> may the new one go out?

All rules are about the difference candidate - champion of pooled scores, with intervals
by a paired bootstrap over events or blocks (`models/intervals.py`):

- The whole test: the lower end of the interval must be above -margin. A model that is
  merely not proven worse is not enough: with few test patches nothing is proven.
- Each guarded slice: it must not have lost more than its margin, unless the loss may be
  noise. The intervals of the G slices have the confidence 1 - (1 - confidence) / G, so
  the guards together seldom refuse an equal model. A slice of fewer than five blocks
  counts its patches as units; of fewer than five patches it is only noted.

NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models import metrics
from models.gate.config import GateConfig
from models.gate.verdict import Comparison, Verdict
from models.intervals import (
    MIN_UNITS,
    FloatArray,
    Interval,
    Resampling,
    Statistic,
    paired_difference,
)
from models.scores.patch_scores import PatchScores, Texts, concatenate, select
from models.scores.slices import UNKNOWN, slice_values
from models.scores.units import units_of

WHOLE = "all"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The counts of both models on the same patches, in the same order.

    Attributes:
        candidate: of the new model.
        champion: of the model in service.
    """

    candidate: PatchScores
    champion: PatchScores

    def __post_init__(self) -> None:
        if self.candidate.class_names != self.champion.class_names:
            raise ValueError(
                f"both models must have the same classes, got {self.candidate.class_names} and "
                f"{self.champion.class_names}"
            )
        if not np.array_equal(self.candidate.patch_id, self.champion.patch_id):
            raise ValueError("both models must be scored on the same patches in the same order")
        truth = self.candidate.confusion.sum(axis=-1)
        # The truth may differ only where one model has no prediction: both use the same
        # sensors' masks, or they are not comparable.
        if not np.array_equal(truth, self.champion.confusion.sum(axis=-1)):
            raise ValueError(
                "both models must be scored on the same pixels; they take other sensors, or the "
                "labels have changed"
            )

    def at(self, rows: np.ndarray) -> Scored:
        """Return the counts of some patches."""
        return Scored(candidate=select(self.candidate, rows), champion=select(self.champion, rows))


def join(first: Scored, second: Scored) -> Scored:
    """Return the patches of both, each once."""
    is_new = ~np.isin(second.candidate.patch_id, first.candidate.patch_id)
    if not is_new.any():
        return first
    rest = second.at(is_new)
    return Scored(
        candidate=concatenate([first.candidate, rest.candidate]),
        champion=concatenate([first.champion, rest.champion]),
    )


def judge(scored: Scored, config: GateConfig, champion: str) -> Verdict:
    """Return the verdict about a candidate.

    Args:
        scored: counts of both models on all test patches.
        config: metric, margins and guards.
        champion: folder of the version in service.

    Raises:
        ValueError: the metric is unknown.
    """
    config.check_classes(scored.candidate.class_names)
    if np.array_equal(scored.candidate.confusion, scored.champion.confusion):
        same = f"it answers like {champion} on all {len(scored.candidate)} test patches"
        return Verdict(outcome="in_service", champion=champion, reasons=(same,))
    whole = _compare_whole(scored, config)
    guarded = list(_slices(scored, config))
    confidence = 1.0 - (1.0 - config.confidence) / max(1, len(guarded))
    compared = [_compare_slice(part, config, confidence) for part in guarded]
    judged = [one for one in compared if isinstance(one, Comparison)]
    refusals = [one.reason for one in (whole, *judged) if not one.passed]
    return Verdict(
        outcome="refused" if refusals else "blessed",
        champion=champion,
        reasons=tuple(refusals) or (whole.reason,),
        comparisons=(whole, *judged),
        notes=tuple(one for one in compared if isinstance(one, str)),
    )


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """One guarded slice: its name, what is compared in it, and its patches."""

    name: str
    metric: str
    margin: float
    scored: Scored


def _slices(scored: Scored, config: GateConfig) -> Iterator[_Slice]:
    for guard, margin in config.guards.items():
        if guard == "class":
            for name in scored.candidate.class_names:
                yield _Slice(
                    name=f"class={name}",
                    metric=f"pooled_iou/{name}",
                    margin=margin,
                    scored=scored,
                )
            continue
        values = slice_values(scored.candidate, guard)
        for value in np.unique(values):
            if value != UNKNOWN:
                yield _Slice(
                    name=f"{guard}={value}",
                    metric=config.metric,
                    margin=margin,
                    scored=scored.at(values == value),
                )


def _compare_whole(scored: Scored, config: GateConfig) -> Comparison:
    units = units_of(scored.candidate, config.unit)
    values = _values(scored, config.metric)
    found = _difference(scored, config.metric, units.of_patch, config)
    is_enough = units.count >= MIN_UNITS and not math.isnan(found.low)
    passed = is_enough and found.low > -config.margin
    numbers = f"{config.metric} {values[0]:.3f}, in service {values[1]:.3f}"
    if not is_enough:
        reason = (
            f"{numbers}: the test has {units.count} {units.name}s, and fewer than {MIN_UNITS} "
            "cannot tell which model is better: add labelled scenes of other places or events"
        )
    else:
        word = "may have lost more than" if not passed else "has lost less than"
        reason = (
            f"{numbers}: it {word} the margin {config.margin:g} (difference {found.value:+.3f}, "
            f"interval {found.low:+.3f} to {found.high:+.3f} over {units.count} {units.name}s)"
        )
    return Comparison(
        name=WHOLE,
        metric=config.metric,
        candidate=values[0],
        champion=values[1],
        low=_known(found.low),
        high=_known(found.high),
        margin=config.margin,
        num_patches=len(scored.candidate),
        num_units=units.count,
        unit=units.name,
        passed=passed,
        reason=reason,
    )


def _compare_slice(part: _Slice, config: GateConfig, confidence: float) -> Comparison | str:
    """Return the comparison of a slice, or why it cannot be judged."""
    scored = part.scored
    values = _values(scored, part.metric)
    if any(map(math.isnan, values)):
        return f"{part.name}: no test pixel of it, so nothing guards it"
    # Patches of one event are one unit of the whole test, but within the event the
    # blocks are what repeats.
    units = units_of(scored.candidate, "block")
    of_patch, unit = units.of_patch, "block"
    if units.count < MIN_UNITS:
        of_patch, unit = scored.candidate.patch_id, "patch"
    num_units = len(np.unique(of_patch))
    if num_units < MIN_UNITS:
        return (
            f"{part.name}: {num_units} test patches are too few to judge ({part.metric} "
            f"{values[0]:.3f}, in service {values[1]:.3f})"
        )
    found = _difference(
        scored, part.metric, of_patch, dataclasses.replace(config, confidence=confidence)
    )
    passed = not (found.value < -part.margin and found.high < 0.0)
    plural = "patches" if unit == "patch" else f"{unit}s"
    reason = (
        f"{part.name}: {part.metric} {values[0]:.3f}, in service {values[1]:.3f}: "
        f"{'within' if passed else 'lost more than'} the margin {part.margin:g} (difference "
        f"{found.value:+.3f}, interval {found.low:+.3f} to {found.high:+.3f} over {num_units} "
        f"{plural})"
    )
    return Comparison(
        name=part.name,
        metric=part.metric,
        candidate=values[0],
        champion=values[1],
        low=_known(found.low),
        high=_known(found.high),
        margin=part.margin,
        num_patches=len(scored.candidate),
        num_units=num_units,
        unit=unit,
        passed=passed,
        reason=reason,
    )


def _difference(scored: Scored, metric: str, units: Texts, config: GateConfig) -> Interval:
    statistic = _statistic(metric, scored.candidate.class_names)
    return paired_difference(
        _parts(scored.candidate)[None],
        _parts(scored.champion)[None],
        statistic,
        groups=units,
        how=Resampling(confidence=config.confidence, num_resamples=config.num_resamples),
    )


def _values(scored: Scored, metric: str) -> tuple[float, float]:
    statistic = _statistic(metric, scored.candidate.class_names)
    ours, theirs = (
        float(statistic(_parts(one).sum(axis=0, keepdims=True))[0])
        for one in (scored.candidate, scored.champion)
    )
    return ours, theirs


def _parts(scores: PatchScores) -> FloatArray:
    return scores.confusion.reshape(len(scores), -1).astype(np.float64)


def _statistic(metric: str, class_names: tuple[str, ...]) -> Statistic:
    """Return the function from summed confusion matrices [..., K * K] to `metric`."""
    num_classes = len(class_names)

    def statistic(sums: FloatArray) -> FloatArray:
        confusion = sums.reshape(*sums.shape[:-1], num_classes, num_classes)
        if metric == "mean_iou":
            return metrics.mean_iou(confusion)
        return metrics.iou_per_class(confusion)[..., class_names.index(metric.partition("/")[2])]

    return statistic


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
