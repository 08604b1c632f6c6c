"""The functions behind the signatures of published models.

Input: Keras models. Output: functions of tensors, and the tensor specs for which
`export.py` traces them.
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
    """Return the named float32 [B, H, W, C] inputs of a segmenter, in sensor order."""
    return [
        tf.TensorSpec([None, None, None, len(model.encoders[sensor].bands)], tf.float32, sensor)
        for sensor in model.sensors
    ]


def segment(model: Segmenter, inputs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the segmentation of physical pixels [B, H, W, C] by sensor; B may be 0.

    Returns:
        `probabilities` float32 [B, H, W, K] and `label` int32 [B, H, W], 255 = no data.
    """
    num_patches = tf.shape(next(iter(inputs.values())))[0]
    cells = {sensor: whole_cells(pixels, model.stride) for sensor, pixels in inputs.items()}
    outputs = model(
        {sensor: never_empty(pixels, model.stride) for sensor, pixels in cells.items()},
        training=False,
    )
    return {name: outputs[name][:num_patches] for name in ("probabilities", "label")}


def pixels_endpoint(model: Segmenter) -> Callable[..., dict[str, Any]]:
    """Return the function of `serving_default`: one tensor per sensor."""

    # Positional, in the order of the sensors. The signature's inputs get the names of
    # the TensorSpecs.
    def serving_default(*pixels: Any) -> dict[str, Any]:
        return segment(model, dict(zip(model.sensors, pixels, strict=True)))

    return serving_default


def examples_endpoint(
    model: Segmenter, segment_pixels: Callable[..., dict[str, Any]]
) -> Callable[[Any], dict[str, Any]]:
    """Return the function of `serve_examples`.

    It takes tf.string [B]: tf.Examples of the shard contract, all of one patch size.
    Without any example the size is unknown; the empty outputs then are of one stride.

    Args:
        model: names the sensors and their bands.
        segment_pixels: the function of `serving_default`. Both signatures share its
            graph when it is traced.
    """
    # Parse only the model's inputs, so that a Sentinel-1 model also serves examples
    # without Sentinel-2.
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}

    def serve_examples(examples: Any) -> dict[str, Any]:
        pixels = parse_examples(examples, num_bands)
        return segment_pixels(*(pixels[sensor] for sensor in model.sensors))

    return serve_examples


def embed_endpoint(encoder: SensorEncoder, head: keras.Model) -> Callable[[Any], dict[str, Any]]:
    """Return the function of `embed_<sensor>`: one tensor of that sensor."""

    def embed_pixels(pixels: Any) -> dict[str, Any]:
        return embed(encoder, head, pixels)

    return embed_pixels


def embed(encoder: SensorEncoder, head: keras.Model, pixels: Any) -> dict[str, Any]:
    """Return the features of physical pixels [B, H, W, C]; B may be 0.

    Returns:
        `features` float32 [B, h, w, D] and `embedding` float32 [B, E], unit norm.
    """
    num_patches = tf.shape(pixels)[0]
    cells = whole_cells(pixels, encoder.stride)
    outputs = encoder(never_empty(cells, encoder.stride), training=False)
    embedding = head(outputs["pooled"], training=False)
    return {
        "features": outputs["features"][:num_patches],
        "embedding": embedding[:num_patches],
    }


def never_empty(pixels: Any, stride: int) -> Any:
    """Return pixels [B, H, W, C] as they are, or one patch in place of no patch.

    Some kernels (oneDNN's on CPU) refuse a batch of 0 patches. The caller cuts the
    outputs back to B. The patch has no data. It has H and W of `pixels`; where they are
    0, one `stride`.
    """
    shape = tf.shape(pixels)
    is_empty = tf.cast(shape[0] == 0, tf.int32)
    missing = is_empty * tf.concat([[1], stride * tf.cast(shape[1:3] == 0, tf.int32), [0]], axis=0)
    zeros = tf.zeros_like(missing)
    filled = tf.pad(pixels, tf.stack([zeros, missing], axis=1), constant_values=float("nan"))
    # Layers need the number of channels at tracing; `tf.pad` loses it.
    return tf.ensure_shape(filled, [None, None, None, pixels.shape[-1]])


def whole_cells(pixels: Any, stride: int) -> Any:
    """Return pixels [B, H, W, C] as they are, after a check of H and W.

    The check is part of the graph, and the returned tensor waits for it. Without the
    check the skips of the decoder would fail with a message about shapes; without the
    wait they sometimes fail before it.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, if H or W is not a multiple
            of `stride`.
    """
    size = tf.shape(pixels)[1:3]
    check = tf.debugging.assert_equal(
        size % stride, [0, 0], f"height and width must be multiples of {stride}"
    )
    with tf.control_dependencies([check]):
        return tf.identity(pixels)
