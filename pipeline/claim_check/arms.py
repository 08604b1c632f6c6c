"""Arms: what each arm pretrains, at equal cost.

Arm, setting and seed -> the PretrainConfig of each sensor's encoder.

The unit of cost is one image that passes through an encoder in training. For each
patch, a step of `multimodal` has two passes (one for each sensor), of `simclr` two (two
views of one sensor), of `multimodal_intra` four. Arms with more passes take fewer steps
of the same batch size. `simclr` on both sensors is two trainings, each with the full
budget, so it gets twice the budget of `multimodal`.
"""

from __future__ import annotations

import dataclasses
from typing import cast

from beam_jobs.contracts.bands import Sensor
from models.augmentation.config import PhotometryConfig, StrongAugmentConfig
from models.config import ObjectiveName, PretrainConfig
from models.objectives.objective import sensor_of
from models.objectives.registry import views_of
from pipeline.claim_check.config import Arm, Setting, TrainedArm, is_published

TUNED: tuple[TrainedArm, ...] = ("multimodal", "simclr", "multimodal_intra")
"""Arms that choose a setting.

`shuffled` takes the setting of `multimodal`, because it is the control of that arm.
"""

_PASSES_OF_BASE = 2
_OBJECTIVES: dict[TrainedArm, dict[Sensor, ObjectiveName]] = {
    "multimodal": {"s1": "multimodal", "s2": "multimodal"},
    "simclr": {"s1": "simclr_s1", "s2": "simclr_s2"},
    "multimodal_intra": {"s1": "multimodal_intra", "s2": "multimodal_intra"},
    "shuffled": {"s1": "shuffled", "s2": "shuffled"},
    "random": {"s1": "none", "s2": "none"},
}
"""Arm -> sensor of the encoder -> objective; `scratch` pretrains nothing."""


def pretrainings(
    arm: Arm, sensors: tuple[Sensor, ...], base: PretrainConfig, setting: Setting, seed: int
) -> dict[Sensor, PretrainConfig]:
    """Return the pretraining of each sensor's encoder; empty if an arm trains none.

    Args:
        arm: where the encoders come from.
        sensors: inputs of the task.
        base: the run's pretraining: encoder, steps and batch of `multimodal`.
        setting: temperature and strength.
        seed: seed of weights, order and augmentation.
    """
    if arm == "scratch" or is_published(arm):
        return {}
    objectives = _OBJECTIVES[cast(TrainedArm, arm)]
    return {sensor: _pretraining(objectives[sensor], base, setting, seed) for sensor in sensors}


def strengthened(view: StrongAugmentConfig, strength: float) -> StrongAugmentConfig:
    """Return a view's augmentation with photometric changes `strength` times as large.

    Shares and probabilities are not changed.
    """
    if view.photometry is None or strength == 1.0:
        return view
    old = view.photometry
    photometry = PhotometryConfig(
        s1=dataclasses.replace(
            old.s1,
            max_gain_db=old.s1.max_gain_db * strength,
            max_polarization_gain_db=old.s1.max_polarization_gain_db * strength,
            min_speckle_looks=max(1.0, old.s1.min_speckle_looks / strength),
        ),
        s2=dataclasses.replace(
            old.s2,
            # A gain of 1 or more would make patches black.
            max_gain=min(0.9, old.s2.max_gain * strength),
            max_band_gain=min(0.9, old.s2.max_band_gain * strength),
            max_haze_reflectance=old.s2.max_haze_reflectance * strength,
        ),
        blur_probability=old.blur_probability,
        max_blur_sigma_px=old.max_blur_sigma_px * strength,
        band_drop_probability=old.band_drop_probability,
    )
    return dataclasses.replace(view, photometry=photometry)


def _pretraining(
    objective: ObjectiveName, base: PretrainConfig, setting: Setting, seed: int
) -> PretrainConfig:
    if objective == "none":
        # An untrained encoder depends on the seed only, so all settings share it.
        return dataclasses.replace(base, objective="none", seed=seed)
    views = views_of(objective)
    augment = base.augment
    if len({sensor_of(view) for view in views}) < len(views):
        # Only objectives with two views of one sensor augment views. For the others the
        # strength has no effect, and their configs must be equal for all strengths.
        augment = dataclasses.replace(augment, view=strengthened(augment.view, setting.strength))
    return dataclasses.replace(
        base,
        objective=objective,
        seed=seed,
        num_steps=max(1, base.num_steps * _PASSES_OF_BASE // len(views)),
        temperature=setting.temperature,
        augment=augment,
    )
