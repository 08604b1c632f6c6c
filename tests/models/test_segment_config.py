import pytest

from beam_jobs.contracts import settings
from models.config import EncoderConfig, OptimizerConfig
from models.pixel_losses.config import LossConfig
from models.segment_config import SegmentConfig

SMALL = EncoderConfig(backbone="small", embedding_dim=64)


def flood(**changes):
    return SegmentConfig(
        **(
            {"sensors": ("s1",), "label_schema": "water", "encoder": SMALL, "num_steps": 1}
            | changes
        )
    )


def test_config_survives_plain_dicts():
    segment = SegmentConfig(
        sensors=("s2",),
        label_schema="dynamic_world",
        encoder=SMALL,
        num_steps=9,
        head="deeplab",
        decoder_channels=(32,),
        border="zeros",
        layer_decay=0.75,
        unfreeze_after=0.25,
        loss=LossConfig(terms={"focal": 1.0, "dice": 0.5}, class_weights={"water": 2.0}),
        optimizer=OptimizerConfig(learning_rate=0.01),
        keep="best",
        eval_every=3,
        patience=2,
    )
    assert settings.from_dict(SegmentConfig, settings.to_dict(segment)) == segment


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SegmentConfig(
                sensors=("s2", "s1"), label_schema="water", encoder=SMALL, num_steps=1
            ),
            "sensors must be",
        ),
        (
            lambda: SegmentConfig(
                sensors=("s1",), label_schema="igbp10", encoder=SMALL, num_steps=1
            ),
            "has gaps",
        ),
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
        (
            lambda: flood(head="deeplab", decoder_channels=()),
            r"decoder_channels must hold at least 1 values, got \(\)",
        ),
        (lambda: flood(border="reflect"), "border must be zeros or mirror, got 'reflect'"),
        (lambda: flood(head="fpn"), "head must be unet, deeplab or linear, got 'fpn'"),
        (
            lambda: flood(regime="warm"),
            "regime must be finetune, scratch, frozen or linear, got 'warm'",
        ),
        (lambda: flood(regime="linear"), "head must be linear under the regime linear, got 'unet'"),
        (lambda: flood(layer_decay=0.0), "layer_decay must be above 0 and at most 1, got 0.0"),
        (lambda: flood(unfreeze_after=1.0), "unfreeze_after must be within .* got 1.0"),
        (
            lambda: flood(regime="frozen", layer_decay=0.5),
            "layer_decay must be 1.0 under the regime frozen, got 0.5",
        ),
        (
            lambda: flood(regime="scratch", unfreeze_after=0.5),
            "unfreeze_after must be 0.0 under the regime scratch, got 0.5",
        ),
        (
            lambda: flood(modality_dropout=0.5),
            "modality_dropout must be 0 with one sensor, got 0.5",
        ),
        (lambda: flood(keep="first"), "keep must be best or last, got 'first'"),
        (
            lambda: flood(num_steps=9, eval_every=10),
            "eval_every must be within 0 and num_steps 9, got 10: lower it, or set 0",
        ),
        (lambda: flood(eval_every=-1), "eval_every must be within 0 and num_steps 1, got -1"),
        (lambda: flood(keep="best", patience=0), "patience must be .*, got 0"),
        (
            lambda: flood(keep="last", patience=3),
            "patience must be null under keep: last, got 3: set keep: best, or remove patience",
        ),
        (
            lambda: flood(loss=LossConfig(class_weights={"snow": 2.0})),
            "loss.class_weights must name classes of dry, water, got 'snow'",
        ),
    ],
)
def test_bad_values_are_refused_with_rule_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_best_of_twenty_steps_is_kept_unless_the_config_says_otherwise():
    def every(**changes):
        return flood(num_steps=205, **changes).evaluates_every

    assert every(keep="best") == 10
    assert every(keep="best", eval_every=50) == every(keep="last", eval_every=50) == 50
    assert every(keep="last") == 0
    assert flood(num_steps=3, keep="best").evaluates_every == 1
    last = flood(num_steps=205, keep="best", eval_every=50, patience=2).keeping_last()
    assert last == flood(num_steps=205, keep="last")


def test_only_a_training_from_scratch_needs_no_encoder():
    assert [flood(regime=name).needs_pretraining for name in ("finetune", "frozen", "scratch")] == [
        True,
        True,
        False,
    ]
    assert [flood(regime=name).trains_encoder for name in ("finetune", "frozen", "scratch")] == [
        True,
        False,
        True,
    ]
    # No hidden layer, so no widths.
    assert not flood(regime="linear", head="linear", decoder_channels=()).trains_encoder
