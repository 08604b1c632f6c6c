import pytest

from beam_jobs.contracts import settings
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig, SegmentConfig

SMALL = EncoderConfig(backbone="small", embedding_dim=64)


def test_configs_survive_plain_dicts():
    pretrain = PretrainConfig(encoder=SMALL, num_steps=7, temperature=0.2, precision="mixed_bfloat16")
    segment = SegmentConfig(
        sensors=("s2",),
        label_schema="dynamic_world",
        encoder=SMALL,
        num_steps=9,
        decoder_channels=(32, 16, 8, 8),
        optimizer=OptimizerConfig(learning_rate=0.01),
    )
    assert settings.from_dict(PretrainConfig, settings.to_dict(pretrain)) == pretrain
    assert settings.from_dict(SegmentConfig, settings.to_dict(segment)) == segment


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(backbone="vgg"), "backbone must be small, resnet18 or resnet50, got 'vgg'"),
        (lambda: PretrainConfig(encoder=SMALL, num_steps=5, global_batch_size=1), "at least 2 .* got 1"),
        (lambda: PretrainConfig(encoder=SMALL, num_steps=0), "num_steps must be above 0, got 0"),
        (lambda: OptimizerConfig(warmup_fraction=1.0), "warmup_fraction must be within .* got 1.0"),
        (
            lambda: SegmentConfig(sensors=("s2", "s1"), label_schema="water", encoder=SMALL, num_steps=1),
            "sensors must be",
        ),
        (lambda: SegmentConfig(sensors=("s1",), label_schema="igbp10", encoder=SMALL, num_steps=1), "has gaps"),
        (
            lambda: SegmentConfig(
                sensors=("s1",),
                label_schema="water",
                encoder=EncoderConfig(backbone="resnet18"),
                num_steps=1,
                decoder_channels=(8, 8, 8, 8),
            ),
            "decoder_channels must hold at least 5 values",
        ),
    ],
)
def test_bad_values_are_refused_with_rule_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
