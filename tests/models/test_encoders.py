import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from models.config import EncoderConfig
from models.dual_encoder import build_dual_encoder
from models.encoders import SensorEncoder, build_encoder, with_border, with_precision
from tests.data.runs.repository import REPOSITORY


def small(sensor="s1", precision="float32", norm="batch"):
    bands = ("VV", "VH") if sensor == "s1" else ("B2", "B3", "B4")
    mean, std = (
        ((-12.0, -19.0), (4.0, 5.0)) if sensor == "s1" else ((0.1, 0.1, 0.2), (0.05, 0.06, 0.07))
    )
    return SensorEncoder(
        sensor=sensor,
        bands=bands,
        mean=mean,
        std=std,
        backbone="small",
        norm=norm,
        precision=precision,
    )


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    return small()


def backscatter(height=32, width=48):
    return np.random.default_rng(0).normal(-14.0, 4.0, (2, height, width, 2)).astype(np.float32)


def test_pyramid_halves_the_size_level_by_level(encoder):
    outputs = encoder(backscatter())
    sizes = {level: tuple(outputs[level].shape[1:3]) for level in encoder.levels}
    assert sizes == {"P1": (16, 24), "P2": (8, 12), "P3": (4, 6), "P4": (2, 3)}
    assert encoder.stride == 16
    assert encoder.output["features"].shape[-1] == 128
    np.testing.assert_array_equal(outputs["features"], outputs["P4"])


def test_pooled_features_weigh_cells_by_their_valid_share(encoder):
    pixels = backscatter()
    pixels[0, :16] = np.nan
    pixels[0, 16:, :4] = np.nan
    outputs = encoder(pixels)
    weights = np.array([[0, 0, 0], [0.75, 1, 1]])[..., None]
    expected = (outputs["features"].numpy()[0] * weights).sum((0, 1)) / weights.sum()
    np.testing.assert_allclose(outputs["pooled"][0], expected, rtol=1e-5, atol=1e-6)


def test_what_lies_under_no_data_changes_nothing(encoder):
    spoilt = []
    for garbage in (np.nan, np.inf):
        pixels = backscatter()
        pixels[:, 3:9, 5:20, 0] = garbage
        pixels[:, 3:9, 5:20, 1] = -14.0 if garbage is np.inf else 25.0
        spoilt.append(encoder(pixels))
    for name in spoilt[0]:
        np.testing.assert_array_equal(spoilt[0][name], spoilt[1][name])


def test_patch_without_any_data_has_zero_pooled_features(encoder):
    np.testing.assert_array_equal(
        encoder(np.full((1, 32, 32, 2), np.nan, np.float32))["pooled"], np.zeros((1, 128))
    )


def test_inference_is_traced_once_for_all_sizes_and_uses_the_weights_of_the_time():
    keras.utils.set_random_seed(0)
    encoder = small()
    for pixels in (backscatter(), backscatter(16, 32)):
        for name, expected in encoder(pixels, training=False).items():
            np.testing.assert_allclose(encoder.infer(pixels)[name], expected, rtol=1e-4, atol=1e-5)
    before = encoder.infer(backscatter())["pooled"].numpy()
    encoder.set_weights([1.1 * weight for weight in encoder.get_weights()])
    assert np.abs(encoder.infer(backscatter())["pooled"].numpy() - before).max() > 1e-3
    assert encoder.infer.experimental_get_tracing_count() == 1


