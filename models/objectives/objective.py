"""The one interface of all objectives.

Input: what the encoders made of the views that the objective asks for. Output: this
replica's loss per pair, and figures to log. Implemented by the other modules of this
package, chosen by `registry.py`, called by `contrastive_model.py`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from models.config import PretrainConfig
from models.objectives.global_batch import GlobalBatch
from models.objectives.temperature import Temperature
from models.training import replicas

Outputs = Mapping[str, Any]
"""By name: embeddings float32 [B, E] of each view, unit norm; `weight` and `valid` float32 [B], see `GlobalBatch`; `lon`, `lat`
float32 [B] if there are any; and what `describe_view` adds. Row i of all of them is the
same pair."""


def sensor_of(view: str) -> Sensor:
    """The sensor of a view: "s1" of "s1" (the image as it is) and of "s1_a", "s1_b" (augmented, each on its own)."""
    return "s1" if view.startswith("s1") else "s2"


class Objective(keras.layers.Layer, abc.ABC):
    """What is learned; holds the weights that belong to it alone.

    The mean of its losses over the global batch is the loss, on any number of replicas:
    negatives are those of all replicas.

    Attributes:
        views: names of the views it compares; the encoders run once for each.
        config: of the run.
        temperature: divides the cosines.
    """

    views: ClassVar[tuple[str, ...]] = ()
    learns_temperature: ClassVar[bool] = False
    """Whether its source learns the temperature; `PretrainConfig.learn_temperature` overrules it."""

    def __init__(self, config: PretrainConfig, **kwargs: Any) -> None:
        super().__init__(dtype="float32", name=kwargs.pop("name", config.objective), **kwargs)
        self.config = config
        is_learned = (
            self.learns_temperature
            if config.learn_temperature is None
            else config.learn_temperature
        )
        self.temperature = Temperature(
            config.temperature, is_learned=is_learned, name="temperature"
        )

    def describe_view(self, view: str, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """What `pair_losses` wants of a view besides its embedding, from the outputs of its `SensorEncoder`."""
        return {}

    @abc.abstractmethod
    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """float32 [B], the weighted loss of each pair of this replica; its mean over the global batch is the loss."""

    def losses_and_figures(self, outputs: Outputs) -> tuple[Any, dict[str, Any]]:
        """The losses float32 [B], and scalars whose sum over the replicas is to be logged.

        `temperature`, and with `min_negative_km` also `near_negative_fraction`: the
        share of negatives that are nearer.
        """
        floats = {name: tf.cast(value, tf.float32) for name, value in outputs.items()}
        location = (floats["lon"], floats["lat"]) if "lon" in floats else None
        config = self.config
        batch = GlobalBatch(
            floats["weight"],
            floats["valid"],
            location,
            config.min_negative_km,
            config.false_negative_weight,
        )
        figures = {"temperature": self.temperature.value() / replicas.num_replicas()}
        if config.min_negative_km > 0:
            figures["near_negative_fraction"] = batch.near_fraction(config.logits_chunk_size)
        return self.pair_losses(floats, batch), figures
