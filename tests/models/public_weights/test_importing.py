"""From a file of public weights to a published encoder and a segmenter that uses it."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.published import read_card
from models import segment
from models.config import EncoderConfig
from models.public_weights.catalog import KNOWN, PublicWeights, find_weights
from models.public_weights.importing import import_encoder
from models.published import export, parity
from models.segment_config import SegmentConfig
from models.training.scaffold import Folders
from tests.data.networks import make_state_dict

NAME = "ssl4eo-s12-s2-moco-resnet18"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def weights_file(folder):
    state = make_state_dict.make_state("torch_resnet18", 13)
    state = {f"module.encoder_q.{name}": array for name, array in state.items()}
    return make_state_dict.write_pth(
        folder / "moco.pth", state | {"module.queue": np.zeros(4)}, "state_dict"
    )


@pytest.fixture(scope="module")
def imported(folder, weights_file):
    return import_encoder(KNOWN[NAME], weights_file, str(folder / "encoder"), bands=S2_L2A_BANDS)


@pytest.fixture(scope="module")
def published(imported, folder):
    return str(folder / "encoder")


def flood(**changes):
    options = {
        "sensors": ("s2",),
        "label_schema": "water",
        "encoder": EncoderConfig(backbone="torch_resnet18"),
    }
    return SegmentConfig(
        **(
            options
            | {"num_steps": 2, "global_batch_size": 4, "decoder_channels": (8,) * 5}
            | changes
        )
    )


def test_what_was_left_out_and_dropped_is_told(imported, weights_file):
    assert imported.bands == S2_L2A_BANDS
    assert imported.left_out == ("B10",)
    assert imported.prefix == "state_dict.module.encoder_q."
    assert imported.dropped == ("fc.bias", "fc.weight")
    assert imported.sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    lines = imported.lines(KNOWN[NAME])
    assert lines[0].startswith("torch_resnet18 of s2, trained on pixels of level L1C, bands B1, B2")
    assert lines[1] == "left out, so they count as their mean everywhere: B10"
    assert lines[2] == "not part of the ResNet, dropped: fc.bias, fc.weight"
    assert lines[3].startswith(
        "license CC-BY-4.0, https://github.com/zhu-xlab/SSL4EO-S12, SHA-256 "
    )


def test_published_encoder_equals_keras_and_embeds_on_the_unit_sphere(published):
    (encoder,) = export.load_encoders(published).values()
    assert (encoder.sensor, encoder.mean, encoder.std) == ("s2", (0.0,) * 12, (1.0,) * 12)
    comparisons = parity.compare_with_keras(published)
    assert [comparison.signature for comparison in comparisons] == ["embed_s2"] * 2
    assert max(comparison.max_abs_difference for comparison in comparisons) < 1e-3
    pixels = np.random.default_rng(0).uniform(0.01, 0.4, (2, 64, 32, 12)).astype(np.float32)
    outputs = tf.saved_model.load(published).signatures["embed_s2"](s2=tf.constant(pixels))
    pooled = encoder(pixels)["pooled"].numpy()
    expected = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
    np.testing.assert_allclose(outputs["embedding"], expected, rtol=1e-3, atol=1e-5)


def test_card_names_file_hash_terms_bands_and_level(published, imported, pretrained):
    content = read_card(published)
    assert content["source"] == {
        "file": "moco.pth",
        "sha256": imported.sha256,
        "license": "CC-BY-4.0",
        "page": "https://github.com/zhu-xlab/SSL4EO-S12",
        "prefix": "state_dict.module.encoder_q.",
        "dropped_names": ["fc.bias", "fc.weight"],
        "bands_left_out": ["B10"],
    }
    assert content["inputs"] == {
        "s2": {"bands": list(S2_L2A_BANDS), "unit": "reflectance", "nodata": "NaN"}
    }
    assert content["s2_processing_level"] == "L1C"
    # Readers of cards find the keys that they find in those of our own encoders.
    assert set(content) - set(read_card(pretrained.dir)) == {"source"}
    assert set(read_card(pretrained.dir)) <= set(content)


def test_segmenter_starts_from_a_published_encoder_or_a_keras_file(published, labels):
    (encoder,) = export.load_encoders(published).values()
    for path in (published, f"{published}/assets.extra/s2_encoder.keras"):
        model = segment.build_segmenter(flood(encoder_paths={"s2": path}), labels.manifest, None)
        assert model.encoders["s2"].std == (1.0,) * 12
        for got, expected in zip(
            model.encoders["s2"].get_weights(), encoder.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(got, expected)


def test_path_of_a_sensor_goes_before_the_pretrained_encoder(published, pretrained, labels):
    small = flood(encoder=EncoderConfig(backbone="small", embedding_dim=32), sensors=("s1", "s2"))
    model = segment.build_segmenter(small, labels.manifest, pretrained.dir)
    assert model.encoders["s2"].backbone == "small"
    changed = dataclasses.replace(small, encoder_paths={"s2": published})
    with pytest.raises(
        ValueError, match=r"s2: encoder\.backbone is 'small', the encoder's 'torch_resnet18'"
    ):
        segment.build_segmenter(changed, labels.manifest, pretrained.dir)


def test_path_without_the_sensor_s_encoder_is_refused(published, pretrained, labels):
    config = flood(sensors=("s1",), encoder_paths={"s1": published})
    with pytest.raises(ValueError, match=r"encoder: must hold an encoder of s1, got s2$"):
        segment.build_segmenter(config, labels.manifest, None)
    head = f"{pretrained.dir}/assets.extra/s1_head.keras"
    with pytest.raises(
        ValueError, match=r"s1_head\.keras: must be a SensorEncoder, .* got ProjectionHead"
    ):
        export.load_encoders(head)


def test_existing_folder_is_never_overwritten(published, weights_file):
    with pytest.raises(
        FileExistsError, match="exists already, and published models are never overwritten"
    ):
        import_encoder(KNOWN[NAME], weights_file, published)


def test_error_names_the_file_and_leaves_nothing_behind(folder, weights_file):
    with pytest.raises(ValueError, match=r"moco\.pth: bands must be among B1, .*, B12, got VV$"):
        import_encoder(KNOWN[NAME], weights_file, str(folder / "none"), bands=("B2", "VV"))
    with pytest.raises(ValueError, match=r"moco\.pth: layer1\.0\..*: torch_resnet50 needs"):
        import_encoder(KNOWN["ssl4eo-s12-s2-moco-resnet50"], weights_file, str(folder / "none"))
    assert not (folder / "none").exists()


def test_weights_of_others_are_described_in_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    values = settings.to_dict(KNOWN["ssl4eo-s12-s1-moco-resnet50"]) | {"license": "MIT"}
    path.write_text(json.dumps(values))
    assert find_weights(str(path)) == dataclasses.replace(
        KNOWN["ssl4eo-s12-s1-moco-resnet50"], license="MIT"
    )
    path.write_text(json.dumps({**values, "std": [5.0]}))
    with pytest.raises(
        settings.SettingsError,
        match=r"mine\.yaml: PublicWeights: 2 bands need as many means and stds",
    ):
        find_weights(str(path))
    with pytest.raises(
        ValueError,
        match=r"weights must be a YAML file or one of decur-s1-resnet50, .*, got 'resnet'",
    ):
        find_weights("resnet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("VV", "B2")}, "s1 has no band 'B2'"),
        (
            {"backbone": "resnet50"},
            "backbone must be torch_resnet18 or torch_resnet50, got 'resnet50'",
        ),
        ({"std": (5.0, 0.0)}, r"std must be above 0, got \(5\.0, 0\.0\)"),
        ({"license": ""}, "license and source must not be empty"),
        (
            {"s2_processing_level": "L1C"},
            r"s2_processing_level must be one of \(None,\), got 'L1C'",
        ),
    ],
)
def test_description_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(KNOWN["ssl4eo-s12-s1-moco-resnet50"], **changes)


def test_known_statistics_are_in_our_units():
    softcon: PublicWeights = KNOWN["softcon-s2-resnet50"]
    assert dict(zip(S2_L1C_BANDS, softcon.mean, strict=True))["B10"] == pytest.approx(22.0 * 1e-4)
    assert KNOWN["decur-s1-resnet50"].mean == (-12.59, -20.26)


@pytest.mark.e2e
def test_segmenter_trains_from_imported_weights_without_pretraining(published, labels, tmp_path):
    config = flood(encoder_paths={"s2": published})
    scores = segment.run_segmentation(
        config,
        labels.shards,
        Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs")),
    )
    assert np.isfinite(scores["loss"])
    assert read_card(str(tmp_path / "model"))["config"]["encoder_paths"] == {"s2": published}
    assert (
        max(item.max_abs_difference for item in parity.compare_with_keras(str(tmp_path / "model")))
        < 1e-3
    )
