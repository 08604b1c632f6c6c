import pytest

from beam_jobs.contracts import settings
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig, SegmentConfig

SMALL = EncoderConfig(backbone="small", embedding_dim=64)


def test_configs_survive_plain_dicts():
    pretrain = PretrainConfig(
        encoder=EncoderConfig(backbone="small", norm="group"),
        num_steps=7,
        objective="decur",
        decur_common_dim=100,
        micro_batch_size=64,
        logits_chunk_size=32,
        temperature=0.2,
        precision="mixed_bfloat16",
    )
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
        (lambda: EncoderConfig(backbone="vgg"), "backbone must be small, .* or torch_resnet50, got 'vgg'"),
        (lambda: PretrainConfig(encoder=SMALL, num_steps=5, global_batch_size=1), "at least 2 .* got 1"),
        (lambda: EncoderConfig(backbone="small", norm="layer"), "norm must be batch or group, got 'layer'"),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, objective="triplet"),
            "objective must be multimodal, .* or none, got 'triplet'",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, logits_chunk_size=100),
            "logits_chunk_size must divide global_batch_size 256, got 100",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, micro_batch_size=0),
            "micro_batch_size must divide global_batch_size 256, got 0",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, objective="decur", decur_common_dim=65),
            "decur_common_dim must be within 1 and embedding_dim 64, got 65",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, objective="decur", min_negative_km=5.0),
            "min_negative_km must be 0 under decur, which has no negatives, got 5.0",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, min_negative_km=-1.0),
            "min_negative_km must be within 0 and 20000, got -1.0",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, false_negative_weight=1.5),
            "false_negative_weight must be within 0 and 1, got 1.5",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, objective="sigmoid", temperature=20.0),
            "temperature must be within 0.01 and 10.0 to be learned, got 20.0",
        ),
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


def test_decur_shares_seven_eighths_unless_told_otherwise():
    assert PretrainConfig(encoder=SMALL, num_steps=5).num_common_dims == 56
    assert PretrainConfig(encoder=SMALL, num_steps=5, decur_common_dim=9).num_common_dims == 9
