"""Objective: the interface of all objectives.

Input: embeddings of the views that the objective compares. Output: this replica's loss
per pair, and scalars to log.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from models.config import PretrainConfig
from models.objectives.global_batch import GlobalBatch
from models.objectives.temperature import Temperature
from models.training import replicas

ViewName = Literal["s1", "s2", "s1_a", "s1_b", "s2_a", "s2_b"]
"""`<sensor>` is the image itself; `<sensor>_a` and `<sensor>_b` are augmented views."""

CHANCE_LOSS, NUM_CANDIDATES = "chance_loss", "num_candidates"
"""Names of the figures of guessing."""

Outputs = Mapping[str, Any]
"""Tensors by name; row i of all of them is the same pair.

- embeddings of each view, float32 [B, E]; unit norm where the objective
  `compares_unit_vectors`;
- `weight` and `valid`, float32 [B], see `GlobalBatch`;
- `lon` and `lat`, float32 [B], if there are any;
- what `describe_view` adds.
"""


def sensor_of(view: str) -> Sensor:
    """Return the sensor of a view, such as "s1" for "s1_a"."""
    return "s1" if view.startswith("s1") else "s2"


class Objective(keras.layers.Layer, abc.ABC):
    """A pretraining objective, with the weights that only it needs.

    The loss is the mean of its losses over the global batch, on any number of replicas.
    Negatives come from all replicas.

    Attributes:
        views: names of the views that it compares; the encoders run once for each.
        config: config of the run.
        temperature: divides the cosines.
        has_chance_loss: whether `chance_losses` gives losses, and not None.
    """

    views: ClassVar[tuple[ViewName, ...]] = ()
    learns_temperature: ClassVar[bool] = False
    """Whether the source of the objective learns the temperature.

    `PretrainConfig.learn_temperature` overrides it.
    """
    compares_unit_vectors: ClassVar[bool] = True
    """Whether embeddings have unit norm before they are compared."""
    has_candidates: ClassVar[bool] = True
    """Whether each pair must find its partner among candidates."""
    has_chance_loss: ClassVar[bool] = False

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

    def describe_view(self, view: ViewName, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `pair_losses` needs of a view besides its embedding.

        `encoded` are the outputs of the view's `SensorEncoder`.
        """
        return {}

    @abc.abstractmethod
    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair of this replica, float32 [B]."""

    def chance_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return what `pair_losses` gives when all embeddings are equal, float32 [B].

        It is None unless the loss is a cross-entropy over candidates: other losses have
        no value that means guessing.
        """
        del outputs, batch
        return None

    def losses_and_figures(self, outputs: Outputs) -> tuple[Any, dict[str, Any]]:
        """Return the losses float32 [B], and scalars to log.

        The sum of each scalar over the replicas is its value. They are `temperature`;
        with `min_negative_km`, `near_negative_fraction`: the share of negatives that
        are nearer; `num_candidates`, where pairs have some, and `chance_loss`, where
        there is one: see `Chance`.
        """
        floats = {name: tf.cast(value, tf.float32) for name, value in outputs.items()}
        location = (floats["lon"], floats["lat"]) if "lon" in floats else None
        config = self.config
        batch = GlobalBatch(
            floats["weight"],
            floats["valid"],
            location=location,
            min_negative_km=config.min_negative_km,
            false_negative_weight=config.false_negative_weight,
        )
        figures = {"temperature": self.temperature.value() / replicas.num_replicas()}
        if config.min_negative_km > 0:
            figures["near_negative_fraction"] = batch.near_fraction(config.logits_chunk_size)
        if self.has_candidates:
            figures[NUM_CANDIDATES] = batch.num_full_candidates(config.logits_chunk_size)
        losses = self.chance_losses(floats, batch)
        if losses is not None:
            figures[CHANCE_LOSS] = tf.reduce_mean(losses) / replicas.num_replicas()
        return self.pair_losses(floats, batch), figures
