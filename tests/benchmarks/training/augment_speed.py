"""Measure the time that the augmentations of one batch take.

A batch has 32 patches of 64 px with gaps, 2 radar bands and 13 optical bands. All cores
are used.
"""

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS
from models.augmentation import no_data
from models.augmentation.augmenter import make_augmenter
from models.augmentation.blurring import random_blur
from models.augmentation.config import PhotometryConfig, StrongAugmentConfig
from models.augmentation.crops import random_crop
from models.augmentation.radar import random_speckle
from models.augmentation.symmetries import random_symmetry

NUM_PATCHES, SIZE_PX, NUM_RUNS = 32, 64, 30


def measure() -> dict[str, object]:
    """Return the median milliseconds per batch of each augmentation."""
    statistics = {
        "s1": [SimpleNamespace(band=band, mean=-12.0) for band in S1_DEFAULT_BANDS],
        "s2": [SimpleNamespace(band=band, mean=0.2) for band in S2_L1C_BANDS],
    }
    manifest = SimpleNamespace(statistics=statistics.__getitem__)
    strong = StrongAugmentConfig()
    augment = make_augmenter(strong, manifest)
    photometry = PhotometryConfig()
    s1, s2 = _pixels(len(S1_DEFAULT_BANDS), -12.0), _pixels(len(S2_L1C_BANDS), 0.2)
    steps = {
        "s1, strong set": lambda seed: augment({"s1": s1}, seed),
        "s2, strong set": lambda seed: augment({"s2": s2}, seed),
        "s1 and s2, symmetries": lambda seed: random_symmetry({"s1": s1, "s2": s2}, seed),
        "s1 and s2, no data hidden": lambda seed: _hidden(s1, s2, seed),
        "s2, crop": lambda seed: random_crop({"s2": s2}, strong.geometry, seed),
        "s2, blur": lambda seed: random_blur(
            s2, photometry.blur_probability, photometry.max_blur_sigma_px, seed
        ),
        "s1, speckle": lambda seed: random_speckle(s1, photometry.s1, seed),
    }
    return {name: _median_ms(step) for name, step in steps.items()}


def _pixels(num_bands: int, value: float) -> tf.Tensor:
    rng = np.random.default_rng(0)
    image = value * rng.uniform(0.5, 1.5, (NUM_PATCHES, SIZE_PX, SIZE_PX, num_bands))
    image[::4, :8] = np.nan
    return tf.constant(image, tf.float32)


def _hidden(s1: tf.Tensor, s2: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
    images = no_data.hide_gaps({"s1": s1, "s2": s2}, seed)
    return [
        no_data.give_gaps(images[name], no_data.pixel_mask(old), seed)
        for name, old in (("s1", s1), ("s2", s2))
    ]


def _median_ms(step: Callable[[tf.Tensor], object]) -> float:
    compiled = tf.function(step, autograph=False)
    times = []
    for number in range(NUM_RUNS + 3):
        seed = tf.constant([number, 1], tf.int64)
        start = time.perf_counter()
        compiled(seed)
        times.append(time.perf_counter() - start)
    # The first runs include the tracing of the graph.
    return round(1e3 * float(np.median(times[3:])), 1)
