"""Embedding drift: whether an encoder sees new pairs as it saw those it learned from.

Input: embeddings of the reference's eval patches, which are kept with the encoder, and
of new ones under the same encoder. Output: findings. Figures of bands do not see what
an encoder sees: shuffled pixels have the same means, spreads and quantiles.

The distance is the energy distance as a share, 0 for equal distributions and towards 1
for ones that are far apart. NumPy only.

Source: Szekely and Rizzo 2013, Energy statistics, Journal of Statistical Planning and
Inference 143(8), with the coefficient of inhomogeneity H. It is the maximum mean
discrepancy with the distance as kernel (Sejdinovic et al. 2013, Annals of Statistics
41(5)).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.drift.config import DriftConfig, Rule
from models.drift.report import Finding
from models.health.embedded_split import EmbeddedSplit

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NUM_PERMUTATIONS = 200
_NUM_ABOVE = 2
"""Random groups that may be further apart: 1 %."""
_BLOCK = "block"
_RULE: Rule = "embeddings"


@dataclass(frozen=True, kw_only=True)
class EmbeddingSample:
    """Embeddings of some patches, as they are kept with an encoder.

    Attributes:
        embeddings: unit norm, float16 [N, E], of the sensors that the encoder's
            objective trains.
        block: spatial block of each patch, text [N].
    """

    embeddings: Mapping[Sensor, npt.NDArray[np.float16]]
    block: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.block)

    def to_bytes(self) -> bytes:
        """Return the content of an .npz file."""
        file = io.BytesIO()
        np.savez(
            file,
            **{_BLOCK: self.block},
            **{str(key): rows for key, rows in self.embeddings.items()},
        )
        return file.getvalue()


def from_bytes(content: bytes) -> EmbeddingSample:
    """Return the sample that `EmbeddingSample.to_bytes` wrote.

    Raises:
        ValueError: it did not write this.
        KeyError: an array is missing.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return EmbeddingSample(
                embeddings={sensor: arrays[sensor] for sensor in SENSORS if sensor in arrays},
                block=arrays[_BLOCK],
            )
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(str(error)) from error


def sample_of(split: EmbeddedSplit, sensors: Sequence[Sensor], count: int) -> EmbeddingSample:
    """Return at most `count` patches of a split, evenly over its rows."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int))
    return EmbeddingSample(
        embeddings={
            sensor: split.embeddings[sensor][rows].astype(np.float16) for sensor in sensors
        },
        block=split.block[rows],
    )


def compare_embeddings(
    reference: EmbeddingSample, new: EmbeddingSample, config: DriftConfig
) -> list[Finding]:
    """Return a finding for each sensor; none if the rule is off.

    A distance counts only if it is larger than those between groups of whole blocks
    that are drawn at random: two sets of few places differ by chance.

    Args:
        reference: kept with the encoder in service.
        new: of the new eval pairs, under the same encoder.
        config: limit and severity.
    """
    if config.severity_of(_RULE) == "off":
        return []
    return [
        _compare(sensor, reference, new, config)
        for sensor in SENSORS
        if sensor in reference.embeddings and sensor in new.embeddings
    ]


def energy_coefficient(distances: FloatArray, is_first: BoolArray) -> float:
    """Return the coefficient H of two groups, 0-1; 0 for equal distributions.

    Args:
        distances: between all rows of both groups, [N, N].
        is_first: which rows are the first group, [N]; neither group is empty.
    """
    first = is_first / is_first.sum()
    second = ~is_first / (~is_first).sum()
    # Rows of `distances @ groups` are mean distances to each group.
    to_groups = distances @ np.stack([first, second], axis=1)
    between = float(first @ to_groups[:, 1])
    within = float(first @ to_groups[:, 0] + second @ to_groups[:, 1])
    return (2.0 * between - within) / (2.0 * between) if between > 0.0 else 0.0


def _compare(
    sensor: Sensor, reference: EmbeddingSample, new: EmbeddingSample, config: DriftConfig
) -> Finding:
    old, now = (one.embeddings[sensor].astype(np.float64) for one in (reference, new))
    rows = np.concatenate([old, now])
    # Of unit vectors: |a - b|^2 = 2 - 2 a b.
    distances = np.sqrt(np.maximum(2.0 - 2.0 * rows @ rows.T, 0.0))
    is_reference = np.arange(len(rows)) < len(old)
    value = energy_coefficient(distances, is_reference)
    blocks = np.concatenate([reference.block, new.block])
    chance = _chance(distances, blocks, len(old) / len(rows))
    limit = max(config.limit_of(_RULE), chance)
    word = "above" if value > limit else "within"
    return Finding(
        rule=_RULE,
        about=sensor,
        reference=None,
        found=None,
        value=value,
        limit=limit,
        severity=config.severity_of(_RULE),
        reason=(
            f"{sensor}: the embeddings of {len(now)} new and {len(old)} kept patches have the "
            f"energy distance {value:.3f} (0 = equal; groups of their blocks at random: up to "
            f"{chance:.3f}), {word} the limit {limit:.3g} of the rule {_RULE}"
        ),
    )


def _chance(distances: FloatArray, blocks: npt.NDArray[np.str_], share: float) -> float:
    """Return a coefficient that random groups of whole blocks seldom exceed."""
    index = np.unique(blocks, return_inverse=True)[1]
    count = int(index.max()) + 1
    rng = np.random.default_rng(0)
    found = []
    for _ in range(NUM_PERMUTATIONS):
        chosen = rng.permutation(count) < round(share * count)
        is_first = chosen[index]
        if is_first.any() and not is_first.all():
            found.append(energy_coefficient(distances, is_first))
    return sorted(found)[-1 - _NUM_ABOVE] if len(found) > _NUM_ABOVE else 1.0
