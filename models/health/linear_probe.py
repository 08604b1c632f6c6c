"""Linear probes on frozen features: how much a few labels, or a known quantity, can be read off them in a straight line.

Input: features and targets of train and eval patches. Output: a score with a bootstrap
interval. Called by `shortcuts.py`, `monitor.py` and the encoder's probe. NumPy only;
ridge regression in closed form, so a probe has no seed, no steps and no learning rate
that could favour one encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.intervals import bootstrap

FloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[Any]

PENALTIES = np.logspace(-4, 4, 17)
"""Ridge penalties tried, per train patch on standardized features; from next to none to one that leaves only the mean."""

MIN_PATCHES = 20
MIN_BLOCKS = 3
"""Fewer cannot be held out in turn and still leave several to learn from."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """How well a probe does on patches it was not fitted on.

    Attributes:
        score: balanced accuracy (0-1) of classes, or R2 (at most 1, below 0 = worse
            than the mean) of values.
        low: lower end of the 95 % bootstrap interval.
        high: its upper end.
        chance: what features without any information score: 1 / classes, or 0.
    """

    score: float
    low: float
    high: float
    chance: float


def predict_classes(
    train_features: FloatArray, train_labels: AnyArray, features: FloatArray
) -> AnyArray:
    """Classes [M] of `features` [M, D] by least squares on class membership, every class weighing the same.

    Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical
    Learning", section 4.2.

    Raises:
        ValueError: fewer than two classes.
    """
    classes, index, counts = np.unique(train_labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"a probe of classes needs at least 2 of them, got {len(classes)}")
    # Rare classes (water) must not vanish in the frequent ones: balanced accuracy
    # counts them alike.
    weights = len(index) / (len(classes) * counts[index])
    membership = np.eye(len(classes))[index]
    return classes[_ridge(train_features, membership, weights, features).argmax(axis=1)]


def predict_values(
    train_features: FloatArray, train_values: FloatArray, features: FloatArray
) -> FloatArray:
    """Values [M] or [M, T] of `features` [M, D] by ridge regression.

    Raises:
        ValueError: no train patch, or a value that is not finite.
    """
    values = np.asarray(train_values, np.float64)
    # A common scale: the penalty is chosen for all targets together.
    scale = values.std(axis=0) if len(values) else np.ones(())
    scale = np.where(scale > 0, scale, 1.0)
    targets = (values / scale).reshape(len(values), -1)
    predicted = _ridge(train_features, targets, np.ones(len(values)), features)
    return predicted.reshape(len(features), *values.shape[1:]) * scale


def score_classes(
    truth: AnyArray, predicted: AnyArray, *, groups: AnyArray | None = None, seed: int = 0
) -> ProbeScore:
    """Balanced accuracy: the mean over the classes of `truth` [M] of the share found; chance is 1 / classes."""
    found, present = count_hits(truth, predicted)
    parts = np.concatenate([found, present], axis=1)
    chance = 1.0 / max(present.shape[1], 1)
    return _score(
        parts, lambda sums: balanced_accuracy(*np.split(sums, 2, axis=-1)), chance, groups, seed
    )


def count_hits(truth: AnyArray, predicted: AnyArray) -> tuple[FloatArray, FloatArray]:
    """(found, present), each float64 [M, K]: 1 in the column of a patch's class, in `found` only where it was predicted."""
    classes, index = np.unique(truth, return_inverse=True)
    present = np.eye(len(classes))[index]
    return present * (predicted == truth)[:, np.newaxis], present


def balanced_accuracy(found: FloatArray, present: FloatArray) -> FloatArray:
    """Mean over the classes of the share found, of sums of `count_hits` [..., K]; a class that is not there is left out."""
    shares = np.divide(found, present, out=np.full_like(found, np.nan), where=present > 0)
    return np.nanmean(shares, axis=-1)


def score_values(
    truth: FloatArray, predicted: FloatArray, *, groups: AnyArray | None = None, seed: int = 0
) -> ProbeScore:
    """R2 of `predicted` [M] or [M, T] against `truth`: mean over the targets, 0 for one that does not vary; chance is 0."""
    truth = np.asarray(truth, np.float64).reshape(len(truth), -1)
    residuals = truth - np.asarray(predicted, np.float64).reshape(truth.shape)
    # About the mean, so that the sums of squares lose no digits.
    centred = truth - truth.mean(axis=0)
    parts = np.concatenate([residuals**2, centred, centred**2, np.ones_like(truth)], axis=1)

    def r2(sums: FloatArray) -> FloatArray:
        squares, total, total_squares, count = np.split(sums, 4, axis=-1)
        variation = total_squares - total**2 / np.maximum(count, 1.0)
        is_varying = variation > 1e-12 * np.maximum(total_squares, 1e-300)
        return np.where(is_varying, 1.0 - squares / np.where(is_varying, variation, 1.0), 0.0).mean(
            axis=-1
        )

    return _score(parts, r2, 0.0, groups, seed)


