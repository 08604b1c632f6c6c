import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from beam_jobs.contracts import records, settings
from beam_jobs.contracts.published import read_card
from models.published import card, export, parity


@pytest.fixture(scope="module")
def serving(segmented):
    return tf.saved_model.load(segmented.dir).signatures


@pytest.fixture(scope="module")
def serialized(labels):
    dataset = tf.data.TFRecordDataset(labels.files["eval"], compression_type="GZIP")
    return list(dataset.as_numpy_iterator())


def test_segmenter_equals_keras_for_dynamic_sizes_and_no_data(segmented):
    comparisons = parity.compare_with_keras(segmented.dir)
    assert [c.signature for c in comparisons] == ["serving_default", "serve_examples"] * 2
    assert comparisons[0].input_shapes == {"s1": (2, 32, 32, 2), "s2": (2, 32, 32, 12)}
    assert comparisons[3].output_shapes == {"probabilities": (2, 48, 16, 2), "label": (2, 48, 16)}
    assert max(c.max_abs_difference for c in comparisons) < 1e-5


def test_encoder_equals_keras_for_dynamic_sizes_and_no_data(pretrained):
    comparisons = parity.compare_with_keras(pretrained.dir)
    assert [c.signature for c in comparisons] == ["embed_s1", "embed_s2"] * 2
    assert comparisons[2].output_shapes == {"features": (2, 3, 1, 128), "embedding": (2, 32)}
    assert max(c.max_abs_difference for c in comparisons) < 1e-4


def test_comparison_sees_a_model_that_is_not_the_exported_one(pretrained, tmp_path):
    shutil.copytree(pretrained.dir, tmp_path / "model")
    encoders = export.load_encoders(pretrained.dir)
    encoders["s1"].set_weights([weight * 1.1 for weight in encoders["s1"].get_weights()])
    encoders["s1"].save(tmp_path / "model" / "assets.extra" / "s1_encoder.keras")
    comparisons = parity.compare_with_keras(str(tmp_path / "model"))
    assert comparisons[0].max_abs_difference > 1e-2
    assert comparisons[1].max_abs_difference < 1e-4


def test_examples_and_pixels_of_one_patch_give_the_same_answer(serving, serialized):
    patches = [records.decode(record) for record in serialized]
    pixels = {
        sensor: tf.constant(np.stack([getattr(p, sensor) for p in patches]))
        for sensor in ("s1", "s2")
    }
    assert np.isnan(pixels["s1"]).any()
    by_pixels = serving["serving_default"](**pixels)
    by_examples = serving["serve_examples"](examples=tf.constant(serialized))
    np.testing.assert_array_equal(by_examples["label"], by_pixels["label"])
    np.testing.assert_allclose(by_examples["probabilities"], by_pixels["probabilities"], atol=1e-6)
    no_data = np.isnan(pixels["s1"]).any(-1) & np.isnan(pixels["s2"]).any(-1)
    assert no_data.any()
    np.testing.assert_array_equal(by_pixels["label"].numpy() == 255, no_data)


def test_embedding_has_unit_norm_even_beside_no_data(pretrained):
    pixels = np.random.default_rng(0).normal(-14.0, 4.0, (3, 32, 16, 2)).astype(np.float32)
    pixels[1, :20] = np.nan
    outputs = tf.saved_model.load(pretrained.dir).signatures["embed_s1"](s1=tf.constant(pixels))
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=-1), 1.0, rtol=1e-5)
    assert outputs["features"].shape == (3, 2, 1, 128)


def test_size_that_the_stride_does_not_divide_is_refused_by_the_graph(serving):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="height and width must be multiples of 16"
    ):
        serving["serving_default"](s1=tf.zeros([1, 40, 32, 2]), s2=tf.zeros([1, 40, 32, 12]))


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["segmented", "pretrained"])
def test_warmup_requests_run_on_their_signatures(name, request):
    directory = request.getfixturevalue(name).dir
    signatures = tf.saved_model.load(directory).signatures
    seen = []
    for record in tf.data.TFRecordDataset(f"{directory}/assets.extra/tf_serving_warmup_requests"):
        warmup = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.constant(tf.make_ndarray(proto)) for key, proto in warmup.inputs.items()}
        outputs = signatures[warmup.model_spec.signature_name](**inputs)
        assert all(np.isfinite(tensor.numpy()).all() for tensor in outputs.values())
        seen.append(warmup.model_spec.signature_name)
    assert seen == read_card(directory)["signatures"]


def test_card_says_where_the_model_comes_from(segmented, labels):
    content = read_card(segmented.dir)
    assert content["name"] == "segmenter"
    assert content["data_manifest_sha256"] == labels.manifest.sha256
    assert content["config_sha256"] == settings.sha256(segmented.config)
    assert content["config"]["decoder_channels"] == [32, 16, 16, 8]
    assert content["metrics"] == {
        key: pytest.approx(value) for key, value in segmented.metrics.items()
    }
    assert content["class_names"] == ["dry", "water"]
    assert content["inputs"]["s1"] == {"bands": ["VV", "VH"], "unit": "dB", "nodata": "NaN"}
    assert content["stride"] == 16


def test_metric_without_value_becomes_null_in_the_card(segmented, labels):
    content = card.make_card(
        card.Provenance(
            name="m",
            config=segmented.config,
            manifest=labels.manifest,
            metrics={"pooled_iou/water": float("nan"), "loss": 0.5},
            started_from={},
        ),
        card.Interface(
            task="segmentation",
            sensors=("s1",),
            stride=16,
            signatures=(),
            schema=segmented.config.schema,
        ),
    )
    assert content["metrics"] == {"pooled_iou/water": None, "loss": 0.5}


def test_each_weight_is_stored_once(segmented, pretrained):
    for folder in (Path(segmented.dir), Path(pretrained.dir)):
        (data,) = (folder / "variables").glob("*.data*")
        models = [keras.saving.load_model(path) for path in folder.glob("assets.extra/*.keras")]
        expected = sum(weight.nbytes for model in models for weight in model.get_weights())
        # Beside the weights there is a description of some kilobytes.
        assert expected <= data.stat().st_size < expected + 100_000 < 1.9 * expected, folder


def test_directory_without_a_card_is_no_finished_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model card"):
        parity.compare_with_keras(str(tmp_path))
