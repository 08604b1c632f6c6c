"""What the arms pretrain: equal cost, and equal configs for settings without an effect."""

import pytest

from models.config import EncoderConfig, PretrainConfig
from models.objectives.registry import views_of
from pipeline.claim_check import arms
from pipeline.claim_check.config import Setting

BASE = PretrainConfig(encoder=EncoderConfig(backbone="small"), num_steps=100, global_batch_size=16)
PLAIN, STRONG = Setting(), Setting(strength=2.0)


def config_of(arm, setting=PLAIN, sensor="s1", seed=0):
    return arms.pretrainings(arm, (sensor,), BASE, setting, seed)[sensor]


@pytest.mark.parametrize("arm", [*arms.TUNED, "shuffled"])
def test_every_arm_sends_as_many_images_through_its_encoders(arm):
    config = config_of(arm)
    assert config.num_steps * len(views_of(config.objective)) == 2 * BASE.num_steps
    assert config.global_batch_size == BASE.global_batch_size


def test_simclr_learns_each_sensor_from_that_sensor():
    found = arms.pretrainings("simclr", ("s1", "s2"), BASE, PLAIN, seed=3)
    assert {sensor: config.objective for sensor, config in found.items()} == {
        "s1": "simclr_s1",
        "s2": "simclr_s2",
    }
    assert {config.seed for config in found.values()} == {3}


def test_sensors_of_a_pair_share_one_pretraining():
    found = arms.pretrainings("multimodal", ("s1", "s2"), BASE, PLAIN, seed=3)
    assert found["s1"] == found["s2"]
    assert arms.pretrainings("scratch", ("s1",), BASE, PLAIN, seed=0) == {}


def test_strength_is_another_setting_only_where_views_are_augmented():
    assert config_of("multimodal", STRONG) == config_of("multimodal")
    assert config_of("shuffled", STRONG) == config_of("shuffled")
    assert config_of("random", Setting(temperature=0.3, strength=2.0)) == config_of("random")
    for arm in ("simclr", "multimodal_intra"):
        assert config_of(arm, STRONG) != config_of(arm)
    assert config_of("multimodal", Setting(temperature=0.3)).temperature == 0.3


def test_strength_scales_changes_and_no_probability():
    plain, strong = (
        config_of("simclr", setting).augment.view.photometry for setting in (PLAIN, STRONG)
    )
    assert strong.s1.max_gain_db == 2 * plain.s1.max_gain_db
    assert strong.s1.min_speckle_looks == plain.s1.min_speckle_looks / 2
    assert strong.s2.max_haze_reflectance == 2 * plain.s2.max_haze_reflectance
    assert (strong.blur_probability, strong.s1.speckle_probability) == (
        plain.blur_probability,
        plain.s1.speckle_probability,
    )
    # The gain is limited; it must not raise in the middle of a check.
    assert config_of("simclr", Setting(strength=50.0)).augment.view.photometry.s2.max_gain == 0.9
