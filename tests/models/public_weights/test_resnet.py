"""Converted ResNets against a direct one with PyTorch's names and explicit padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.encoders import SensorEncoder
from models.public_weights.resnet import load_resnet
from tests.data.networks import make_state_dict

BANDS = ("B2", "B3", "B4")


def make_encoder(backbone, bands=BANDS, **options):
    # Mean 0 and std 1: what goes in is what the first convolution sees.
    zeros, ones = [0.0] * len(bands), [1.0] * len(bands)
    return SensorEncoder(
        sensor="s2", bands=bands, mean=zeros, std=ones, backbone=backbone, **options
    )


def direct_resnet(state, pixels, num_blocks):
    """Levels P1 to P5 of a ResNet V1.5 with the zeros of its padding laid by hand."""

    def conv(x, name, stride=1):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        around = [kernel.shape[0] // 2] * 2
        return tf.nn.conv2d(x, kernel, stride, padding=[[0, 0], around, around, [0, 0]])

    def norm(x, name):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        return x * scale + (state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale)

    def block(x, name, stride):
        is_bottleneck = f"{name}.conv3.weight" in state
        strides = (1, stride, 1) if is_bottleneck else (stride, 1)
        y = x
        for part, part_stride in enumerate(strides, start=1):
            y = norm(conv(y, f"{name}.conv{part}", part_stride), f"{name}.bn{part}")
            y = tf.nn.relu(y) if part < len(strides) else y
        if f"{name}.downsample.0.weight" in state:
            x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return tf.nn.relu(x + y)

    levels = {"P1": tf.nn.relu(norm(conv(pixels, "conv1", 2), "bn1"))}
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    x = tf.nn.max_pool2d(tf.pad(levels["P1"], around, constant_values=-np.inf), 3, 2, "VALID")
    for stage, count in enumerate(num_blocks, start=1):
        for index in range(count):
            x = block(x, f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
        levels[f"P{stage + 1}"] = x
    return levels


def relative_difference(got, expected):
    return float(
        np.abs(np.asarray(got) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max()
    )


@pytest.fixture(scope="module")
def encoder():
    return make_encoder("torch_resnet18")


@pytest.fixture(scope="module")
def state():
    return make_state_dict.make_state("torch_resnet18", 3)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).normal(0.0, 1.0, (2, 64, 96, 3)).astype(np.float32)


@pytest.mark.parametrize("backbone", ["torch_resnet18", "torch_resnet50"])
def test_every_level_equals_the_direct_resnet(backbone, pixels):
    state = make_state_dict.make_state(backbone, 3)
    encoder = make_encoder(backbone)
    assert load_resnet(encoder, state, BANDS) == ("fc.bias", "fc.weight")
    expected = direct_resnet(state, pixels, make_state_dict.BLOCKS[backbone])
    got = encoder(pixels)
    assert encoder.levels == tuple(expected)
    for level, values in expected.items():
        assert got[level].shape == values.shape
        assert relative_difference(got[level], values) < 1e-5


def test_the_backbone_of_keras_has_other_outputs(encoder, state, pixels):
    """What the option is for: the same weights under TensorFlow's padding give other features."""
    load_resnet(encoder, state, BANDS)
    plain = make_encoder("resnet18")
    plain.set_weights(encoder.get_weights())
    assert relative_difference(plain(pixels)["P5"], encoder(pixels)["P5"]) > 0.05


def test_bands_are_taken_by_name_and_those_left_out_count_as_zero(state, pixels):
    chosen = make_encoder("torch_resnet18", bands=("B4", "B2"))
    load_resnet(chosen, state, BANDS)
    without_b3 = pixels * np.array([1.0, 0.0, 1.0], np.float32)
    expected = direct_resnet(state, without_b3, make_state_dict.BLOCKS["torch_resnet18"])["P5"]
    assert relative_difference(chosen(pixels[..., [2, 0]])["P5"], expected) < 1e-5


def test_batch_normalizations_stay_synchronized_and_survive_saving(
    encoder, state, pixels, tmp_path
):
    load_resnet(encoder, state, BANDS)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(pixels)["pooled"], encoder(pixels)["pooled"])
    norms = [
        layer
        for layer in loaded._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 20
    assert {(layer.epsilon, layer.synchronized, layer.momentum) for layer in norms} == {
        (1e-5, True, 0.9)
    }


def changed(state, **changes):
    return {name: array for name, array in (state | changes).items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer3.1.bn2.bias": None},
            r"^layer3\.1\.bn2\.bias: torch_resnet18 needs it, but the state dict does not have it$",
        ),
        (
            {"conv1.bias": np.zeros(64)},
            r"^conv1\.bias: torch_resnet18 has no place for it \(1 such names\)$",
        ),
        (
            {"layer2.0.conv1.weight": np.zeros((128, 64, 1, 1))},
            r"^layer2\.0\.conv1\.weight: torch_resnet18 needs shape \(128, 64, 3, 3\), "
            r"got \(128, 64, 1, 1\)$",
        ),
        (
            {"bn1.weight": np.zeros(32)},
            r"^bn1\.weight: torch_resnet18 needs shape \(64,\), got \(32,\)$",
        ),
        ({"bn1.running_mean": np.full(64, np.nan)}, r"^bn1\.running_mean: values must be finite"),
        (
            {"bn1.running_var": np.full(64, -1.0)},
            r"^bn1\.running_var: values must be finite, and variances not below 0$",
        ),
        (
            {"conv1.weight": np.zeros((64, 13, 7, 7))},
            r"^conv1\.weight: must take 3 bands B2, B3, B4, got shape \(64, 13, 7, 7\)$",
        ),
    ],
)
def test_state_dict_that_does_not_fit_is_refused_by_name(encoder, state, changes, message):
    with pytest.raises(ValueError, match=message):
        load_resnet(encoder, changed(state, **changes), BANDS)


def test_deeper_network_is_refused(encoder):
    state = make_state_dict.make_state("torch_resnet18", 3)
    extra = {f"layer1.2.conv{part}.weight": np.zeros((64, 64, 3, 3), np.float32) for part in (1, 2)}
    with pytest.raises(
        ValueError,
        match=r"layer1\.2\.conv1\.weight: torch_resnet18 has no place for it \(2 such names\)",
    ):
        load_resnet(encoder, state | extra, BANDS)


def test_band_that_the_weights_do_not_know_is_refused(encoder, state):
    with pytest.raises(ValueError, match="bands must be among B2, B3, B8, got B4"):
        load_resnet(encoder, state, ("B2", "B3", "B8"))


@pytest.mark.parametrize(("backbone", "norm"), [("resnet18", "batch"), ("torch_resnet18", "group")])
def test_encoder_of_another_kind_is_refused(backbone, norm, state):
    with pytest.raises(ValueError, match="encoder must have a torch_ backbone and norm 'batch'"):
        load_resnet(make_encoder(backbone, norm=norm), state, BANDS)
