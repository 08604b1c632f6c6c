"""Publish a segmenter whose answer has a closed form, without Keras and training.

It sees all bands of its sensors. The probability of water in a pixel is the sigmoid of
the mean brightness of 9 x 9 pixels, and pixels without data count as 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import ndimage

from models.published import golden

STRIDE = 4
REACH = 4
"""How far, in pixels, the segmenter looks."""
CLASSES = {"dry": "#d9c9a3", "water": "#1f5fbf"}
_CENTRE = {"s1": -15.0, "s2": 0.2}
_SLOPE = {"s1": 0.3, "s2": 8.0}


def publish(
    folder: Path, bands: Mapping[str, tuple[str, ...]], *, bias: float = 0.0, **card: object
) -> str:
    """Write the SavedModel and its card.

    `bias` is added to the logit of water. `card` replaces entries of the card.
    """
    model = tf.Module()
    specs = [tf.TensorSpec([None, None, None, len(bands[s])], tf.float32, s) for s in bands]

    @tf.function(input_signature=specs)
    def serve(*pixels):
        score = 0.0
        for sensor, values in zip(bands, pixels, strict=True):
            tf.debugging.assert_equal(tf.shape(values)[1:3] % STRIDE, [0, 0])
            bright = tf.reduce_mean((values - _CENTRE[sensor]) * _SLOPE[sensor], -1, keepdims=True)
            bright = tf.where(tf.math.is_finite(bright), bright, 0.0)
            kernel = tf.ones([2 * REACH + 1, 2 * REACH + 1, 1, 1]) / (2 * REACH + 1) ** 2
            score += tf.nn.conv2d(bright, kernel, 1, "SAME")
        water = tf.sigmoid(bias - score)
        return {"probabilities": tf.concat([1.0 - water, water], -1)}

    model.serve = serve
    tf.saved_model.save(model, str(folder), {"serving_default": serve})
    return write_card(folder, bands, **card)


def golden_calls(folder: Path) -> list[golden.Golden]:
    """Return the answers of a published segmenter of radar to the golden patches."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    calls = []
    for pixels in golden.make_pixels({"s1": 2}, STRIDE):
        outputs = signature(s1=tf.constant(pixels["s1"]))
        calls.append(
            golden.Golden(
                signature="serving_default",
                inputs={"s1": pixels["s1"]},
                outputs={name: value.numpy() for name, value in outputs.items()},
            )
        )
    return calls


def publish_encoder(folder: Path, bands: tuple[str, ...]) -> str:
    """Write a model of another task: its only signature is `embed_s1`, a mean."""
    model = tf.Module()
    spec = tf.TensorSpec([None, None, None, len(bands)], tf.float32, "s1")

    @tf.function(input_signature=[spec])
    def embed(pixels):
        return {"embedding": tf.reduce_mean(pixels, [1, 2])}

    tf.saved_model.save(model, str(folder), {"embed_s1": embed})
    return write_card(folder, {"s1": bands}, task="pretraining")


def write_card(folder: Path, bands: Mapping[str, tuple[str, ...]], **card: object) -> str:
    """Write a card beside a SavedModel, and return the folder."""
    (folder / "assets.extra").mkdir()
    described = {
        "name": "flood",
        "task": "segmentation",
        "inputs": {sensor: {"bands": list(names)} for sensor, names in bands.items()},
        "stride": STRIDE,
        "class_names": list(CLASSES),
        "class_colors": list(CLASSES.values()),
        "threshold": 0.6,
        "pixel_size_m": 10.0,
        "s2_processing_level": "L2A" if "s2" in bands else None,
        "config": {"modality_dropout": 0.0},
        "data_manifest_sha256": "0" * 64,
        "code_version": "0.1.0",
        **card,
    }
    (folder / "assets.extra" / "model_card.json").write_text(json.dumps(described))
    return str(folder)


def water(pixels: Mapping[str, np.ndarray], bias: float = 0.0) -> np.ndarray:
    """Return the probability of water [H, W] in one pass over a whole scene.

    The scene is mirrored at its borders.
    """
    score = 0.0
    for sensor, values in pixels.items():
        bright = ((values - _CENTRE[sensor]) * _SLOPE[sensor]).mean(-1)
        bright = np.where(np.isfinite(bright), bright, 0.0)
        score = score + ndimage.uniform_filter(bright, 2 * REACH + 1, mode="mirror")
    return 1.0 / (1.0 + np.exp(score - bias))
