import pytest

from beam_jobs.contracts import settings
from models.config import EncoderConfig, InputConfig, OptimizerConfig, PretrainConfig

SMALL = EncoderConfig(backbone="small", embedding_dim=64)


def test_config_survives_plain_dicts():
    pretrain = PretrainConfig(
        encoder=EncoderConfig(backbone="small", norm="group"),
        num_steps=7,
        objective="decur",
        decur_common_dim=100,
        micro_batch_size=64,
        logits_chunk_size=32,
        temperature=0.2,
        precision="mixed_bfloat16",
        input=InputConfig(
            deterministic=False, cache="disk", cache_dir="cache", data_service="grpc://host-1:5050"
        ),
    )
    assert settings.from_dict(PretrainConfig, settings.to_dict(pretrain)) == pretrain


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputConfig(cache="ram"), "cache must be none, memory or disk, got 'ram'"),
        (
            lambda: InputConfig(cache="disk"),
            "cache_dir must be given with cache disk, and only then, got ''",
        ),
        (
            lambda: InputConfig(cache_dir="x"),
            "cache_dir must be given with cache disk, and only then, got 'x'",
        ),
        (
            lambda: InputConfig(cache="disk", cache_dir="s3://b/x"),
            "cache_dir must be a folder .* got 's3://b/x'",
        ),
        (
            lambda: InputConfig(data_service="host:5050"),
            "data_service must be grpc://host:port or workers, got 'host:5050'",
        ),
        (
            lambda: InputConfig(data_service="grpc://h:1"),
            "deterministic must be false with data_service, .* got True",
        ),
        (
            lambda: InputConfig(data_service="grpc://h:1", deterministic=False, cache="memory"),
            "cache must be none or disk with data_service: .* got 'memory'",
        ),
        (
            lambda: EncoderConfig(backbone="vgg"),
            "backbone must be small, .* or torch_resnet50, got 'vgg'",
        ),
        (
            lambda: PretrainConfig(encoder=SMALL, num_steps=5, global_batch_size=1),
            "at least 2 .* got 1",
        ),
        (
            lambda: EncoderConfig(backbone="small", norm="layer"),
            "norm must be batch or group, got 'layer'",
        ),
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
            lambda: PretrainConfig(
                encoder=SMALL, num_steps=5, objective="decur", decur_common_dim=65
            ),
            "decur_common_dim must be within 1 and embedding_dim 64, got 65",
        ),
        (
            lambda: PretrainConfig(
                encoder=SMALL, num_steps=5, objective="decur", min_negative_km=5.0
            ),
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
            lambda: PretrainConfig(
                encoder=SMALL, num_steps=5, objective="sigmoid", temperature=20.0
            ),
            "temperature must be within 0.01 and 10.0 to be learned, got 20.0",
        ),
        (lambda: PretrainConfig(encoder=SMALL, num_steps=0), "num_steps must be above 0, got 0"),
        (lambda: OptimizerConfig(warmup_fraction=1.0), "warmup_fraction must be within .* got 1.0"),
    ],
)
def test_bad_values_are_refused_with_rule_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_decur_shares_seven_eighths_unless_told_otherwise():
    assert PretrainConfig(encoder=SMALL, num_steps=5).num_common_dims == 56
    assert PretrainConfig(encoder=SMALL, num_steps=5, decur_common_dim=9).num_common_dims == 9
