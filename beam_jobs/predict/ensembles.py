"""Ensembles: the mean answer of several members, and how much they differ.

A member is a published model, one of the eight rotations and reflections of a window,
or both. Input: functions pixels -> probabilities. Output: one such function. With
`parts.NUM_MOMENTS` more channels it also tells what `disagreement` needs. Blending adds
weighted answers, and all channels are means over members, so blended channels are, too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict.blending import Pixels
from beam_jobs.predict.parts import entropy
from beam_jobs.predict.segmenters import Segmenter

Model = Callable[[Pixels], FloatArray]
"""Pixels [B, H, W, C] -> probabilities float32 [B, H, W, K]."""
_NUM_VIEWS = 8


def combine(segmenters: Sequence[Segmenter]) -> Segmenter:
    """Return several segmenters as one, whose answer is their mean.

    The threshold is the mean of theirs.

    Raises:
        DataError: they see other pixels, tell other classes apart, or are the same.
    """
    first, *others = segmenters
    if not others:
        return first
    for other in others:
        for name in ("bands", "classes", "pixel_size_m", "s2_processing_level"):
            one, two = getattr(first, name), getattr(other, name)
            if one != two:
                raise DataError(
                    f"{other.path}: the models of an ensemble must have the same {name}, got "
                    f"{_text(two)}, but {_text(one)} in {first.path}",
                    "bad_model",
                )
    if len({one.sha256 for one in segmenters}) < len(segmenters):
        raise DataError(
            f"{', '.join(one.path for one in segmenters)}: an ensemble must have different models",
            "bad_model",
        )
    thresholds = [one.threshold for one in segmenters if one.threshold is not None]
    return replace(
        first,
        name="+".join(dict.fromkeys(one.name for one in segmenters)),
        version="+".join(one.version or "unknown" for one in segmenters),
        sha256=hashlib.sha256("".join(one.sha256 for one in segmenters).encode()).hexdigest(),
        stride=math.lcm(*(one.stride for one in segmenters)),
        threshold=math.fsum(thresholds) / len(thresholds) if thresholds else None,
        takes_one_of_two=all(one.takes_one_of_two for one in segmenters),
        data_sha256="+".join(dict.fromkeys(one.data_sha256 for one in segmenters)),
        code_version="+".join(dict.fromkeys(one.code_version for one in segmenters)),
        members=tuple(segmenters),
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(one.name for one in value)
    return str(value)


def joined(models: Sequence[Model], *, has_views: bool, has_moments: bool) -> Model:
    """Return the mean answer of an ensemble as one model.

    Args:
        models: its models.
        has_views: each model sees the eight rotations and reflections of a window.
        has_moments: the channels that `parts.disagreement` needs follow the K
            probabilities.
    """
    if len(models) == 1 and not has_views and not has_moments:
        return models[0]

    num_members = len(models) * (_NUM_VIEWS if has_views else 1)

    def answer(pixels: Pixels) -> FloatArray:
        total: Any = 0.0
        for model in models:
            for one in _views(model, pixels) if has_views else (model(pixels),):
                total = total + (_with_moments(one) if has_moments else one)
        return np.asarray(total / num_members, np.float32)

    return answer


def _with_moments(probabilities: FloatArray) -> FloatArray:
    """Return the channels p, entropy of p, and sum of p * p."""
    moments = [entropy(probabilities), np.square(probabilities).sum(axis=-1)]
    return np.concatenate([probabilities, np.stack(moments, axis=-1)], axis=-1)


def _views(model: Model, pixels: Pixels) -> Iterator[FloatArray]:
    """Yield the answers to the eight rotations and reflections of a window."""
    for turns in range(4):
        for is_flipped in (False, True):
            seen = {name: _moved(values, turns, is_flipped) for name, values in pixels.items()}
            yield _moved_back(model(seen), turns, is_flipped)


def _moved(values: FloatArray, turns: int, is_flipped: bool) -> FloatArray:
    turned = np.rot90(values, turns, axes=(1, 2))
    return turned[:, :, ::-1] if is_flipped else turned


def _moved_back(values: FloatArray, turns: int, is_flipped: bool) -> FloatArray:
    return np.rot90(values[:, :, ::-1] if is_flipped else values, -turns, axes=(1, 2))
