"""A SavedModel in one file answers as the one it was made of, whatever lies beside it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from models.published import one_file
from tests.data.networks import native_loader

NUMBERS = np.array([[0.1, -2.0], [3.0, 1e-7]], np.float32)
VARIABLES = ("variables.index", "variables.data-00000-of-00001")


def save(folder: Path, scale: float) -> Path:
    """Write a SavedModel with variables of several types, and a table."""
    model = tf.Module()
    model.matrix = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3) * scale)
    model.offset = tf.Variable(tf.cast([1.0, 2.0, 3.0], tf.bfloat16))
    model.power = tf.Variable(np.int64(2))
    model.key = tf.Variable(b"seven")
    model.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(["seven"]), tf.constant([7.0])), -1.0
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serve(x):
        power = tf.cast(model.power, tf.float32) + model.table.lookup(model.key)
        return {"y": (x @ model.matrix + tf.cast(model.offset, tf.float32)) * power}

    model.serve = serve
    tf.saved_model.save(model, str(folder), {"serving_default": serve})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "model", 0.3)


@pytest.mark.parametrize("num_files", [0, 1, 2])
@pytest.mark.parametrize("others_are", ["its own", "of another model"])
def test_one_file_answers_alone_and_beside_any_part_of_the_others(
    model, tmp_path, num_files, others_are
):
    expected = native_loader.answer(model, "serving_default", NUMBERS)
    source = model if others_are == "its own" else save(tmp_path / "other", 5.0)
    copy = tmp_path / "copy"
    (copy / "variables").mkdir(parents=True)
    (copy / "saved_model.pb").write_bytes(one_file.pack(model))
    for name in VARIABLES[:num_files]:
        shutil.copy(source / "variables" / name, copy / "variables")
    np.testing.assert_array_equal(native_loader.answer(copy, "serving_default", NUMBERS), expected)
    signature = tf.saved_model.load(str(copy)).signatures["serving_default"]
    np.testing.assert_array_equal(signature(x=tf.constant(NUMBERS))["y"].numpy().ravel(), expected)
    # It is one file already.
    assert one_file.pack(copy) == (copy / "saved_model.pb").read_bytes()


def test_the_graph_alone_is_no_model(model, tmp_path):
    """The loader reports nothing, and the answers fail: why `one_file` is needed."""
    shutil.copy(model / "saved_model.pb", tmp_path)
    with pytest.raises(ValueError, match="Could not find variable"):
        native_loader.answer(tmp_path, "serving_default", NUMBERS)


@pytest.mark.parametrize("name", ["segmented", "pretrained"])
def test_all_signatures_of_trained_models_answer_to_the_last_bit(name, request, tmp_path):
    folder = Path(request.getfixturevalue(name).dir)
    (tmp_path / "saved_model.pb").write_bytes(one_file.pack(folder))
    whole, packed = (tf.saved_model.load(str(path)).signatures for path in (folder, tmp_path))
    called = set()
    calls = tf.data.TFRecordDataset(f"{folder}/assets.extra/tf_serving_warmup_requests")
    for call in calls.as_numpy_iterator():
        warmup = prediction_log_pb2.PredictionLog.FromString(call).predict_log.request
        signature = warmup.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(proto)) for key, proto in warmup.inputs.items()}
        for key, expected in whole[signature](**inputs).items():
            np.testing.assert_array_equal(packed[signature](**inputs)[key], expected)
        called.add(signature)
    assert called == set(whole) == set(packed)


def test_a_folder_may_have_a_name_that_is_a_pattern(model, tmp_path):
    shutil.copytree(model, tmp_path / "runs [v1]")
    assert len(one_file.pack(tmp_path / "runs [v1]")) == len(one_file.pack(model))


def damaged(model, folder, how):
    """Return the folder of a model that cannot be one file."""
    if how == "nothing":
        return folder
    shutil.copytree(model, folder)
    if how == "no graph":
        (folder / "saved_model.pb").write_bytes(b"graph")
    elif how == "no variables":
        shutil.rmtree(folder / "variables")
    elif how == "half of the variables":
        weights = folder / "variables" / VARIABLES[1]
        weights.write_bytes(weights.read_bytes()[:20])
    elif how == "a file of assets":
        (folder / "words").write_text("dry\nwater\n")
        holder = tf.Module()
        holder.words = tf.saved_model.Asset(str(folder / "words"))
        tf.saved_model.save(holder, str(folder))
    return folder


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("nothing", "No such file"),
        ("no graph", "Error parsing"),
        ("no variables", "Failed to find any matching files"),
        ("half of the variables", "Read less bytes than requested"),
        ("a file of assets", "it reads words of assets/"),
    ],
)
def test_what_is_no_single_file_is_refused_in_one_line(model, tmp_path, how, why):
    folder = damaged(model, tmp_path / "model", how)
    with pytest.raises(one_file.OneFileError) as caught:
        one_file.pack(folder)
    assert str(caught.value).startswith(f"{folder}: must load from one file to be published on ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_protobuf_cannot_write_is_refused(model, monkeypatch):
    """2 GiB are too much for a test, so the library's own refusal stands for it."""

    def refuse(self):
        raise ValueError("GraphDef cannot be larger than 2GB.")

    monkeypatch.setattr(tf.Graph, "as_graph_def", refuse)
    with pytest.raises(one_file.OneFileError, match="cannot be larger than 2GB"):
        one_file.pack(model)
