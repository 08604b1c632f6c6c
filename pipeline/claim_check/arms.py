"""Arms: what each one pretrains, at equal cost.

Arm, setting and seed -> the PretrainConfig of each sensor's encoder. Pure. Called by
`jobs.py`.

The unit of cost is an image that passes through an encoder in training. A step of
`multimodal` is two passes for each patch (one of each sensor), of `simclr` two (two
views of one sensor), of `multimodal_intra` four; arms with more passes take fewer
steps, of the same batch. `simclr` on both sensors is two such trainings, each with the
whole budget: twice what `multimodal` gets.
"""

from __future__ import annotations

import dataclasses

from beam_jobs.contracts.bands import Sensor
from models.augmentation.config import PhotometryConfig, StrongAugmentConfig
from models.config import ObjectiveName, PretrainConfig
from models.objectives.objective import sensor_of
from models.objectives.registry import views_of
from pipeline.claim_check.config import Arm, Setting

CONTRASTIVE: tuple[Arm, ...] = ("multimodal", "simclr", "multimodal_intra", "shuffled")
"""Arms that learn from pairs or views, and may choose a setting. `shuffled` takes that of `multimodal`, whose control it is."""

TUNED: tuple[Arm, ...] = ("multimodal", "simclr", "multimodal_intra")

_PASSES_OF_BASE = 2


def pretrainings(
    arm: Arm, sensors: tuple[Sensor, ...], base: PretrainConfig, setting: Setting, seed: int
) -> dict[Sensor, PretrainConfig]:
    """The pretraining of each sensor's encoder; empty for `scratch`, which has none.

    Args:
        arm: which.
        sensors: inputs of the task.
        base: of the run: encoder, steps and batch of `multimodal`.
        setting: temperature and strength.
        seed: of weights, order and augmentation.
    """
    if arm == "scratch":
        return {}
    return {
        sensor: _pretraining(_objective(arm, sensor), base, setting, seed) for sensor in sensors
    }


def strengthened(view: StrongAugmentConfig, strength: float) -> StrongAugmentConfig:
    """The view's augmentation with `strength` times the photometric changes; shares and probabilities stay."""
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
            # Gains of 1 and above would make patches black.
            max_gain=min(0.9, old.s2.max_gain * strength),
            max_band_gain=min(0.9, old.s2.max_band_gain * strength),
            max_haze_reflectance=old.s2.max_haze_reflectance * strength,
        ),
        blur_probability=old.blur_probability,
        max_blur_sigma_px=old.max_blur_sigma_px * strength,
        band_drop_probability=old.band_drop_probability,
    )
    return dataclasses.replace(view, photometry=photometry)


def _objective(arm: Arm, sensor: Sensor) -> ObjectiveName:
    if arm == "random":
        return "none"
    if arm == "simclr":
        return "simclr_s1" if sensor == "s1" else "simclr_s2"
    return arm  # type: ignore[return-value]


def _pretraining(
    objective: ObjectiveName, base: PretrainConfig, setting: Setting, seed: int
) -> PretrainConfig:
    if objective == "none":
        # Untrained: what does not change it is left out, so that all settings share one
        # encoder.
        return dataclasses.replace(base, objective="none", seed=seed)
    views = views_of(objective)
    augment = base.augment
    if len({sensor_of(view) for view in views}) < len(views):
        # Else nothing is augmented as a view, and a strength that changes nothing must
        # not look like another setting.
        augment = dataclasses.replace(augment, view=strengthened(augment.view, setting.strength))
    return dataclasses.replace(
        base,
        objective=objective,
        seed=seed,
        num_steps=max(1, base.num_steps * _PASSES_OF_BASE // len(views)),
        temperature=setting.temperature,
        augment=augment,
    )