def test_encoder_survives_saving_exactly(encoder, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert loaded.get_config() == encoder.get_config()
    pixels = backscatter()
    for name, expected in encoder(pixels).items():
        np.testing.assert_array_equal(loaded(pixels)[name], expected)


def test_mixed_precision_gives_float32_outputs_near_those_of_float32(encoder, tmp_path):
    mixed = with_precision(encoder, "mixed_bfloat16")
    mixed.save(tmp_path / "mixed.keras")
    loaded = keras.saving.load_model(tmp_path / "mixed.keras")
    pixels = backscatter()
    expected, got = encoder(pixels), loaded(pixels)
    assert got["P3"].dtype == "bfloat16"
    for name in ("features", "pooled", "normalized", "valid_mask"):
        assert got[name].dtype == "float32"
    difference = np.abs(got["features"].numpy() - expected["features"].numpy()).max()
    assert 0 < difference < 0.05 * np.abs(expected["features"].numpy()).max()
    np.testing.assert_array_equal(got["features"], mixed(pixels)["features"])


def test_batch_normalization_is_synchronized_also_after_reloading(encoder):
    copy = SensorEncoder.from_config(encoder.get_config())
    layers = [
        layer
        for layer in copy._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(layers) >= 7
    assert all(layer.synchronized and layer.momentum == 0.9 for layer in layers)


def test_encoder_published_before_norm_and_border_could_be_chosen_still_loads(encoder):
    config = encoder.get_config()
    del config["norm"], config["border"]
    loaded = SensorEncoder.from_config(config)
    assert (loaded.norm, loaded.border) == ("batch", "zeros")
    loaded.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(loaded(backscatter())["pooled"], encoder(backscatter())["pooled"])


def test_mirrored_border_hides_where_the_patch_ends(encoder, tmp_path):
    mirrored = with_border(encoder, "mirror")
    for got, expected in zip(mirrored.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)
    one_colour = np.full((1, 32, 48, 2), -14.0, np.float32)
    for level in encoder.levels:
        # Every cell sees the same where no zeros surround the patch.
        assert np.ptp(mirrored(one_colour)[level], axis=(1, 2)).max() < 1e-4
        assert np.ptp(encoder(one_colour)[level], axis=(1, 2)).max() > 1e-2
    mirrored.save(tmp_path / "mirrored.keras")
    loaded = keras.saving.load_model(tmp_path / "mirrored.keras")
    assert (loaded.border, with_precision(loaded, "mixed_bfloat16").border) == ("mirror",) * 2
    # One cell at the deepest level is the smallest window.
    smallest = backscatter(16, 16)
    np.testing.assert_array_equal(loaded(smallest)["pooled"], mirrored(smallest)["pooled"])
    assert with_border(mirrored, "mirror") is mirrored


def test_backbones_of_public_weights_keep_zeros_beyond_the_border():
    with pytest.raises(ValueError, match="border must be zeros with the backbone 'torch_resnet18'"):
        SensorEncoder(
            sensor="s1",
            bands=("VV",),
            mean=(0.0,),
            std=(1.0,),
            backbone="torch_resnet18",
            border="mirror",
        )


def test_group_norm_sees_each_patch_alone_and_survives_saving_exactly(tmp_path):
    keras.utils.set_random_seed(0)
    grouped = small(norm="group", precision="mixed_bfloat16")
    layers = grouped._flatten_layers()
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert grouped.count_params() == small().count_params() - 2 * sum(
        layer.moving_mean.shape[0]
        for layer in small()._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    pixels = backscatter()
    together = grouped(pixels, training=True)["pooled"]
    alone = np.concatenate(
        [grouped(pixels[index : index + 1], training=True)["pooled"] for index in range(2)]
    )
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)
    grouped.save(tmp_path / "grouped.keras")
    loaded = keras.saving.load_model(tmp_path / "grouped.keras")
    assert loaded.norm == "group"
    np.testing.assert_array_equal(loaded(pixels)["pooled"], grouped(pixels)["pooled"])


def test_statistics_and_bands_come_from_the_manifest(pairs):
    encoder = build_encoder(EncoderConfig(backbone="small"), "s2", pairs.manifest)
    assert encoder.bands == pairs.manifest.s2_bands
    assert encoder.mean == tuple(entry.mean for entry in pairs.manifest.s2_statistics)


def test_band_count_and_statistics_must_agree():
    with pytest.raises(ValueError, match="s1: 2 bands but 1 means"):
        SensorEncoder(sensor="s1", bands=("VV", "VH"), mean=(0.0,), std=(1.0,), backbone="small")


def test_dual_encoder_gives_unit_embeddings_and_survives_saving_exactly(encoder, tmp_path):
    keras.utils.set_random_seed(1)
    model = build_dual_encoder({"s1": encoder, "s2": small("s2")}, embedding_dim=16)
    rng = np.random.default_rng(3)
    batch = {
        "s1": backscatter(32, 32),
        "s2": rng.uniform(0.01, 0.5, (2, 32, 32, 3)).astype(np.float32),
    }
    embeddings = model(batch)
    model.save(tmp_path / "dual.keras")
    loaded = keras.saving.load_model(tmp_path / "dual.keras")
    for sensor in ("s1", "s2"):
        np.testing.assert_allclose(np.linalg.norm(embeddings[sensor], axis=-1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(loaded(batch)[sensor], embeddings[sensor])


@pytest.mark.parametrize(
    ("backbone", "num_bands", "depth"),
    [("resnet18", 13, 512), ("resnet50", 2, 2048)],
)
def test_large_backbones_take_any_number_of_bands(backbone, num_bands, depth, tmp_path):
    bands = tuple(f"band{index}" for index in range(num_bands))
    encoder = SensorEncoder(
        sensor="s2", bands=bands, mean=[0.1] * num_bands, std=[0.05] * num_bands, backbone=backbone
    )
    pixels = np.random.default_rng(0).uniform(0.01, 0.4, (1, 64, 32, num_bands)).astype(np.float32)
    outputs = encoder(pixels)
    assert encoder.stride == EncoderConfig(backbone=backbone).stride == 32
    sizes = {level: tuple(outputs[level].shape[1:3]) for level in encoder.levels}
    assert sizes == {"P1": (32, 16), "P2": (16, 8), "P3": (8, 4), "P4": (4, 2), "P5": (2, 1)}
    assert outputs["pooled"].shape == (1, depth)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(again(pixels)["pooled"], outputs["pooled"])


@pytest.mark.e2e
def test_two_kinds_of_keras_in_one_process_are_refused():
    """tensorflow-transform sets a variable for child processes; it must not build half a model."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", "import models.encoders"]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert (
        "set TF_USE_LEGACY_KERAS=0 before TensorFlow is imported" in result.stderr.splitlines()[-1]
    )