def spatial_folds(blocks: AnyArray, num_folds: int = 5) -> npt.NDArray[np.int64]:
    """Fold of each patch [N] so that whole blocks fall together and folds are about equally large.

    Raises:
        ValueError: fewer than two blocks: nothing would be left to learn from.
    """
    names, index, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(
            f"blocks can be held out in turn if there are at least 2, got {len(names)}"
        )
    sizes = np.zeros(min(num_folds, len(names)), np.int64)
    fold_of_block = np.empty(len(names), np.int64)
    # Largest first, each to the smallest fold so far.
    for block in np.argsort(-counts, kind="stable"):
        fold_of_block[block] = sizes.argmin()
        sizes[sizes.argmin()] += counts[block]
    return fold_of_block[index]


def too_few(blocks: AnyArray) -> str:
    """Why patches of these `blocks` [N] are too few to be cross-validated; empty when they are not."""
    if len(blocks) < MIN_PATCHES:
        return f"{len(blocks)} patches, at least {MIN_PATCHES} are needed"
    num_blocks = len(np.unique(blocks))
    return (
        f"{num_blocks} blocks, at least {MIN_BLOCKS} are needed" if num_blocks < MIN_BLOCKS else ""
    )


def can_hold_out(labels: AnyArray, folds: npt.NDArray[np.int64]) -> bool:
    """Whether each class of `labels` [N] is still there when any one fold is held out."""
    num_classes = len(np.unique(labels))
    return all(len(np.unique(labels[folds != fold])) == num_classes for fold in np.unique(folds))


def cross_validate_classes(
    features: FloatArray,
    labels: AnyArray,
    folds: npt.NDArray[np.int64],
    *,
    groups: AnyArray | None = None,
) -> ProbeScore:
    """`probe_classes`, each fold of [N] predicted by a probe fitted on the others."""
    return score_classes(
        labels, _out_of_fold(predict_classes, features, labels, folds), groups=groups
    )


def cross_validate_values(
    features: FloatArray,
    values: FloatArray,
    folds: npt.NDArray[np.int64],
    *,
    groups: AnyArray | None = None,
) -> ProbeScore:
    """`probe_values`, each fold of [N] predicted by a probe fitted on the others."""
    return score_values(
        values, _out_of_fold(predict_values, features, values, folds), groups=groups
    )


def _out_of_fold(
    predict: Callable[[FloatArray, Any, FloatArray], AnyArray],
    features: FloatArray,
    targets: AnyArray,
    folds: npt.NDArray[np.int64],
) -> Any:
    predicted = np.empty_like(targets)
    for fold in np.unique(folds):
        held_out = folds == fold
        predicted[held_out] = predict(features[~held_out], targets[~held_out], features[held_out])
    return predicted


def _score(
    parts: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    chance: float,
    groups: AnyArray | None,
    seed: int,
) -> ProbeScore:
    """`statistic` of the sums of `parts` [M, P], and its interval from resampled groups."""
    if not len(parts):
        raise ValueError("a probe needs at least one eval patch, got none")
    found = bootstrap(parts, statistic, groups=groups, seed=seed)
    return ProbeScore(score=found.value, low=found.low, high=found.high, chance=chance)


def _ridge(
    train: FloatArray, targets: FloatArray, weights: FloatArray, features: FloatArray
) -> FloatArray:
    """Predictions [M, T] of a weighted ridge regression whose penalty has the least leave-one-out error.

    Source: Golub, Heath and Wahba 1979, "Generalized cross-validation as a method for
    choosing a good ridge parameter", section 1 (the closed form of the leave-one-out
    error).

    Args:
        train: [N, D].
        targets: [N, T].
        weights: [N], above 0, mean 1.
        features: [M, D].
    """
    if not len(train) or not (
        np.isfinite(train).all() and np.isfinite(targets).all() and np.isfinite(features).all()
    ):
        raise ValueError(
            f"a probe needs finite features and targets of at least one train patch, got {len(train)}"
        )
    rows = train.astype(np.float64)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    # A feature that does not vary tells nothing and stays 0.
    std = np.where(std > 1e-9 * (1.0 + np.abs(mean)), std, np.inf)
    # Not beyond what was seen: a unit that fires in few train patches has a tiny std,
    # and one eval patch in which it fires strongly would outweigh all others.
    others = np.clip(features.astype(np.float64), rows.min(axis=0), rows.max(axis=0))
    rows, others = (rows - mean) / std, (others - mean) / std
    share = weights / weights.sum()
    centre, offset = share @ rows, share @ targets
    root = np.sqrt(weights)[:, np.newaxis]
    left, values, right = np.linalg.svd(root * (rows - centre), full_matrices=False)
    wanted = root * (targets - offset)
    projected = left.T @ wanted  # [R, T]
    best = (np.inf, PENALTIES[-1])
    for penalty in PENALTIES:
        shrink = values**2 / (values**2 + penalty * len(rows))
        leverage = (left**2) @ shrink + share
        error = (wanted - left @ (shrink[:, np.newaxis] * projected)) / np.maximum(
            1.0 - leverage, 1e-9
        )[:, np.newaxis]
        best = min(best, (float((error**2).sum()), float(penalty)))
    slopes = right.T @ ((values / (values**2 + best[1] * len(rows)))[:, np.newaxis] * projected)
    return (others - centre) @ slopes + offset
