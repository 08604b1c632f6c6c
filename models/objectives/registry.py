"""Objectives by the names of the config.

Input: `PretrainConfig`. Output: the objective.
"""

from __future__ import annotations

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.config import ObjectiveName, PretrainConfig
from models.objectives.contrastive import (
    Multimodal,
    Multimodal2N,
    MultimodalIntra,
    SimCLRS1,
    SimCLRS2,
)
from models.objectives.decur import DeCUR
from models.objectives.dense import Dense
from models.objectives.objective import Objective, ViewName, sensor_of
from models.objectives.sigmoid import Sigmoid

_CLASSES: dict[ObjectiveName, type[Objective]] = {
    "multimodal": Multimodal,
    "multimodal_2n": Multimodal2N,
    "multimodal_intra": MultimodalIntra,
    "simclr_s1": SimCLRS1,
    "simclr_s2": SimCLRS2,
    "sigmoid": Sigmoid,
    "decur": DeCUR,
    "dense": Dense,
    # The controls use the paper's loss. "shuffled" has wrong pairs, and "none" does not
    # train.
    "shuffled": Multimodal,
    "none": Multimodal,
}


def make_objective(config: PretrainConfig, features_dim: int) -> Objective:
    """Return the objective of `config`.

    `features_dim` is the depth D of the encoders' features.
    """
    if config.objective == "dense":
        return Dense(config, features_dim)
    return _CLASSES[config.objective](config)


def views_of(name: ObjectiveName) -> tuple[ViewName, ...]:
    """Return the views that an objective compares.

    In every step, each patch passes through an encoder once per view.
    """
    return _CLASSES[name].views


def trained_sensors(name: ObjectiveName) -> tuple[Sensor, ...]:
    """Return the sensors whose encoders an objective trains.

    The other encoder keeps its initial weights.
    """
    seen = {sensor_of(view) for view in views_of(name)}
    return tuple(sensor for sensor in SENSORS if sensor in seen)
