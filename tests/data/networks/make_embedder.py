"""Publish an encoder whose answer has a closed form, without Keras and training.

A cell of its features is the mean of the valid pixels of STRIDE x STRIDE pixels, 0 for
no data. The embedding is the mean of all cells, scaled to unit norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.data.networks import make_segmenter

STRIDE = 4


def publish(folder: Path, bands: Mapping[str, tuple[str, ...]]) -> str:
    """Write the SavedModel with one signature per sensor, and its card."""
    model = tf.Module()
    signatures = {f"embed_{sensor}": _embed(sensor, len(names)) for sensor, names in bands.items()}
    model.kept = list(signatures.values())
    tf.saved_model.save(model, str(folder), signatures)
    return make_segmenter.write_card(
        folder,
        bands,
        name="encoder",
        task="pretraining",
        stride=STRIDE,
        signatures=list(signatures),
        pixel_size_m=None,
    )


def _embed(sensor: str, num_bands: int):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, num_bands], tf.float32, sensor)])
    def embed(pixels):
        valid = tf.reduce_all(tf.math.is_finite(pixels), -1, keepdims=True)
        features = tf.nn.avg_pool2d(tf.where(valid, pixels, 0.0), STRIDE, STRIDE, "VALID")
        embedding = tf.math.l2_normalize(tf.reduce_mean(features, [1, 2]), -1)
        return {"features": features, "embedding": embedding}

    return embed


def embedding(pixels: np.ndarray) -> np.ndarray:
    """Return the embedding [C] of a patch [H, W, C] of multiples of the stride."""
    valid = np.isfinite(pixels).all(-1, keepdims=True)
    mean = np.where(valid, pixels, 0.0).mean((0, 1))
    return mean / np.linalg.norm(mean)
