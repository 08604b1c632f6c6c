"""The segmenter: one or two sensor encoders and a U-Net decoder with skips up to full resolution.

Input: `s1` dB and/or `s2` reflectance, NaN = no data, any H and W divisible by the stride. Output: logits, probabilities and
labels per pixel. Trained by `segment.py`, published by `export.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.batch_norm import BatchNormalization
from models.config import Precision
from models.encoders import SensorEncoder, with_precision
from models.layers import LabelOutput, dtype_policy


@keras.saving.register_keras_serializable(package="terrapair")
class Segmenter(keras.Model):
    """Encoders of the input sensors, joined level by level, and a decoder.

    Call: dict of float32 [B, H, W, C] by sensor -> dict of `logits` float32 [B, H, W, K], `probabilities` float32
    [B, H, W, K] (sum 1), `label` int32 [B, H, W] (0..K-1, 255 where no sensor has data) and `valid_mask` float32
    [B, H, W, 1] (1 where at least one sensor has data).
    Source of the decoder: Ronneberger et al. 2015 (U-Net), arXiv 1505.04597, with a residual encoder.

    Attributes:
        encoders: by sensor.
        sensors: inputs, in order.
        num_classes: K.
        decoder_channels: of the stages, deepest first; the last log2(stride) are used.
        precision: dtype policy of the decoder.
        stride: H and W must be multiples of it.
    """

    def __init__(
        self,
        *,
        encoders: Mapping[Sensor, SensorEncoder],
        num_classes: int,
        decoder_channels: Sequence[int],
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        """Builds the graph.

        Raises:
            ValueError: encoders of different strides, or too few decoder channels.
        """
        sensors = tuple(sensor for sensor in SENSORS if sensor in encoders)
        strides = {encoders[sensor].stride for sensor in sensors}
        if len(strides) != 1:
            raise ValueError(f"all encoders must have one stride, got {sorted(strides)}")
        stride = strides.pop()
        num_stages = stride.bit_length() - 1
        if len(decoder_channels) < num_stages:
            raise ValueError(f"decoder_channels must hold at least {num_stages} values, got {decoder_channels}")
        inputs = {
            sensor: keras.Input((None, None, len(encoders[sensor].bands)), name=sensor, dtype="float32")
            for sensor in sensors
        }
        outputs = [encoders[sensor](inputs[sensor]) for sensor in sensors]
        with dtype_policy(precision):
            # Skips from half of the deepest level's size up to the normalized pixels themselves, with their mask, so that
            # the decoder can tell no data from a mean value.
            skips = [[output[level] for output in outputs] for level in reversed(encoders[sensors[0]].levels[:-1])]
            skips.append([output[name] for output in outputs for name in ("normalized", "valid_mask")])
            x = _concatenate([output[encoders[sensors[0]].levels[-1]] for output in outputs], "deepest")
            for index, (channels, skip) in enumerate(zip(decoder_channels[-num_stages:], skips, strict=True)):
                x = _decoder_stage(x, skip, channels, f"decoder{index}")
        # float32 by name: probabilities near 0 and 1 and the loss need the digits.
        logits = keras.layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
        probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
        masks = [output["valid_mask"] for output in outputs]
        valid_mask = masks[0] if len(masks) == 1 else keras.layers.Maximum(dtype="float32", name="any_valid")(masks)
        label = LabelOutput(name="label")(probabilities, valid_mask)
        kwargs.setdefault("name", "segmenter")
        super().__init__(
            inputs=inputs,
            outputs={"logits": logits, "probabilities": probabilities, "label": label, "valid_mask": valid_mask},
            **kwargs,
        )
        self.encoders, self.sensors, self.num_classes = dict(encoders), sensors, num_classes
        self.decoder_channels, self.precision, self.stride = tuple(decoder_channels), precision, stride

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, encoders serialized."""
        return {
            "encoders": {s: keras.saving.serialize_keras_object(m) for s, m in self.encoders.items()},
            "num_classes": self.num_classes,
            "decoder_channels": self.decoder_channels,
            "precision": self.precision,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Segmenter:
        """Inverse of `get_config`."""
        encoders = {s: keras.saving.deserialize_keras_object(m, custom_objects) for s, m in config["encoders"].items()}
        return cls(**{**config, "encoders": encoders})


def with_segmenter_precision(model: Segmenter, precision: Precision) -> Segmenter:
    """The segmenter itself when it has that dtype policy, else a copy with the same (float32) weights that has."""
    if model.precision == precision:
        return model
    copy = Segmenter(
        encoders={sensor: with_precision(encoder, precision) for sensor, encoder in model.encoders.items()},
        num_classes=model.num_classes,
        decoder_channels=model.decoder_channels,
        precision=precision,
        name=model.name,
    )
    copy.set_weights(model.get_weights())
    return copy


def _concatenate(tensors: list[Any], name: str) -> Any:
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate(name=f"{name}_concat")(tensors)


def _decoder_stage(x: Any, skip: list[Any], channels: int, name: str) -> Any:
    """Twice the size, joined with the skip, two convolutions."""
    x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)
    x = _concatenate([x, *skip], name)
    for index in range(2):
        # No bias: the normalization behind it would take it out again.
        x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv{index}")(x)
        x = BatchNormalization(name=f"{name}_bn{index}")(x)
        x = keras.layers.Activation("relu", name=f"{name}_relu{index}")(x)
    return x
