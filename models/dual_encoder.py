"""The dual encoder: two encoders and two projection heads.

Input: `s1` dB and `s2` reflectance of the same patches. Output: one embedding of unit
norm per sensor and patch.
"""

from __future__ import annotations

from typing import Any

import keras

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.config import Precision
from models.encoders import SensorEncoder, with_precision


@keras.saving.register_keras_serializable(package="terrapair")
class ProjectionHead(keras.Model):
    """An MLP from pooled features to the unit sphere, all in float32.

    Call: float32 [B, D] -> float32 [B, E], each row of length 1 (a zero row stays 0).
    Source: Chen et al. 2020 (SimCLR), arXiv 2002.05709, section 4.2: one hidden layer
    as wide as the features.

    Attributes:
        features_dim: D.
        embedding_dim: E.
    """

    def __init__(self, *, features_dim: int, embedding_dim: int, **kwargs: Any) -> None:
        # float32 under every policy: in half precision a unit vector would have only
        # two to three correct digits.
        pooled = keras.Input((features_dim,), name="pooled", dtype="float32")
        hidden = keras.layers.Dense(
            features_dim, activation="relu", dtype="float32", name="hidden"
        )(pooled)
        projected = keras.layers.Dense(embedding_dim, dtype="float32", name="projection")(hidden)
        embedding = keras.layers.UnitNormalization(dtype="float32", name="unit_norm")(projected)
        super().__init__(inputs=pooled, outputs=embedding, **kwargs)
        self.features_dim, self.embedding_dim = features_dim, embedding_dim

    def project(self, pooled: Any) -> Any:
        """Return the projections float32 [B, E] before they get unit norm."""
        return self.get_layer("projection")(self.get_layer("hidden")(pooled))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "features_dim": self.features_dim,
            "embedding_dim": self.embedding_dim,
            "name": self.name,
            "trainable": self.trainable,
        }


@keras.saving.register_keras_serializable(package="terrapair")
class DualEncoder(keras.Model):
    """Both sensors' encoders with their heads.

    Call: {"s1": float32 [B, H, W, C1] dB, "s2": float32 [B, H, W, C2] reflectance} ->
    {"s1": float32 [B, E], "s2": float32 [B, E]}, unit norm. Row i of both is the same
    patch: the positive pair.

    Attributes:
        encoders: by sensor.
        heads: by sensor.
    """

    def __init__(
        self,
        *,
        encoders: dict[Sensor, SensorEncoder],
        heads: dict[Sensor, ProjectionHead],
        **kwargs: Any,
    ) -> None:
        inputs = {
            sensor: keras.Input(
                (None, None, len(encoders[sensor].bands)), name=sensor, dtype="float32"
            )
            for sensor in SENSORS
        }
        outputs = {
            sensor: heads[sensor](encoders[sensor](inputs[sensor])["pooled"]) for sensor in SENSORS
        }
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        # Kept by sensor: export publishes encoders and heads separately.
        self.encoders, self.heads = dict(encoders), dict(heads)

    def get_config(self) -> dict[str, Any]:
        """Return the serialized parts."""
        return {
            "encoders": {
                s: keras.saving.serialize_keras_object(m) for s, m in self.encoders.items()
            },
            "heads": {s: keras.saving.serialize_keras_object(m) for s, m in self.heads.items()},
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DualEncoder:
        """Return the model of `get_config`'s result."""
        parts = {
            part: {
                s: keras.saving.deserialize_keras_object(m, custom_objects)
                for s, m in config[part].items()
            }
            for part in ("encoders", "heads")
        }
        return cls(**{**config, **parts})


def build_dual_encoder(encoders: dict[Sensor, SensorEncoder], embedding_dim: int) -> DualEncoder:
    """Return a DualEncoder of `encoders` with new heads."""
    heads = {
        sensor: ProjectionHead(
            features_dim=encoder.output["features"].shape[-1],
            embedding_dim=embedding_dim,
            name=f"{sensor}_head",
        )
        for sensor, encoder in encoders.items()
    }
    return DualEncoder(encoders=encoders, heads=heads, name="dual_encoder")


def with_dual_precision(model: DualEncoder, precision: Precision) -> DualEncoder:
    """Return `model` with another dtype policy in its encoders and the same weights.

    Heads are always float32.
    """
    encoders = {
        sensor: with_precision(encoder, precision) for sensor, encoder in model.encoders.items()
    }
    return DualEncoder(encoders=encoders, heads=model.heads, name=model.name)
