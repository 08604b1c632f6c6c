"""The functions behind the signatures of published models.

Input: Keras models. Output: functions of tensors, and their tensor specs, for
`keras.export.ExportArchive`. Called by `export.py` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from models.encoders import SensorEncoder
from models.input_pipeline import parse_examples
from models.segmenter import Segmenter


def pixel_specs(model: Segmenter) -> list[tf.TensorSpec]:
    """Named float32 [B, H, W, C] inputs of a segmenter, in the order of its sensors."""
    return [
        tf.TensorSpec([None, None, None, len(model.encoders[sensor].bands)], tf.float32, sensor)
        for sensor in model.sensors
    ]


def segment(model: Segmenter, inputs: Mapping[Any, Any]) -> dict[str, Any]:
    """`probabilities` float32 [B, H, W, K] and `label` int32 [B, H, W] (255 = no data) of physical pixels by sensor."""
    for pixels in inputs.values():
        check_size(pixels, model.stride)
    outputs = model(dict(inputs), training=False)
    return {"probabilities": outputs["probabilities"], "label": outputs["label"]}


def pixels_endpoint(model: Segmenter) -> Callable[..., dict[str, Any]]:
    """`serving_default`: one tensor per sensor."""

    # Positional in the order of the sensors; the names of the TensorSpecs become the
    # names of the signature's inputs.
    def serving_default(*pixels: Any) -> dict[str, Any]:
        return segment(model, dict(zip(model.sensors, pixels, strict=True)))

    return serving_default


def examples_endpoint(model: Segmenter) -> Callable[[Any], dict[str, Any]]:
    """`serve_examples`: tf.string [B] tf.Examples of the shard contract, all of one size."""
    # Only what the model looks at is parsed, so that a Sentinel-1 model also serves
    # examples without Sentinel-2.
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}

    def serve_examples(examples: Any) -> dict[str, Any]:
        return segment(model, parse_examples(examples, num_bands))

    return serve_examples


def embed_endpoint(encoder: SensorEncoder, head: keras.Model) -> Callable[[Any], dict[str, Any]]:
    """`embed_<sensor>`: one tensor of that sensor."""

    def embed_pixels(pixels: Any) -> dict[str, Any]:
        return embed(encoder, head, pixels)

    return embed_pixels


def embed(encoder: SensorEncoder, head: keras.Model, pixels: Any) -> dict[str, Any]:
    """`features` float32 [B, h, w, D] and `embedding` float32 [B, E], unit norm, of physical pixels [B, H, W, C]."""
    check_size(pixels, encoder.stride)
    outputs = encoder(pixels, training=False)
    return {"features": outputs["features"], "embedding": head(outputs["pooled"], training=False)}


def check_size(pixels: Any, stride: int) -> None:
    """Refuses pixels [B, H, W, C] whose H or W is no multiple of `stride`, inside the graph too.

    Raises:
        tf.errors.InvalidArgumentError: when run; without it the skips of the decoder
        fail with a message about shapes only.
    """
    size = tf.shape(pixels)[1:3]
    tf.debugging.assert_equal(
        size % stride, [0, 0], f"height and width must be multiples of {stride}"
    )
