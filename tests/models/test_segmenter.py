import keras
import numpy as np
import pytest

from models.encoders import SensorEncoder, with_border
from models.segmenter import Segmenter, with_segmenter_precision

CHANNELS = (16, 16, 8, 8)


def encoder(sensor):
    bands = ("VV", "VH") if sensor == "s1" else ("B2", "B3", "B4")
    mean, std = (
        ((-12.0, -19.0), (4.0, 5.0)) if sensor == "s1" else ((0.1, 0.1, 0.2), (0.05, 0.06, 0.07))
    )
    return SensorEncoder(sensor=sensor, bands=bands, mean=mean, std=std, backbone="small")


def pixels(height=32, width=48):
    rng = np.random.default_rng(0)
    return {
        "s1": rng.normal(-14.0, 4.0, (1, height, width, 2)).astype(np.float32),
        "s2": rng.uniform(0.01, 0.5, (1, height, width, 3)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def both():
    keras.utils.set_random_seed(0)
    encoders = {sensor: encoder(sensor) for sensor in ("s1", "s2")}
    return Segmenter(encoders=encoders, num_classes=4, decoder_channels=CHANNELS)


def test_label_is_the_most_probable_class_and_255_where_no_sensor_has_data(both):
    batch = pixels()
    batch["s1"][0, :10] = np.nan
    batch["s2"][0, :, :20] = np.nan
    outputs = {name: tensor.numpy() for name, tensor in both(batch).items()}
    expected = outputs["probabilities"].argmax(-1)
    expected[0, :10, :20] = 255
    np.testing.assert_array_equal(outputs["label"], expected)
    assert outputs["label"].dtype == np.int32
    assert outputs["valid_mask"].sum() == 32 * 48 - 10 * 20
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_one_sensor_alone_works_and_survives_saving_exactly(sensor, tmp_path):
    keras.utils.set_random_seed(1)
    model = Segmenter(
        encoders={sensor: encoder(sensor)}, num_classes=2, decoder_channels=(64, *CHANNELS)
    )
    model.save(tmp_path / "segmenter.keras")
    loaded = keras.saving.load_model(tmp_path / "segmenter.keras")
    assert loaded.sensors == (sensor,)
    batch = {sensor: pixels()[sensor]}
    outputs, reloaded = model(batch), loaded(batch)
    assert outputs["logits"].shape == (1, 32, 48, 2)
    for name, expected in outputs.items():
        np.testing.assert_array_equal(reloaded[name], expected)


def test_single_pixel_reaches_its_own_logits_through_the_full_resolution_skip(both):
    batch = pixels()
    changed = {sensor: tensor.copy() for sensor, tensor in batch.items()}
    changed["s2"][0, 17, 21] = 0.9
    difference = np.abs(both(batch)["logits"].numpy() - both(changed)["logits"].numpy()).max(-1)[0]
    # Far away only the blurred path through the encoder is left; at the pixel the
    # direct one is added.
    assert difference[17, 21] > 3 * np.median(difference)


def test_too_few_decoder_channels_are_refused():
    with pytest.raises(ValueError, match="at least 4 values"):
        Segmenter(encoders={"s1": encoder("s1")}, num_classes=2, decoder_channels=(8, 8, 8))


def test_files_from_before_there_was_a_choice_go_on_upsampling_bilinearly(both):
    config = both.get_config()
    assert config.pop("interpolation") == "nearest"
    old = Segmenter.from_config(config)
    for model in (
        old,
        with_segmenter_precision(old, "mixed_bfloat16"),
        Segmenter.from_config(old.get_config()),
    ):
        assert model.get_layer("decoder0_up").interpolation == "bilinear"


@pytest.fixture(scope="module")
def mirrored(both):
    encoders = {sensor: with_border(each, "mirror") for sensor, each in both.encoders.items()}
    model = Segmenter(encoders=encoders, num_classes=4, decoder_channels=CHANNELS, border="mirror")
    model.set_weights(both.get_weights())
    return model


def test_mirrored_border_hides_where_the_patch_ends(both, mirrored):
    one_colour = {"s1": np.full((1, 32, 48, 2), -14.0), "s2": np.full((1, 32, 48, 3), 0.2)}
    assert np.ptp(mirrored(one_colour)["logits"], axis=(1, 2)).max() < 1e-4
    assert np.ptp(both(one_colour)["logits"], axis=(1, 2)).max() > 1e-2


def test_border_is_kept_and_files_from_before_there_was_a_choice_have_zeros(mirrored):
    config = mirrored.get_config()
    for model in (
        with_segmenter_precision(mirrored, "mixed_bfloat16"),
        Segmenter.from_config(config),
    ):
        assert model.get_layer("decoder0_0_conv").border == model.border == "mirror"
        assert {each.border for each in model.encoders.values()} == {"mirror"}
    del config["border"]
    assert Segmenter.from_config(config).get_layer("decoder0_0_conv").border == "zeros"


def test_precision_can_be_changed_under_the_same_weights(both):
    mixed = with_segmenter_precision(both, "mixed_bfloat16")
    assert mixed.encoders["s1"].precision == mixed.precision == "mixed_bfloat16"
    batch = pixels()
    expected, rough = both(batch)["logits"].numpy(), mixed(batch)["logits"].numpy()
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - expected).max() < 0.1 * np.abs(expected).max()
    again = with_segmenter_precision(mixed, "float32")
    np.testing.assert_array_equal(again(batch)["logits"], expected)
