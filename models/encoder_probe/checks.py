"""The single checks: measurements against thresholds, and one encoder against another on the same patches.

Arrays -> `Check`s with a plain sentence each. Pure; called by `probe.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import Classified
from models.encoder_probe.report import Check
from models.health.linear_probe import balanced_accuracy, count_hits
from models.health.retrieval import Ranks
from models.health.spread import effective_rank, least_effective_rank, spread
from models.intervals import MIN_BLOCKS, bootstrap

FloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[np.generic]

ROUNDING = 1e-9
"""What a share that should be whole, such as a recall of 1, may be off by."""


def check_finite(rows: FloatArray, sensor: Sensor) -> Check:
    """Whether features and embeddings [N, D + E] of `sensor` are finite; the value is the share of patches where all are."""
    share = float(np.isfinite(rows).all(axis=1).mean())
    reason = f"{sensor}: features and embeddings are finite for {share:.1%} of the patches"
    return Check(
        name=f"finite_{sensor}", value=share, asked=1.0, passed=share == 1.0, reason=reason
    )


def check_collapse(
    embeddings: FloatArray, sensor: Sensor, config: ProbeConfig
) -> tuple[Check, Check]:
    """Whether the embeddings [N, E] of `sensor` differ between patches at all, and in enough directions."""
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


def check_recall(ranks: Ranks, direction: str, config: ProbeConfig) -> Check:
    """Whether patches find their partners in the other sensor more often than by chance.

    Args:
        ranks: of the partners.
        direction: "s1_to_s2" or "s2_to_s1".
        config: thresholds.
    """
    num_candidates = min(config.num_candidates, len(ranks.num_better))
    # Of very few candidates no encoder could find more than all.
    asked = min(config.min_recall_over_chance / num_candidates, 1.0)
    what = f"recall@1 {direction.replace('_', ' ')} among {num_candidates} patches"
    return _at_least(f"recall_{direction}", ranks.recall_among(num_candidates), asked, what)


def check_accuracy(classified: Classified, sensor: Sensor, config: ProbeConfig) -> Check:
    """Whether a linear probe on the features of `sensor` reads the classes off them."""
    value = float(balanced_accuracy(*(part.sum(axis=0) for part in _hits(classified, sensor))))
    return _at_least(
        f"accuracy_{sensor}",
        value,
        config.min_accuracy,
        f"{sensor}: the linear probe's balanced accuracy",
    )


def compare_recall(
    new: Ranks, last: Ranks, direction: str, block: AnyArray, config: ProbeConfig
) -> Check:
    """Whether recall is not below that of the last encoder on the same pairs.

    Args:
        new: ranks of the partners under the encoder that is judged.
        last: the same under the other.
        direction: "s1_to_s2" or "s2_to_s1".
        block: spatial block of each pair [N].
        config: tolerance and confidence.
    """
    num_candidates = min(config.num_candidates, len(block))
    wins = np.stack([ranks.wins_among(num_candidates) for ranks in (new, last)], axis=1)
    return _compare(
        f"recall_{direction}_over_last",
        f"recall@1 {direction.replace('_', ' ')}",
        "the last published encoder",
        np.concatenate([wins, np.ones((len(wins), 1))], axis=1),
        lambda sums: (sums[..., :2] / sums[..., 2:]),
        block,
        -config.tolerance,
        config,
    )


def compare_accuracy(
    new: Classified, other: Classified, sensor: Sensor, other_name: str, config: ProbeConfig
) -> Check:
    """Whether the linear probe is not below that on another encoder's features, on the same patches.

    Args:
        new: what the probe says on the features of the encoder that is judged.
        other: the same of the other encoder.
        sensor: whose features.
        other_name: "last", the encoder published last, or "random", the untrained one.
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
        f"accuracy_{sensor}_over_{other_name}",
        f"{sensor}: the linear probe's balanced accuracy",
        "the last published encoder" if is_last else "an untrained encoder",
        np.concatenate([found, other_found, present], axis=1),
        accuracies,
        new.block,
        -config.tolerance if is_last else config.min_gain_over_random,
        config,
    )


def _hits(classified: Classified, sensor: Sensor) -> tuple[FloatArray, FloatArray]:
    return count_hits(classified.truth, classified.predicted[sensor])


def _at_least(name: str, value: float, asked: float, what: str) -> Check:
    passed = value >= asked - ROUNDING
    reason = f"{what} is {value:.3f}, " + (
        f"at least {asked:.3f} is asked" if passed else f"below the {asked:.3f} asked"
    )
    return Check(name=name, value=value, asked=asked, passed=passed, reason=reason)


def _compare(
    name: str,
    what: str,
    other: str,
    parts: FloatArray,
    values: Callable[[FloatArray], FloatArray],
    block: AnyArray,
    asked: float,
    config: ProbeConfig,
) -> Check:
    """A check that fails when the whole interval of the difference lies below `asked`.

    Args:
        name: of the check.
        what: is compared, for the sentence.
        other: whom with, for the sentence.
        parts: what is summed over patches [N, P].
        values: sums [..., P] -> both encoders' values [..., 2], the judged one's first.
        block: of each patch [N]; whole blocks are drawn, since neighbours are alike.
        asked: least difference.
        config: confidence and seed.
    """
    ours, theirs = (float(value) for value in values(parts.sum(axis=0)))
    text = f"{what} is {ours:.3f}, {other}'s {theirs:.3f}"
    num_blocks = len(np.unique(block))
    if num_blocks < MIN_BLOCKS:  # A difference then counts as noise.
        text += (
            f": not judged, since {num_blocks} blocks are too few to tell a difference from noise"
        )
        return Check(
            name=name, value=ours - theirs, asked=asked, passed=True, reason=text, judged=False
        )

    def difference(sums: FloatArray) -> FloatArray:
        both = values(sums)
        return both[..., 0] - both[..., 1]

    found = bootstrap(
        parts, difference, groups=block, confidence=config.confidence, seed=config.seed
    )
    passed = found.high >= asked
    text += f": the difference is within {found.low:+.3f} and {found.high:+.3f} with {config.confidence:.0%} confidence"
    text += f", {'which reaches' if passed else 'all below'} the {asked:+.3f} asked"
    return Check(
        name=name,
        value=found.value,
        asked=asked,
        low=found.low,
        high=found.high,
        passed=passed,
        reason=text,
    )
