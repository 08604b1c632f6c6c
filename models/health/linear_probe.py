"""Linear probes: how well a linear model predicts classes or values from features.

Input: features and targets of train and eval patches. Output: a score with a bootstrap
interval. NumPy only. The probe is ridge regression in closed form, so it has no seed,
no steps and no learning rate that could favour one encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.intervals import Resampling, bootstrap

FloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[Any]

PENALTIES = np.logspace(-4, 4, 17)
"""Ridge penalties to try, per train patch, on standardized features.

The smallest has almost no effect; the largest leaves little but the mean.
"""

MIN_PATCHES = 20
MIN_BLOCKS = 3
"""With fewer patches or blocks, a held-out fold leaves too little to fit on."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """How well a probe predicts patches that it was not fitted on.

    Attributes:
        score: balanced accuracy of classes, 0-1; or R2 of values, at most 1, below 0
            when the prediction is worse than the mean.
        low: lower end of the 95 % bootstrap interval.
        high: upper end of the interval.
        chance: score of features without any information: 1 / number of classes, or 0.
    """

    score: float
    low: float
    high: float
    chance: float


def predict_classes(
    train_features: FloatArray, train_labels: AnyArray, features: FloatArray
) -> AnyArray:
    """Return the predicted class of each row of `features`, [M].

    Fits least squares to class membership. Every class has the same total weight.

    Args:
        train_features: features of the train patches [N, D]; standardized here.
        train_labels: class of each train patch [N], of any type.
        features: features to classify [M, D].

    Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical
    Learning", section 4.2.

    Raises:
        ValueError: there are fewer than two classes.
    """
    classes, index, counts = np.unique(train_labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"a probe of classes needs at least 2 classes, got {len(classes)}")
    # Give rare classes such as water the same weight as frequent ones: balanced
    # accuracy counts all classes alike.
    weights = len(index) / (len(classes) * counts[index])
    membership = np.eye(len(classes))[index]
    return classes[_ridge(train_features, membership, weights, features).argmax(axis=1)]


def predict_values(
    train_features: FloatArray, train_values: FloatArray, features: FloatArray
) -> FloatArray:
    """Return the predicted values of `features`, [M] or [M, T], by ridge regression.

    Args:
        train_features: features of the train patches [N, D]; standardized here.
        train_values: targets of the train patches [N] or [N, T].
        features: features to predict from [M, D].

    Raises:
        ValueError: there is no train patch, or a value is not finite.
    """
    values = np.asarray(train_values, np.float64)
    # Scale all targets alike: one penalty is chosen for all of them together.
    scale = values.std(axis=0) if len(values) else np.ones(())
    scale = np.where(scale > 0, scale, 1.0)
    targets = (values / scale).reshape(len(values), -1)
    predicted = _ridge(train_features, targets, np.ones(len(values)), features)
    return predicted.reshape(len(features), *values.shape[1:]) * scale


def score_classes(
    truth: AnyArray, predicted: AnyArray, *, groups: AnyArray | None = None, seed: int = 0
) -> ProbeScore:
    """Return the balanced accuracy of predicted classes; chance is 1 / classes.

    Args:
        truth: true class of each patch [M]. A class without patches does not count.
        predicted: predicted class of each patch [M].
        groups: group of each patch [M]; the bootstrap draws whole groups. None: each
            patch is its own group.
        seed: seed of the bootstrap.

    Raises:
        ValueError: there is no patch.
    """
    found, present = count_hits(truth, predicted)
    parts = np.concatenate([found, present], axis=1)
    chance = 1.0 / max(present.shape[1], 1)
    return _score(
        parts, lambda sums: balanced_accuracy(*np.split(sums, 2, axis=-1)), chance, groups, seed
    )


def count_hits(truth: AnyArray, predicted: AnyArray) -> tuple[FloatArray, FloatArray]:
    """Return (found, present), float64 [M, K] each, for M patches and K classes.

    `present` is 1 in the column of a patch's true class. `found` is 1 there only if the
    prediction is right.
    """
    classes, index = np.unique(truth, return_inverse=True)
    present = np.eye(len(classes))[index]
    return present * (predicted == truth)[:, np.newaxis], present


def balanced_accuracy(found: FloatArray, present: FloatArray) -> FloatArray:
    """Return the mean over the classes of the share of patches found, 0-1.

    Takes sums of `count_hits` over patches, [..., K]. Classes without patches are left
    out.
    """
    shares = np.divide(found, present, out=np.full_like(found, np.nan), where=present > 0)
    return np.nanmean(shares, axis=-1)


def score_values(
    truth: FloatArray, predicted: FloatArray, *, groups: AnyArray | None = None, seed: int = 0
) -> ProbeScore:
    """Return the R2 of predicted values, the mean over the targets; chance is 0.

    R2 is 1 - (squared errors) / (squared deviations from the mean). A target that does
    not vary counts 0.

    Args:
        truth: true values [M] or [M, T].
        predicted: predicted values, of the same shape.
        groups: group of each patch [M]; the bootstrap draws whole groups. None: each
            patch is its own group.
        seed: seed of the bootstrap.

    Raises:
        ValueError: there is no patch.
    """
    truth = np.asarray(truth, np.float64).reshape(len(truth), -1)
    residuals = truth - np.asarray(predicted, np.float64).reshape(truth.shape)
    # Subtract the mean first: sums of squares of large values would lose digits.
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
    """Return the fold of each patch [N], for cross-validation.

    Patches of one block share a fold. Folds have about the same number of patches.

    Raises:
        ValueError: there are fewer than two blocks, so nothing would be left to fit on.
    """
    names, index, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"blocks to hold out in turn must be at least 2, got {len(names)}")
    sizes = np.zeros(min(num_folds, len(names)), np.int64)
    fold_of_block = np.empty(len(names), np.int64)
    # Assign the largest block first, always to the smallest fold so far.
    for block in np.argsort(-counts, kind="stable"):
        fold_of_block[block] = sizes.argmin()
        sizes[sizes.argmin()] += counts[block]
    return fold_of_block[index]


def too_few(blocks: AnyArray) -> str:
    """Return why `blocks` [N] are too few to cross-validate, or an empty text."""
    if len(blocks) < MIN_PATCHES:
        return f"{len(blocks)} patches, at least {MIN_PATCHES} are needed"
    num_blocks = len(np.unique(blocks))
    return (
        f"{num_blocks} blocks, at least {MIN_BLOCKS} are needed" if num_blocks < MIN_BLOCKS else ""
    )


def can_hold_out(labels: AnyArray, folds: npt.NDArray[np.int64]) -> bool:
    """Return whether every class of `labels` [N] remains when any fold is held out."""
    num_classes = len(np.unique(labels))
    return all(len(np.unique(labels[folds != fold])) == num_classes for fold in np.unique(folds))


def cross_validate_classes(
    features: FloatArray,
    labels: AnyArray,
    folds: npt.NDArray[np.int64],
    *,
    groups: AnyArray | None = None,
) -> ProbeScore:
    """Return the score of classes, each fold predicted by a probe fitted on the others.

    Args:
        features: features of the patches [N, D].
        labels: class of each patch [N].
        folds: fold of each patch [N].
        groups: group of each patch [N], for the bootstrap.
    """
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
    """Return the score of values, each fold predicted by a probe fitted on the others.

    Args:
        features: features of the patches [N, D].
        values: targets [N] or [N, T].
        folds: fold of each patch [N].
        groups: group of each patch [N], for the bootstrap.
    """
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
    """Return `statistic` of the sums of `parts` [M, P], with its interval."""
    if not len(parts):
        raise ValueError("a probe needs at least one eval patch, got none")
    found = bootstrap(parts, statistic, groups=groups, how=Resampling(seed=seed))
    return ProbeScore(score=found.value, low=found.low, high=found.high, chance=chance)


def _ridge(
    train: FloatArray, targets: FloatArray, weights: FloatArray, features: FloatArray
) -> FloatArray:
    """Return predictions [M, T] of a weighted ridge regression.

    Its penalty is the one of `PENALTIES` with the least leave-one-out error.

    Source: Golub, Heath and Wahba 1979, "Generalized cross-validation as a method for
    choosing a good ridge parameter", section 1 (the closed form of the leave-one-out
    error).

    Args:
        train: features of the train patches [N, D].
        targets: targets of the train patches [N, T].
        weights: weights of the train patches [N], above 0, mean 1.
        features: features to predict from [M, D].
    """
    if not len(train) or not (
        np.isfinite(train).all() and np.isfinite(targets).all() and np.isfinite(features).all()
    ):
        raise ValueError(
            "a probe needs finite features and targets of at least one train patch, "
            f"got {len(train)} patches"
        )
    rows = train.astype(np.float64)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    # A feature that does not vary carries no information: dividing by infinity makes it
    # 0.
    std = np.where(std > 1e-9 * (1.0 + np.abs(mean)), std, np.inf)
    # Clip to the range of the train patches. A unit that fires in few train patches has
    # a tiny standard deviation; one eval patch with a strong value would outweigh all
    # others.
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
