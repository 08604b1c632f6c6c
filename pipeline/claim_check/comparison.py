"""The verdict: the difference of two arms on the same test patches, with an interval.

Confusion matrices by seed and patch -> difference of the mean IoU with a paired
bootstrap interval over blocks and seeds, and one of three verdicts. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from models import metrics

FloatArray = npt.NDArray[np.float64]
Counts = npt.NDArray[np.number]
AnyArray = npt.NDArray[np.generic]

Verdict = Literal["supported", "not supported", "inconclusive"]

_CHUNK = 250
"""Resamples at a time; limits the memory for seeds, classes and resamples."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean IoU of one arm minus that of another, 0-1.

    Attributes:
        value: difference over all blocks and seeds.
        low: lower end of the bootstrap interval.
        high: upper end of the bootstrap interval.
        ours: mean IoU of the first arm, mean over seeds.
        theirs: mean IoU of the second arm, mean over seeds.
        over_seeds: interval of the seeds' differences (Student's t), over all blocks;
            None with one seed. With few seeds it is wider than the bootstrap interval,
            and it does not account for the choice of test blocks.
    """

    value: float
    low: float
    high: float
    ours: float
    theirs: float
    over_seeds: tuple[float, float] | None

    @property
    def verdict(self) -> Verdict:
        """Supported: the interval is above 0. Not supported: it is below 0."""
        if self.low > 0.0:
            return "supported"
        return "not supported" if self.high < 0.0 else "inconclusive"

    @property
    def is_certain(self) -> bool:
        """Whether the first arm is better by both intervals.

        Alarms use this stricter test, because many are tried and false ones must be
        rare.
        """
        return self.low > 0.0 and (self.over_seeds is None or self.over_seeds[0] > 0.0)

    @property
    def in_points(self) -> str:
        """Value and both intervals in points, for sentences about `is_certain`."""
        seeds = self.over_seeds
        second = f" (over seeds [{points(seeds[0])}, {points(seeds[1])}])" if seeds else ""
        return f"{points(self.value)} [{points(self.low)}, {points(self.high)}]{second}"


def points(value: float) -> str:
    """Return a difference of IoU in points (hundredths), with its sign."""
    return f"{100 * value:+.1f}"


def mean_iou(cm: npt.NDArray[np.number], classes: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the mean IoU [...] of pooled counts [..., K, K] over `classes` bool [K].

    All arms and resamples are averaged over the same classes. Only a class that occurs
    neither in truth nor in prediction of a resample is left out there.
    """
    iou = metrics.iou_per_class(cm)
    present = np.isfinite(iou) & classes
    return np.where(present, iou, 0.0).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def compare(
    ours: Counts,
    theirs: Counts,
    block: AnyArray,
    *,
    confidence: float,
    num_resamples: int,
    seed: int = 0,
) -> Difference:
    """Return the paired difference between two arms.

    The bootstrap draws whole blocks with replacement, because neighbouring patches are
    alike, and seeds with replacement. Both arms get the same draw. Patches of a seed
    are pooled, then seeds are averaged. With few seeds the interval is somewhat too
    narrow.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 8.

    Args:
        ours: counts [S, M, K, K], rows truth, by seed and test patch.
        theirs: counts of the other arm; seed s of both arms drew the same labels.
        block: spatial block of each test patch [M].
        confidence: share of the resamples within the interval, 0-1.
        num_resamples: number of resamples.
        seed: seed of the resamples.

    Raises:
        ValueError: shapes differ, or there is no patch.
    """
    if (
        ours.shape != theirs.shape
        or ours.ndim != 4
        or len(block) != ours.shape[1]
        or not len(block)
    ):
        raise ValueError(
            "two arms need counts [S, M, K, K] of the same patches, "
            f"got {ours.shape} and {theirs.shape}"
        )
    classes = ours.sum(axis=(0, 1, 3)) > 0
    by_block = [_sum_blocks(counts, block) for counts in (ours, theirs)]
    num_seeds, num_blocks = by_block[0].shape[:2]
    by_seed = [mean_iou(counts.sum(axis=1), classes) for counts in by_block]
    means = [float(iou.mean()) for iou in by_seed]
    rng = np.random.default_rng(seed)
    differences = []
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        drawn_blocks = rng.multinomial(
            num_blocks, np.full(num_blocks, 1 / num_blocks), size
        ).astype(float)
        drawn_seeds = (
            rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size) / num_seeds
        )
        ious = [
            mean_iou(np.einsum("rb,sbkl->rskl", drawn_blocks, counts), classes)
            for counts in by_block
        ]
        differences.append(((ious[0] - ious[1]) * drawn_seeds).sum(axis=1))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1.0 - tail])
    return Difference(
        value=means[0] - means[1],
        low=float(low),
        high=float(high),
        ours=means[0],
        theirs=means[1],
        over_seeds=_t_interval(by_seed[0] - by_seed[1], confidence),
    )


def _t_interval(values: FloatArray, confidence: float) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    reach = (
        stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    )
    return float(values.mean() - reach), float(values.mean() + reach)


def _sum_blocks(counts: Counts, block: AnyArray) -> FloatArray:
    """Sum counts [S, M, K, K] over the patches of each block: [S, blocks, K, K]."""
    names, index = np.unique(block, return_inverse=True)
    member = np.zeros((len(names), len(block)))
    member[index, np.arange(len(block))] = 1.0
    return np.einsum("bm,smkl->sbkl", member, counts.astype(float))
