"""Layers that handle missing data: normalization, masked pooling, label output.

Input: pixels in physical units (dB, reflectance) with NaN as no data. Output: tensors
on which no data has no effect. The layers are part of the published graph, so callers
send physical values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from beam_jobs.contracts.labels import IGNORE


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Set Keras' global dtype policy within the block.

    keras-cv backbones have no other way to get a policy.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


@keras.saving.register_keras_serializable(package="terrapair")
class PixelNormalization(keras.layers.Layer):
    """Physical values -> z-scores and a valid mask; always computes in float32.

    Call: float32 [B, H, W, C] (dB or reflectance, NaN or infinite = no data) ->
    (float32 [B, H, W, C] z-scores, float32 [B, H, W, 1] valid mask). A pixel is valid
    when every band is finite; an invalid one is 0 in every band, which after
    normalization is the mean, not a bright or dark value.

    Attributes:
        mean: per band, in physical units.
        std: per band, in physical units, above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        """Check and keep the statistics.

        Raises:
            ValueError: lengths differ, or a standard deviation is not above 0 (a
                constant band cannot be scaled).
        """
        # Whatever the policy: bfloat16 has steps of 0.06 at -12 dB.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ValueError(
                "mean and std must have one length and std be above 0, "
                f"got {self.mean} and {self.std}"
            )

    def call(self, pixels: Any) -> tuple[Any, Any]:
        """See the class."""
        mean = ops.convert_to_tensor(self.mean, "float32")
        std = ops.convert_to_tensor(self.std, "float32")
        valid = ops.all(ops.isfinite(pixels), axis=-1, keepdims=True)
        # Replace NaN before the arithmetic: NaN * 0 is NaN, in values and in gradients.
        z_scores = (ops.where(valid, pixels, mean) - mean) / std
        return z_scores, ops.cast(valid, "float32")

    def get_config(self) -> dict[str, Any]:
        """Return mean and std, besides Keras' own entries."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="terrapair")
class MaskedGlobalAveragePooling2D(keras.layers.Layer):
    """Mean of the features over the cells with data; always computes in float32.

    Call: features [B, h, w, D] and weights float32 [B, h, w, 1] (share of valid pixels
    under each cell, 0-1) -> float32 [B, D]. Zeros where no cell has data.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, features: Any, weights: Any) -> Any:
        """See the class."""
        total = ops.sum(features * weights, axis=(1, 2))
        # A patch without data gives 0 / 1e-6 = 0 and not NaN.
        return total / ops.maximum(ops.sum(weights, axis=(1, 2)), 1e-6)


@keras.saving.register_keras_serializable(package="terrapair")
class LabelOutput(keras.layers.Layer):
    """Class ids from probabilities.

    Call: probabilities float32 [B, H, W, K] and valid mask float32 [B, H, W, 1] ->
    int32 [B, H, W], 0..K-1, and 255 where the mask is 0: no input sensor has data
    there.

    Attributes:
        threshold: with two classes, the label is the second class where its probability
            is above this value. It is a variable, so that it can be chosen after
            training and is saved with the weights. It begins at 0.5, which gives the
            likelier class. None unless K = 2.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.threshold: Any = None

    def build(self, probabilities_shape: Any) -> None:
        """Make the threshold if there are two classes."""
        if probabilities_shape[-1] == 2:
            half = keras.initializers.Constant(0.5)
            self.threshold = self.add_weight(
                name="threshold", shape=(), initializer=half, trainable=False
            )

    def call(self, probabilities: Any, valid_mask: Any) -> Any:
        """See the class."""
        if self.threshold is None:
            label = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        else:
            label = ops.cast(ops.greater(probabilities[..., 1], self.threshold), "int32")
        return ops.where(ops.squeeze(valid_mask, axis=-1) > 0, label, ops.full_like(label, IGNORE))

    def load_own_variables(self, store: Any) -> None:
        """Load the threshold; it stays at 0.5 for files of models that had none yet."""
        if store.keys():
            super().load_own_variables(store)

    def compute_output_spec(self, probabilities: Any, valid_mask: Any) -> keras.KerasTensor:
        """Return an int32 spec, which Keras cannot infer from the layer's dtype."""
        return keras.KerasTensor(probabilities.shape[:-1], dtype="int32")
