"""The encoder of one sensor, on a keras-cv ResNet.

Input: float32 [B, H, W, C] in dB or reflectance, NaN = no data, H and W divisible by
the stride. Output: a dict with a feature pyramid and pooled features (see
`SensorEncoder`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.manifest import Manifest
from models.config import TORCH_PREFIX, Backbone, Border, EncoderConfig, Norm, Precision
from models.layers.batch_norm import BatchNormalization
from models.layers.convolution import Conv2D
from models.layers.group_norm import GroupNormalization
from models.layers.masked import MaskedGlobalAveragePooling2D, PixelNormalization, dtype_policy
from models.layers.torch_resnet import with_torch_semantics

# tensorflow-transform, which TFX imports, sets this variable to 1 if it is not set.
# keras-cv then mixes two versions of Keras, or finds none where tf_keras is missing.
_TWO_KERAS = "keras-cv runs on tf_keras: set TF_USE_LEGACY_KERAS=0 before TensorFlow is imported"
try:
    from keras_cv.models import ResNetBackbone
    from keras_cv.src.backend.config import keras_3
except ValueError as error:
    raise ImportError(_TWO_KERAS) from error
if not keras_3():
    raise ImportError(_TWO_KERAS)

NUM_NORM_GROUPS = 32
"""Source: Wu and He 2018, arXiv 1803.08494, section 4.1."""

# Filters, blocks and strides of the stages after the stem (64 filters, stride 4).
# Source: He et al. 2015, arXiv 1512.03385, table 1; "small" keeps one basic block in
# each of three thin stages.
_STAGES: dict[str, dict[str, Any]] = {
    "small": {
        "filters": (64, 96, 128),
        "blocks": (1, 1, 1),
        "strides": (1, 2, 2),
        "block_type": "basic_block",
    },
    "resnet18": {
        "filters": (64, 128, 256, 512),
        "blocks": (2, 2, 2, 2),
        "strides": (1, 2, 2, 2),
        "block_type": "basic_block",
    },
    "resnet50": {
        "filters": (64, 128, 256, 512),
        "blocks": (3, 4, 6, 3),
        "strides": (1, 2, 2, 2),
        "block_type": "block",
    },
}


@keras.saving.register_keras_serializable(package="terrapair")
class SensorEncoder(keras.Model):
    """Normalization, ResNet and masked pooling of one sensor.

    Call: float32 [B, H, W, C] -> dict of `normalized` float32 [B, H, W, C] z-scores;
    `valid_mask` float32 [B, H, W, 1]; `P1` ... `Pn` [B, H/2**i, W/2**i, D_i] (compute
    dtype); `features` float32 [B, h, w, D] = the deepest level; `pooled` float32 [B,
    D], the mean of `features` weighted by the share of valid pixels under each cell.

    Attributes:
        sensor: "s1" or "s2".
        bands: channels, in order.
        backbone: name of the architecture.
        norm: "batch" (synchronized over replicas) or "group".
        border: what the convolutions see beyond the border, "zeros" or "mirror" (the
            pixels inside, mirrored).
        precision: dtype policy of the ResNet.
        stride: pixels per cell of `features`.
        levels: names of the pyramid's levels, finest first.
    """

    def __init__(
        self,
        *,
        sensor: Sensor,
        bands: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        backbone: Backbone,
        norm: Norm = "batch",
        border: Border = "zeros",
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        """Build the graph; `mean` and `std` are per band, in physical units.

        Raises:
            ValueError: statistics and bands differ in length, an std is not above 0, or
                a mirrored border with a backbone of PyTorch.
        """
        if not can_mirror(backbone) and border == "mirror":
            raise ValueError(f"border must be zeros with the backbone {backbone!r}, got 'mirror'")
        if not len(bands) == len(mean) == len(std):
            raise ValueError(
                f"{sensor}: {len(bands)} bands but {len(mean)} means and {len(std)} stds"
            )
        stride = EncoderConfig(backbone=backbone).stride
        pixels = keras.Input((None, None, len(bands)), name=sensor, dtype="float32")
        normalized, valid_mask = PixelNormalization(mean, std, name="normalization")(pixels)
        with dtype_policy(precision):
            pyramid = _build_pyramid(backbone, len(bands), norm, border)
            levels: dict[str, Any] = pyramid(normalized)
        deepest = list(levels)[-1]
        features = keras.layers.Activation("linear", dtype="float32", name="features")(
            levels[deepest]
        )
        # A cell that is half outside the swath counts half, a cell without data 0.
        weights = keras.layers.AveragePooling2D(stride, dtype="float32", name="valid_fraction")(
            valid_mask
        )
        pooled = MaskedGlobalAveragePooling2D(name="pooled")(features, weights)
        outputs = {
            "normalized": normalized,
            "valid_mask": valid_mask,
            **levels,
            "features": features,
            "pooled": pooled,
        }
        kwargs.setdefault("name", f"{sensor}_encoder")
        # Outside of the policy: the model takes float32 pixels, and its ResNet casts
        # them.
        super().__init__(inputs=pixels, outputs=outputs, **kwargs)
        self.sensor, self.bands, self.backbone = sensor, tuple(bands), backbone
        self.norm, self.border, self.precision = norm, border, precision
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.stride, self.levels = stride, tuple(levels)

    @functools.cached_property
    def infer(self) -> Callable[[Any], dict[str, Any]]:
        """The encoder in inference mode, as a function that is traced once.

        It takes pixels float32 [B, H, W, C] of any size and returns the model's
        outputs. A graph that calls it does not trace the ResNet again.
        """
        # In the instance's `__dict__`, where Keras does not see it: a checkpoint or a
        # saved model holds no graph of it.
        pixels = tf.TensorSpec([None, None, None, len(self.bands)], tf.float32)
        infer: Callable[[Any], dict[str, Any]] = tf.function(
            functools.partial(self.__call__, training=False),
            input_signature=[pixels],
            autograph=False,
        )
        return infer

    def variables_by_level(self) -> list[list[Any]]:
        """Return the trainable variables of each pyramid level, finest level first."""
        found: list[list[Any]] = [[] for _ in self.levels]
        for layer in self.get_layer("resnet").layers:
            # keras-cv names its stages so; they make the levels after that of the stem.
            stage = re.match(r"v2_stack_(\d+)_", layer.name)
            found[int(stage[1]) + 1 if stage else 0] += layer.trainable_variables
        return found

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        # Not Keras' list of layers: the constructor rebuilds the graph from these few
        # values.
        return {
            "sensor": self.sensor,
            "bands": self.bands,
            "mean": self.mean,
            "std": self.std,
            "backbone": self.backbone,
            "norm": self.norm,
            "border": self.border,
            "precision": self.precision,
            "name": self.name,
            "trainable": self.trainable,
        }


def build_encoder(
    config: EncoderConfig, sensor: Sensor, manifest: Manifest, precision: Precision = "float32"
) -> SensorEncoder:
    """Return a new encoder of `sensor` with the bands and statistics of `manifest`.

    Raises:
        ValueError: a band has no valid pixels or only equal ones in the train split, or
            statistics that are not finite.
    """
    statistics = manifest.statistics(sensor)
    for entry in statistics:
        if not (entry.num_pixels and math.isfinite(entry.mean) and 0 < entry.std < math.inf):
            raise ValueError(
                f"manifest.{sensor}_statistics: band {entry.band} needs valid pixels that differ "
                f"to be normalized, got {entry.num_pixels} pixels with mean {entry.mean} and "
                f"std {entry.std}"
            )
    return SensorEncoder(
        sensor=sensor,
        bands=manifest.bands(sensor),
        mean=[entry.mean for entry in statistics],
        std=[entry.std for entry in statistics],
        backbone=config.backbone,
        norm=config.norm,
        precision=precision,
    )


def with_precision(encoder: SensorEncoder, precision: Precision) -> SensorEncoder:
    """Return an encoder with that dtype policy and the same (float32) weights.

    It is `encoder` itself when the policy is the same, else a copy.
    """
    return encoder if encoder.precision == precision else _copy(encoder, precision=precision)


def with_border(encoder: SensorEncoder, border: Border) -> SensorEncoder:
    """Return an encoder with that border and the same weights.

    It is `encoder` itself when the border is the same, else a copy. No weight depends
    on the border, but features along it change, so a copy should be trained.
    """
    return encoder if encoder.border == border else _copy(encoder, border=border)


def can_mirror(backbone: Backbone) -> bool:
    """Return whether the border of this backbone may be mirrored.

    Backbones of PyTorch see zeros, as public weights were trained.
    """
    return not backbone.startswith(TORCH_PREFIX)


def _copy(encoder: SensorEncoder, **changes: Any) -> SensorEncoder:
    """Return a copy with other arguments of the constructor and the same weights."""
    copy = SensorEncoder.from_config({**encoder.get_config(), **changes})
    copy.set_weights(encoder.get_weights())
    return copy


def _build_pyramid(backbone: str, num_bands: int, norm: Norm, border: Border) -> keras.Model:
    """Return the ResNet with outputs P1 (stem, half size) to Pn, finest first."""
    stages = _STAGES[backbone.removeprefix(TORCH_PREFIX)]
    resnet = ResNetBackbone(
        stackwise_filters=list(stages["filters"]),
        stackwise_blocks=list(stages["blocks"]),
        stackwise_strides=list(stages["strides"]),
        block_type=stages["block_type"],
        include_rescaling=False,
        input_shape=(None, None, num_bands),
    )
    outputs = {"P1": resnet.get_layer("conv1_relu").output}
    for index in range(len(stages["filters"])):
        outputs[f"P{index + 2}"] = resnet.get_layer(
            f"v2_stack_{index}_block{stages['blocks'][index]}_out"
        ).output
    pyramid = keras.Model(resnet.input, outputs, name="resnet")
    if backbone.startswith(TORCH_PREFIX):
        pyramid = with_torch_semantics(pyramid)
    # keras-cv has no options for normalization and border.
    return keras.models.clone_model(
        pyramid,
        clone_function=functools.partial(_clone_layer, norm=norm, border=border),
        call_function=_call_layer,
    )


def _clone_layer(layer: keras.layers.Layer, *, norm: Norm, border: Border) -> keras.layers.Layer:
    """Return a copy of `layer`, or our own layer in place of Keras'."""
    if isinstance(layer, keras.layers.BatchNormalization):
        if norm == "group":
            return GroupNormalization(NUM_NORM_GROUPS, epsilon=layer.epsilon, name=layer.name)
        return BatchNormalization(epsilon=layer.epsilon, name=layer.name)
    if isinstance(layer, keras.layers.Conv2D):
        # Without padding there is no border: keras-cv's 1x1 convolutions are "valid".
        own = border if layer.padding == "same" else "zeros"
        return Conv2D.from_config({**layer.get_config(), "border": own})
    return layer.__class__.from_config(layer.get_config())


def _call_layer(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    """Call a cloned layer as the original was called.

    Group normalization takes neither masks nor `training`.
    """
    return layer(*args) if isinstance(layer, GroupNormalization) else layer(*args, **kwargs)
