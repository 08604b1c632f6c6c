"""Warm-up requests: small calls that TF Serving replays when it loads a model.

Input: signature names and band counts. Output: assets.extra/tf_serving_warmup_requests,
a TFRecord of PredictionLog.
Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import Sensor

WARMUP_NAME = "tf_serving_warmup_requests"
# Plausible values in the middle of each sensor's range: a warm-up runs the same code as
# a real request.
_WARMUP_VALUE: dict[Sensor, float] = {"s1": -15.0, "s2": 0.2}


def write_segmenter_requests(
    assets_dir: str, model_name: str, num_bands: Mapping[Sensor, int], stride: int
) -> None:
    """Write one request each for `serving_default` and `serve_examples`.

    Each has one patch of twice the stride.
    """
    size = 2 * stride
    pixels = {
        sensor: _pixels(sensor, size, channels)[np.newaxis]
        for sensor, channels in num_bands.items()
    }
    requests: dict[str, Mapping[Any, Any]] = {
        "serving_default": pixels,
        "serve_examples": {"examples": np.array(encode_examples(pixels), dtype=object)},
    }
    _write(assets_dir, model_name, requests)


def write_encoder_requests(
    assets_dir: str, model_name: str, num_bands: Mapping[Sensor, int], stride: int
) -> None:
    """Write one request for each `embed_<sensor>`: one patch of twice the stride."""
    requests = {
        f"embed_{sensor}": {sensor: _pixels(sensor, 2 * stride, channels)[np.newaxis]}
        for sensor, channels in num_bands.items()
    }
    _write(assets_dir, model_name, requests)


def encode_examples(pixels: Mapping[Sensor, npt.NDArray[np.float32]]) -> list[bytes]:
    """Return tf.Examples of the shard contract for float32 [B, H, W, C] by sensor.

    The pixels are physical values. A sensor that is not given becomes one band without
    data, since the contract has no optional features.
    """
    first = next(iter(pixels.values()))
    missing = np.full((*first.shape[:3], 1), np.nan, np.float32)
    return [
        records.encode(
            records.PairedPatch(
                patch_id="request",
                s1=pixels.get("s1", missing)[index],
                s2=pixels.get("s2", missing)[index],
                lon=0.0,
                lat=0.0,
                block="request",
                s1_scene_id="request",
                s2_scene_id="request",
                s1_acquired_at=0,
                s2_acquired_at=0,
                orbit_state="unknown",
                cloud_fraction=0.0,
                offset_px=0.0,
                quality=1.0,
            )
        )
        for index in range(first.shape[0])
    ]


def _write(assets_dir: str, model_name: str, requests: Mapping[str, Mapping[Any, Any]]) -> None:
    with tf.io.TFRecordWriter(f"{assets_dir}/{WARMUP_NAME}") as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=model_name, signature_name=signature),
                inputs={name: tf.make_tensor_proto(value) for name, value in inputs.items()},
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _pixels(sensor: Sensor, size: int, channels: int) -> npt.NDArray[np.float32]:
    pixels = np.full((size, size, channels), _WARMUP_VALUE[sensor], np.float32)
    # Real requests have missing pixels too.
    pixels[0, 0] = np.nan
    return pixels
