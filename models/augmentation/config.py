"""Strength of the augmentations.

Input: a run's YAML, as part of `PretrainConfig` and `SegmentConfig`. Output: checked
frozen dataclasses. Used by the modules of this package and by `models/views.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

NoData = Literal["hide", "mask", "keep"]


class _Strengths:
    """Checks by the ending of the names: shares and probabilities are within 0 and 1, all other numbers at least 0."""

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
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
    """Where pixels go; pixels themselves do not change but by resampling.

    Attributes:
        symmetries: one of the eight symmetries of the square at random: flips and
            quarter turns, exact. Default True; origin: this project (Scheibenreif et
            al. 2022 use none).
        min_crop_fraction: least share of the patch's area that a random crop keeps; it
            is resized to the whole patch. 1 = no crop. Default 1.
        max_crop_aspect: widest ratio of a crop's sides, either way. Default 4/3;
            origin: SimCLR (Chen et al. 2020, arXiv 2002.05709, appendix A).
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
    """What differs between two looks of Sentinel-1 at one ground.

    Attributes:
        max_gain_db: offset of all polarizations alike, uniform within plus and minus
            this. Default 2; origin: this project, about what soil moisture and the
            incidence angle do.
        max_polarization_gain_db: offset of each polarization on top. Default 1; origin:
            this project.
        speckle_probability: share of the patches that get more speckle. Default 0.5;
            origin: this project.
        min_speckle_looks: looks of the strongest speckle; the looks are uniform between
            this and four times it. Default 4; origin: speckle as strong as the image's
            own (4.4 looks of IW GRDH, Sentinel-1 Product Definition).
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
    """What differs between two looks of Sentinel-2 at one ground.

    Attributes:
        max_gain: the light: all bands times 1 plus or minus up to this. Default 0.2;
            origin: this project, about what the sun's height does.
        max_band_gain: the same for each band on top. Default 0.1; origin: this project.
        haze_probability: share of the patches that get haze. Default 0.5; origin: this
            project.
        max_haze_reflectance: what the thickest haze adds at 496.6 nm (B2), reflectance.
            Default 0.05; origin: this project.
    """

    max_gain: float = 0.2
    max_band_gain: float = 0.1
    haze_probability: float = 0.5
    max_haze_reflectance: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        # A gain of 0 would make the patch black, a negative one is no light.
        for name in ("max_gain", "max_band_gain"):
            if getattr(self, name) >= 1.0:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PhotometryConfig(_Strengths):
    """Change of the pixels, each sensor on its own.

    Attributes:
        s1: of Sentinel-1.
        s2: of Sentinel-2.
        blur_probability: share of the patches that are blurred. Default 0.5; origin:
            SimCLR, appendix A.
        max_blur_sigma_px: widest Gaussian; the narrowest is 0.1. Default 2; origin:
            SimCLR, appendix A.
        band_drop_probability: chance of each band to be replaced by its train mean; one
            band always stays. Default 0; origin: trials on simulated radar, where two
            views without a polarization in common have little to be recognized by: with
            0.1, SimCLR's linear probe lost 3 to 4 points of mean IoU
            (docs/claim_check.md).
    """

    s1: RadarConfig = field(default_factory=RadarConfig)
    s2: OpticalConfig = field(default_factory=OpticalConfig)
    blur_probability: float = 0.5
    max_blur_sigma_px: float = 2.0
    band_drop_probability: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ImageAugmentConfig:
    """Augmentation of one image on its own, or with its label.

    Attributes:
        geometry: where pixels go.
        photometry: how they change; None = they do not.
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
    """SimCLR's augmentation of one sensor, with what differs between two looks of the sensor in place of colours."""

    geometry: StrongGeometryConfig = field(default_factory=StrongGeometryConfig)
    photometry: PhotometryConfig | None = field(default_factory=PhotometryConfig)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation in contrastive pretraining.

    Attributes:
        pair: of both sensors of a pair alike, so that pixels stay on top of each other.
            Default: symmetries only; the other sensor is the strong view.
        view: of each augmented view of one sensor on its own, which SimCLR terms
            compare.
        no_data: "hide" (default) fills what one sensor lacks, in both, with ground of
            the same patch, and gives each view the gaps of other patches: no-data tells
            nothing of the pair. "mask" takes from each sensor what the other lacks, so
            that both show one gap. "keep" leaves both as they are. With gaps common to
            both sensors, "mask" and "keep" let the loss fall without a look at the
            ground (docs/adr/0013).
    """

    pair: GeometryConfig = field(default_factory=GeometryConfig)
    view: StrongAugmentConfig = field(default_factory=StrongAugmentConfig)
    no_data: NoData = "hide"

    def __post_init__(self) -> None:
        if self.no_data not in get_args(NoData):
            raise ValueError(f"no_data must be hide, mask or keep, got {self.no_data!r}")
