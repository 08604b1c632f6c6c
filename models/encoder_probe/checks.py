"""The single checks: one encoder against fixed limits, or against another encoder.

Input: measurements as arrays. Output: `Check`s, each with a reason in one sentence. Two
encoders are always compared on the same patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import Classified
from models.encoder_probe.report import Check
from models.health.linear_probe import balanced_accuracy, count_hits
from models.health.retrieval import Direction, Ranks
from models.health.spread import effective_rank, least_effective_rank, spread
from models.intervals import MIN_UNITS, Resampling, bootstrap

FloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[np.generic]

OtherEncoder = Literal["last", "random"]
"""What an encoder is compared with: the one published last, or an untrained one."""

ROUNDING = 1e-9
"""Rounding error to allow in shares that should be exact, such as a recall of 1."""


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """One quantity of two encoders, measured on the same patches.

    Attributes:
        name: name of the check.
        what: what is compared, for the sentence.
        other: the other encoder, for the sentence.
        asked: least difference that passes.
        parts: what is summed over patches, float64 [N, P].
        values: maps sums [..., P] to the quantity of both encoders [..., 2], that of
            the judged encoder first.
        block: spatial block of each patch [N].
    """

    name: str
    what: str
    other: str
    asked: float
    parts: FloatArray
    values: Callable[[FloatArray], FloatArray]
    block: AnyArray


def check_finite(rows: FloatArray, sensor: Sensor) -> Check:
    """Check that all features and embeddings are finite.

    Args:
        rows: features and embeddings [N, D + E].
        sensor: their sensor.

    Returns:
        The check; its value is the share of patches whose numbers are all finite.
    """
    share = float(np.isfinite(rows).all(axis=1).mean())
    reason = f"{sensor}: features and embeddings are finite for {share:.1%} of the patches"
    return Check(
        name=f"finite_{sensor}", value=share, asked=1.0, passed=share == 1.0, reason=reason
    )


def check_collapse(
    embeddings: FloatArray, sensor: Sensor, config: ProbeConfig
) -> tuple[Check, Check]:
    """Check that embeddings differ between patches, and in enough directions.

    Args:
        embeddings: embeddings [N, E], unit norm.
        sensor: their sensor.
        config: limits.

    Returns:
        The checks of spread and effective rank.
    """
    least_rank = least_effective_rank(config.min_effective_rank, embeddings)
    return (
        _at_least(
            f"spread_{sensor}",
            spread(embeddings),
            config.min_spread,
            f"{sensor}: the embeddings' spread",
        ),
        _at_least(
            f"effective_rank_{sensor}",
            effective_rank(embeddings),
            least_rank,
            f"{sensor}: the embeddings' effective rank",
        ),
    )


def check_recall(ranks: Ranks, direction: Direction, config: ProbeConfig) -> Check:
    """Check that patches find their partners more often than by chance.

    Args:
        ranks: ranks of the partners.
        direction: which sensor's embeddings are the queries.
        config: limits.
    """
    num_candidates = min(config.num_candidates, len(ranks.num_better))
    # With very few candidates, a multiple of chance could exceed 1.
    asked = min(config.min_recall_over_chance / num_candidates, 1.0)
    what = f"recall@1 {direction.replace('_', ' ')} among {num_candidates} patches"
    return _at_least(f"recall_{direction}", ranks.recall_among(num_candidates), asked, what)


def check_accuracy(classified: Classified, sensor: Sensor, config: ProbeConfig) -> Check:
    """Check the balanced accuracy of a linear probe on the features of `sensor`."""
    value = float(balanced_accuracy(*(part.sum(axis=0) for part in _hits(classified, sensor))))
    return _at_least(
        f"accuracy_{sensor}",
        value,
        config.min_accuracy,
        f"{sensor}: the linear probe's balanced accuracy",
    )


def compare_recall(
    new: Ranks, last: Ranks, *, direction: Direction, block: AnyArray, config: ProbeConfig
) -> Check:
    """Check that recall is not below that of the last published encoder.

    Args:
        new: ranks of the partners under the judged encoder.
        last: ranks of the same partners under the last published encoder.
        direction: which sensor's embeddings are the queries.
        block: spatial block of each pair [N].
        config: tolerance and confidence.
    """
    num_candidates = min(config.num_candidates, len(block))
    wins = np.stack([ranks.wins_among(num_candidates) for ranks in (new, last)], axis=1)
    return _compare(
        _Comparison(
            name=f"recall_{direction}_over_last",
            what=f"recall@1 {direction.replace('_', ' ')}",
            other="the last published encoder",
            asked=-config.tolerance,
            parts=np.concatenate([wins, np.ones((len(wins), 1))], axis=1),
            values=lambda sums: sums[..., :2] / sums[..., 2:],
            block=block,
        ),
        config,
    )


def compare_accuracy(
    new: Classified,
    other: Classified,
    *,
    sensor: Sensor,
    other_name: OtherEncoder,
    config: ProbeConfig,
) -> Check:
    """Check that the linear probe is not worse than on another encoder's features.

    Args:
        new: predictions from the features of the judged encoder.
        other: predictions for the same patches from the other encoder's features.
        sensor: sensor of the features.
        other_name: which other encoder.
        config: tolerance, gain and confidence.
    """
    found, present = _hits(new, sensor)
    other_found, _ = _hits(other, sensor)
    is_last = other_name == "last"

    def accuracies(sums: FloatArray) -> FloatArray:
        ours, theirs, counts = np.split(sums, 3, axis=-1)
        return np.stack(
            [balanced_accuracy(ours, counts), balanced_accuracy(theirs, counts)], axis=-1
        )

    return _compare(
        _Comparison(
            name=f"accuracy_{sensor}_over_{other_name}",
            what=f"{sensor}: the linear probe's balanced accuracy",
            other="the last published encoder" if is_last else "an untrained encoder",
            asked=-config.tolerance if is_last else config.min_gain_over_random,
            parts=np.concatenate([found, other_found, present], axis=1),
            values=accuracies,
            block=new.block,
        ),
        config,
    )


def _hits(classified: Classified, sensor: Sensor) -> tuple[FloatArray, FloatArray]:
    return count_hits(classified.truth, classified.predicted[sensor])


def _at_least(name: str, value: float, asked: float, what: str) -> Check:
    passed = value >= asked - ROUNDING
    reason = f"{what} is {value:.3f}, " + (
        f"at least {asked:.3f} is required" if passed else f"below the required {asked:.3f}"
    )
    return Check(name=name, value=value, asked=asked, passed=passed, reason=reason)


def _compare(pair: _Comparison, config: ProbeConfig) -> Check:
    """Compare two encoders; the check fails when the whole interval is below `asked`.

    Whole blocks are drawn in the bootstrap, since neighbouring patches look alike.
    """
    ours, theirs = (float(value) for value in pair.values(pair.parts.sum(axis=0)))
    text = f"{pair.what} is {ours:.3f}, {pair.other}'s {theirs:.3f}"
    num_blocks = len(np.unique(pair.block))
    if num_blocks < MIN_UNITS:  # A difference then counts as noise.
        text += (
            f": not judged, since {num_blocks} blocks are too few to tell a difference from noise"
        )
        return Check(
            name=pair.name,
            value=ours - theirs,
            asked=pair.asked,
            passed=True,
            reason=text,
            judged=False,
        )

    def difference(sums: FloatArray) -> FloatArray:
        both = pair.values(sums)
        return both[..., 0] - both[..., 1]

    found = bootstrap(
        pair.parts,
        difference,
        groups=pair.block,
        how=Resampling(confidence=config.confidence, seed=config.seed),
    )
    passed = found.high >= pair.asked
    text += f": the difference is between {found.low:+.3f} and {found.high:+.3f}"
    text += f" with {config.confidence:.0%} confidence"
    text += f", {'which reaches' if passed else 'all below'} the required {pair.asked:+.3f}"
    return Check(
        name=pair.name,
        value=found.value,
        asked=pair.asked,
        low=found.low,
        high=found.high,
        passed=passed,
        reason=text,
    )
