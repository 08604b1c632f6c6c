"""The segmenter: one or two sensor encoders, and a head on their feature pyramids.

Input: `s1` dB and/or `s2` reflectance, NaN = no data, any H and W divisible by the
stride. Output: logits, probabilities and labels per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.config import Border, Precision
from models.encoders import SensorEncoder, with_precision
from models.heads.registry import get_head
from models.layers.masked import LabelOutput, dtype_policy
from models.segment_config import HeadName


@keras.saving.register_keras_serializable(package="terrapair")
class Segmenter(keras.Model):
    """Encoders of the input sensors, and a head of `models/heads` that joins them.

    Call: dict of float32 [B, H, W, C] by sensor -> dict of `logits` float32 [B, H, W,
    K], `probabilities` float32 [B, H, W, K] (sum 1), `label` int32 [B, H, W] (0..K-1,
    255 where no sensor has data) and `valid_mask` float32 [B, H, W, 1] (1 where at
    least one sensor has data).

    Attributes:
        encoders: by sensor.
        sensors: inputs, in order.
        num_classes: K.
        decoder_channels: widths of the head's layers; see `SegmentConfig`.
        head: name of the head.
        interpolation: how a U-Net upsamples, "nearest" or "bilinear".
        border: what the head's convolutions see beyond the border.
        precision: dtype policy of the head.
        stride: H and W must be multiples of it.
    """

    def __init__(
        self,
        *,
        encoders: Mapping[Sensor, SensorEncoder],
        num_classes: int,
        decoder_channels: Sequence[int],
        head: HeadName = "unet",
        interpolation: str = "nearest",
        border: Border = "zeros",
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        """Build the graph.

        Raises:
            ValueError: encoders of different strides, too few decoder channels, or an
                unknown head.
        """
        sensors = tuple(sensor for sensor in SENSORS if sensor in encoders)
        strides = {encoders[sensor].stride for sensor in sensors}
        if len(strides) != 1:
            raise ValueError(f"all encoders must have one stride, got {sorted(strides)}")
        inputs = {
            sensor: keras.Input(
                (None, None, len(encoders[sensor].bands)), name=sensor, dtype="float32"
            )
            for sensor in sensors
        }
        outputs = [encoders[sensor](inputs[sensor]) for sensor in sensors]
        # The defaults of head and border are those of files from before there was a
        # choice; they do not name them.
        with dtype_policy(precision):
            logits = get_head(head)(
                outputs,
                encoders[sensors[0]].levels,
                decoder_channels,
                num_classes,
                interpolation,
                border,
            )
        probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
        masks = [output["valid_mask"] for output in outputs]
        valid_mask = (
            masks[0]
            if len(masks) == 1
            else keras.layers.Maximum(dtype="float32", name="any_valid")(masks)
        )
        label = LabelOutput(name="label")(probabilities, valid_mask)
        kwargs.setdefault("name", "segmenter")
        super().__init__(
            inputs=inputs,
            outputs={
                "logits": logits,
                "probabilities": probabilities,
                "label": label,
                "valid_mask": valid_mask,
            },
            **kwargs,
        )
        self.encoders, self.sensors, self.num_classes = dict(encoders), sensors, num_classes
        self.decoder_channels, self.head, self.interpolation = (
            tuple(decoder_channels),
            head,
            interpolation,
        )
        self.border, self.precision, self.stride = border, precision, strides.pop()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with serialized encoders."""
        return {
            "encoders": {
                s: keras.saving.serialize_keras_object(m) for s, m in self.encoders.items()
            },
            "num_classes": self.num_classes,
            "decoder_channels": self.decoder_channels,
            "head": self.head,
            "interpolation": self.interpolation,
            "border": self.border,
            "precision": self.precision,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Segmenter:
        """Return the model of `get_config`'s result."""
        encoders = {
            s: keras.saving.deserialize_keras_object(m, custom_objects)
            for s, m in config["encoders"].items()
        }
        # Files from before there was a choice do not name the interpolation.
        return cls(**{"interpolation": "bilinear", **config, "encoders": encoders})


def with_segmenter_precision(model: Segmenter, precision: Precision) -> Segmenter:
    """Return a segmenter with that dtype policy and the same (float32) weights.

    It is `model` itself when the policy is the same, else a copy.
    """
    if model.precision == precision:
        return model
    copy = Segmenter(
        encoders={
            sensor: with_precision(encoder, precision) for sensor, encoder in model.encoders.items()
        },
        num_classes=model.num_classes,
        decoder_channels=model.decoder_channels,
        head=model.head,
        interpolation=model.interpolation,
        border=model.border,
        precision=precision,
        name=model.name,
    )
    copy.set_weights(model.get_weights())
    return copy
