import json
import zipfile

import keras
import numpy as np
import pytest

from models.encoders import SensorEncoder
from models.heads.deeplab import deeplab_logits
from models.segmenter import Segmenter, with_segmenter_precision

HEADS = ("unet", "deeplab", "linear")
NUM_CLASSES = 3
BANDS = {"s1": ("VV", "VH"), "s2": ("B2", "B3", "B4")}


def make_segmenter(head):
    keras.utils.set_random_seed(0)
    encoders = {
        sensor: SensorEncoder(
            sensor=sensor,
            bands=names,
            mean=(0.0,) * len(names),
            std=(1.0,) * len(names),
            backbone="small",
        )
        for sensor, names in BANDS.items()
    }
    return Segmenter(
        encoders=encoders, num_classes=NUM_CLASSES, decoder_channels=(16, 16, 8, 8), head=head
    )


@pytest.fixture(scope="module")
def segmenters():
    return {head: make_segmenter(head) for head in HEADS}


def pixels(height=32, width=48):
    rng = np.random.default_rng(0)
    return {
        s: rng.normal(size=(2, height, width, len(names))).astype(np.float32)
        for s, names in BANDS.items()
    }


def upsample(image, factor):
    """Bilinear with pixel centres on a common grid, rows then columns; [B, h, w, D]."""
    for axis in (1, 2):
        size = image.shape[axis]
        position = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


def test_linear_head_is_a_1x1_convolution_on_the_upsampled_and_concatenated_levels(segmenters):
    model, batch = segmenters["linear"], pixels()
    features = {sensor: encoder(batch[sensor]) for sensor, encoder in model.encoders.items()}
    whole, kernels = [], []
    for index, level in enumerate(("P1", "P2", "P3", "P4")):
        both = np.concatenate([features[sensor][level].numpy() for sensor in ("s1", "s2")], axis=-1)
        whole.append(upsample(both.astype(np.float64), 2 ** (index + 1)))
        kernels.append(model.get_layer(f"linear_{level}").kernel.numpy()[0, 0])
    expected = np.concatenate(whole, axis=-1) @ np.concatenate(kernels)
    bias = model.get_layer("linear_P1").bias
    bias.assign([0.5, -1.0, 2.0])
    np.testing.assert_allclose(model(batch)["logits"], expected + bias.numpy(), atol=1e-4)


def test_linear_head_has_nothing_but_one_kernel_and_one_bias(segmenters):
    model = segmenters["linear"]
    own = {id(v) for encoder in model.encoders.values() for v in encoder.variables}
    shapes = sorted(tuple(v.shape) for v in model.variables if id(v) not in own)
    widths = {
        level: sum(e.output[level].shape[-1] for e in model.encoders.values())
        for level in ("P1", "P2", "P3", "P4")
    }
    assert shapes == sorted(
        [(NUM_CLASSES,), *((1, 1, width, NUM_CLASSES) for width in widths.values())]
    )


@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_any_size_and_survives_saving_exactly(segmenters, head, tmp_path):
    model = segmenters[head]
    model.save(tmp_path / "segmenter.keras")
    loaded = keras.saving.load_model(tmp_path / "segmenter.keras")
    assert loaded.head == head
    for height, width in ((32, 48), (16, 80)):
        outputs, reloaded = model(pixels(height, width)), loaded(pixels(height, width))
        assert outputs["logits"].shape == (2, height, width, NUM_CLASSES)
        for name, expected in outputs.items():
            np.testing.assert_array_equal(reloaded[name], expected)


@pytest.mark.parametrize("head", HEADS)
def test_precision_can_be_changed_under_the_same_weights(segmenters, head):
    model, batch = segmenters[head], pixels()
    mixed = with_segmenter_precision(model, "mixed_bfloat16")
    assert (mixed.head, mixed.precision) == (head, "mixed_bfloat16")
    expected, rough = model(batch)["logits"].numpy(), mixed(batch)["logits"].numpy()
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - expected).max() < 0.1 * np.abs(expected).max()
    again = with_segmenter_precision(mixed, "float32")
    np.testing.assert_array_equal(again(batch)["logits"], expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_sensor_without_any_data_leaves_an_answer_that_the_other_decides(segmenters, head):
    batch, other = pixels(), pixels()
    batch["s2"][:] = np.nan
    other["s1"] = -other["s1"]
    other["s2"][:] = np.nan
    outputs, others = segmenters[head](batch), segmenters[head](other)
    assert np.isfinite(outputs["logits"]).all()
    assert (outputs["label"].numpy() != 255).all()
    assert np.abs(outputs["logits"].numpy() - others["logits"].numpy()).max() > 1e-3


def test_model_file_from_before_there_was_a_choice_is_a_unet(segmenters, tmp_path):
    segmenters["unet"].save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                config = json.loads(content)
                assert config["config"].pop("head") == "unet"
                content = json.dumps(config)
            old.writestr(name, content)
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert loaded.head == "unet"
    np.testing.assert_array_equal(
        loaded(pixels())["logits"], segmenters["unet"](pixels())["logits"]
    )


def test_unknown_head_is_refused(segmenters):
    with pytest.raises(ValueError, match="head must be unet, deeplab, linear, got 'fpn'"):
        Segmenter(
            encoders=segmenters["unet"].encoders,
            num_classes=2,
            decoder_channels=(8,) * 4,
            head="fpn",
        )


@pytest.mark.parametrize(("num_levels", "rates"), [(4, [1, 6, 12, 18]), (5, [1, 3, 6, 9])])
def test_deeplab_reaches_equally_far_on_the_ground_under_every_stride(num_levels, rates):
    levels = [f"P{index + 1}" for index in range(num_levels)]
    used = {"P2": 4, levels[-1]: 2**num_levels}
    inputs = {name: keras.Input((None, None, 4), name=name) for name in used} | {
        "pooled": keras.Input((4,), name="pooled")
    }
    model = keras.Model(inputs, deeplab_logits([inputs], levels, (8,), 2, "nearest", "zeros"))
    assert [model.get_layer(f"aspp_{index}_conv").dilation_rate[0] for index in range(4)] == rates
    batch = {
        name: np.ones((1, 64 // stride, 96 // stride, 4), np.float32)
        for name, stride in used.items()
    }
    assert model(batch | {"pooled": np.ones((1, 4), np.float32)}).shape == (1, 64, 96, 2)


def test_deeplab_sees_far_through_its_image_level_features(segmenters):
    batch, changed = pixels(16, 160), pixels(16, 160)
    changed["s1"][:, :, 150:] = 9.0
    difference = np.abs(
        segmenters["deeplab"](batch)["logits"].numpy()
        - segmenters["deeplab"](changed)["logits"].numpy()
    )
    assert difference[:, :, :2].max() > 1e-5
