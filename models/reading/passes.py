"""Passes over data sets that end at once, and are decoded beside the caller's work."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def one_pass(
    batches: tf.data.Dataset, decode: Callable[..., dict[str, tf.Tensor]]
) -> tf.data.Dataset:
    """Return `batches` decoded ahead of their reader, in order, without autotuning."""
    return untuned(batches.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return `dataset` without tf.data's autotuning.

    Where it says AUTOTUNE, TensorFlow then makes one call per processor, at most 16.
    The tuner wakes after 10 ms, 20 ms, 40 ms and so on up to a minute. It may miss that
    its iterator is deleted, and the deletion waits for it: as long again as the
    iterator lived. Of ten iterators that were used for 1.5 s, four took 1 s to delete;
    without the tuner none did.

    A long training gains more from the tuner than it loses at its end: see
    `models.training.training.MIN_TUNED_STEPS`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
