"""Make scores of invented patches.

The real code counts them from random labels and probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from beam_jobs.contracts.labels import IGNORE
from models.scores.counting import count_pixels
from models.scores.patch_scores import PatchScores


def make_pixels(
    rng: np.random.Generator, num_classes: int, size: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth [H, W], prediction [H, W] and probabilities [H, W, K].

    The probabilities are better than chance. Some pixels of the truth and of the
    prediction are 255.
    """
    truth = rng.integers(num_classes, size=(size, size)).astype(np.uint8)
    logits = rng.normal(0.0, 1.5, (size, size, num_classes)) + 1.5 * np.eye(num_classes)[truth]
    probabilities = special.softmax(logits, axis=-1).astype(np.float32)
    prediction = probabilities.argmax(axis=-1).astype(np.int32)
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    prediction[rng.random(truth.shape) < 0.1] = IGNORE
    return truth, prediction, probabilities


def make_scores(
    num_classes: int = 2, num_patches: int = 12, num_blocks: int = 6, seed: int = 0
) -> PatchScores:
    """Return scores of patches that differ in place, orbit and cloud fraction.

    One patch has no counted pixel.
    """
    rng = np.random.default_rng(seed)
    counts: list[dict[str, Any]] = []
    for index in range(num_patches):
        truth, prediction, probabilities = make_pixels(rng, num_classes)
        if index == 3:
            truth[:] = IGNORE
        counts.append(count_pixels(truth, prediction, probabilities))
    number = np.arange(num_patches)
    arrays = {name: np.stack([count[name] for count in counts]) for name in counts[0]}
    return PatchScores(
        class_names=tuple(f"class{index}" for index in range(num_classes)),
        threshold=0.5 if num_classes == 2 else None,
        patch_id=np.array([f"patch{index}" for index in number]),
        block=np.array([f"block{index % num_blocks}" for index in number]),
        s1_scene_id=np.array([f"s1-{index // 4}" for index in number]),
        s2_scene_id=np.array([f"s2-{index // 4}" for index in number]),
        orbit_state=np.where(number % 2, "ascending", "descending"),
        event=np.array(["flood-b", "", "flood-a"])[number // 4 % 3],
        cloud_fraction=np.where(number % 5 == 4, np.nan, 0.2 * (number % 5)).astype(np.float32),
        lat=np.linspace(-80.0, 80.0, num_patches).astype(np.float32),
        majority_label=np.where(number == 3, IGNORE, number % num_classes),
        loss=rng.uniform(1.0, 9.0, num_patches),
        **arrays,
    )
