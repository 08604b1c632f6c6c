"""Strengths of the augmentations.

Input: a run's YAML, as part of `PretrainConfig` and `SegmentConfig`. Output: checked
frozen dataclasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

NoData = Literal["hide", "mask", "keep"]


@dataclass(frozen=True, kw_only=True)
class _Strengths:
    """Checks all numbers by the ending of their names.

    Probabilities and fractions must be between 0 and 1, other numbers at least 0.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not isinstance(value, (int, float)):
                continue
            if setting.name.endswith(("_probability", "_fraction")):
                if not 0.0 <= value <= 1.0:
                    raise ValueError(f"{setting.name} must be within 0 and 1, got {value}")
            elif not 0.0 <= value < math.inf:
                raise ValueError(f"{setting.name} must be at least 0 and finite, got {value}")


@dataclass(frozen=True, kw_only=True)
class GeometryConfig(_Strengths):
    """Augmentations that move pixels. They change values only by resampling.

    Attributes:
        symmetries: apply one of the eight symmetries of the square at random (flips and
            quarter turns), which are exact. Default True; origin: this project
            (Scheibenreif et al. 2022 use none).
        min_crop_fraction: smallest share of the patch's area that a random crop keeps,
            0-1. The crop is resized to the whole patch. Default 1: no crop.
        max_crop_aspect: largest ratio of a crop's sides, in both directions. Default
            4/3; origin: SimCLR (Chen et al. 2020, arXiv 2002.05709, appendix A).
    """

    symmetries: bool = True
    min_crop_fraction: float = 1.0
    max_crop_aspect: float = 4.0 / 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_crop_fraction == 0.0:
            raise ValueError("min_crop_fraction must be above 0, got 0.0")
        if self.max_crop_aspect < 1.0:
            raise ValueError(f"max_crop_aspect must be at least 1, got {self.max_crop_aspect}")


@dataclass(frozen=True, kw_only=True)
class RadarConfig(_Strengths):
    """Differences between two acquisitions of the same ground by Sentinel-1.

    Attributes:
        max_gain_db: largest offset of all polarizations together, in dB, uniform in
            both directions. Default 2; origin: this project, about the effect of soil
            moisture and incidence angle.
        max_polarization_gain_db: largest additional offset of each polarization, in dB.
            Default 1; origin: this project.
        speckle_probability: probability of a patch to get more speckle. Default 0.5;
            origin: this project.
        min_speckle_looks: number of looks of the strongest speckle; the number is
            uniform between this and four times this. Default 4; origin: speckle as
            strong as the image's own (4.4 looks of IW GRDH, Sentinel-1 Product
            Definition).
    """

    max_gain_db: float = 2.0
    max_polarization_gain_db: float = 1.0
    speckle_probability: float = 0.5
    min_speckle_looks: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_speckle_looks < 1.0:
            raise ValueError(f"min_speckle_looks must be at least 1, got {self.min_speckle_looks}")


@dataclass(frozen=True, kw_only=True)
class OpticalConfig(_Strengths):
    """Differences between two acquisitions of the same ground by Sentinel-2.

    Attributes:
        max_gain: largest relative change of all bands together, 0-1, in both
            directions. Default 0.2; origin: this project, about the effect of the sun's
            elevation.
        max_band_gain: largest additional relative change of each band, 0-1. Default
            0.1; origin: this project.
        haze_probability: probability of a patch to get haze. Default 0.5; origin: this
            project.
        max_haze_reflectance: reflectance that the thickest haze adds at 496.6 nm (B2).
            Default 0.05; origin: this project.
    """

    max_gain: float = 0.2
    max_band_gain: float = 0.1
    haze_probability: float = 0.5
    max_haze_reflectance: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        # A factor of 0 would make the patch black, and a negative one is not physical.
        for name in ("max_gain", "max_band_gain"):
            if getattr(self, name) >= 1.0:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PhotometryConfig(_Strengths):
    """Augmentations that change pixel values, each sensor on its own.

    Attributes:
        s1: changes of Sentinel-1.
        s2: changes of Sentinel-2.
        blur_probability: probability of a patch to be blurred. On radar it removes
            speckle on purpose, as a filter does; the other patches keep theirs. Default
            0.5; origin: SimCLR, appendix A.
        max_blur_sigma_px: sigma of the widest Gaussian, in pixels; the narrowest has
            0.1. Default 2; origin: SimCLR, appendix A.
        band_drop_probability: probability of each band to be replaced by its train
            mean; one band always stays. Default 0; origin: trials on simulated radar.
            With 0.1, SimCLR's linear probe lost 3 to 4 points of mean IoU
            (docs/claim_check.md): two views without a common polarization have little
            in common.
    """

    s1: RadarConfig = field(default_factory=RadarConfig)
    s2: OpticalConfig = field(default_factory=OpticalConfig)
    blur_probability: float = 0.5
    max_blur_sigma_px: float = 2.0
    band_drop_probability: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ImageAugmentConfig:
    """Augmentation of one image, alone or with its label.

    Attributes:
        geometry: augmentations that move pixels.
        photometry: augmentations that change pixel values; None = none.
    """

    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    photometry: PhotometryConfig | None = None


@dataclass(frozen=True, kw_only=True)
class StrongGeometryConfig(GeometryConfig):
    """Geometry of an augmented view.

    Attributes:
        min_crop_fraction: default 0.3; origin: IaI-SimCLR (Prexl and Schmitt 2023).
    """

    min_crop_fraction: float = 0.3


@dataclass(frozen=True, kw_only=True)
class StrongAugmentConfig(ImageAugmentConfig):
    """SimCLR's augmentation of one sensor.

    Instead of colours it changes what differs between two acquisitions of the sensor.
    """

    geometry: StrongGeometryConfig = field(default_factory=StrongGeometryConfig)
    photometry: PhotometryConfig | None = field(default_factory=PhotometryConfig)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation in contrastive pretraining.

    Attributes:
        pair: augmentation of both sensors of a pair alike, so that their pixels stay
            registered. Default: symmetries only, since the other sensor is already a
            strong view.
        view: augmentation of each view of one sensor on its own; SimCLR terms compare
            such views.
        no_data: how to keep gaps from identifying the pair (docs/adr/0013). "hide"
            (default): fill each sensor's gaps, in both sensors, with ground of the same
            patch, then give each view the gaps of other patches. Gaps then say nothing
            about the pair. "mask": each sensor also gets the other's gaps, so both have
            the same gap. "keep": change nothing. With "mask" and "keep", a gap that
            both sensors share lowers the loss, and the model learns nothing about the
            ground.
    """

    pair: GeometryConfig = field(default_factory=GeometryConfig)
    view: StrongAugmentConfig = field(default_factory=StrongAugmentConfig)
    no_data: NoData = "hide"

    def __post_init__(self) -> None:
        if self.no_data not in get_args(NoData):
            raise ValueError(f"no_data must be hide, mask or keep, got {self.no_data!r}")
