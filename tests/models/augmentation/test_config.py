import pytest

from beam_jobs.contracts import settings
from models.augmentation.config import (
    AugmentConfig,
    GeometryConfig,
    ImageAugmentConfig,
    OpticalConfig,
    PhotometryConfig,
    RadarConfig,
    StrongAugmentConfig,
    StrongGeometryConfig,
)


def test_configs_survive_plain_dicts():
    config = AugmentConfig(
        pair=GeometryConfig(symmetries=False, min_crop_fraction=0.5),
        view=StrongAugmentConfig(
            photometry=PhotometryConfig(s1=RadarConfig(max_gain_db=0.5), blur_probability=0.1)
        ),
        no_data="mask",
    )
    assert settings.from_dict(AugmentConfig, settings.to_dict(config)) == config
    assert (
        settings.from_dict(ImageAugmentConfig, {"photometry": {}}).photometry == PhotometryConfig()
    )


def test_one_strength_of_the_views_can_be_set_alone():
    view = settings.from_dict(AugmentConfig, {"view": {"geometry": {"symmetries": False}}}).view
    assert view == StrongAugmentConfig(
        geometry=StrongGeometryConfig(symmetries=False, min_crop_fraction=0.3)
    )
    assert settings.from_dict(AugmentConfig, {"view": {"photometry": None}}).view.photometry is None


def test_pairs_keep_their_pixels_and_views_get_the_strong_set_by_default():
    config = AugmentConfig()
    assert config.pair == GeometryConfig(symmetries=True, min_crop_fraction=1.0)
    assert config.view.geometry.min_crop_fraction == 0.3
    assert config.view.photometry == PhotometryConfig()
    assert ImageAugmentConfig().photometry is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GeometryConfig(min_crop_fraction=0.0),
            "min_crop_fraction must be above 0, got 0.0",
        ),
        (
            lambda: GeometryConfig(min_crop_fraction=1.5),
            "min_crop_fraction must be within 0 and 1, got 1.5",
        ),
        (
            lambda: GeometryConfig(max_crop_aspect=0.5),
            "max_crop_aspect must be at least 1, got 0.5",
        ),
        (
            lambda: RadarConfig(max_gain_db=-1.0),
            "max_gain_db must be at least 0 and finite, got -1.0",
        ),
        (
            lambda: RadarConfig(min_speckle_looks=0.5),
            "min_speckle_looks must be at least 1, got 0.5",
        ),
        (
            lambda: RadarConfig(speckle_probability=2.0),
            "speckle_probability must be within 0 and 1, got 2.0",
        ),
        (lambda: OpticalConfig(max_gain=1.0), "max_gain must be below 1, got 1.0"),
        (
            lambda: PhotometryConfig(band_drop_probability=float("nan")),
            "band_drop_probability must be within 0 and 1",
        ),
        (
            lambda: PhotometryConfig(max_blur_sigma_px=float("inf")),
            "max_blur_sigma_px must be at least 0 and finite",
        ),
        (lambda: AugmentConfig(no_data="drop"), "no_data must be hide, mask or keep, got 'drop'"),
    ],
)
def test_bad_strengths_are_refused_with_rule_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
