"""A tiny task: shards in the real codec, and a SavedModel with the segmenter's `serve_examples` signature."""

from pathlib import Path

import make_shards
import pytest
import tensorflow as tf


class RollingModel(tf.Module):
    """Predicts the label moved by three columns; says nothing (255) where that is 255 and in the first row."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve_examples(self, examples):
        spec = {name: tf.io.FixedLenFeature([], kind) for name, kind in (("label", tf.string), ("height", tf.int64))}
        parsed = tf.io.parse_example(examples, spec)
        label = tf.reshape(tf.io.decode_raw(parsed["label"], tf.uint8), [tf.size(examples), 32, 32])
        rolled = tf.cast(tf.roll(label, shift=3, axis=2), tf.int32)
        first_row = tf.range(32)[None, :, None] == 0
        # Two outputs, as the published segmenter has: TFMA squeezes a single one to an array.
        return {"label": tf.where(first_row, 255, rolled), "probabilities": tf.one_hot(rolled, 2)}


@pytest.fixture(scope="session")
def water_version(tmp_path_factory) -> Path:
    return make_shards.make_version(tmp_path_factory.mktemp("water"), kind="labels", label_schema="water")


@pytest.fixture(scope="session")
def pairs_version(tmp_path_factory) -> Path:
    return make_shards.make_version(tmp_path_factory.mktemp("pairs"), kind="pairs")


@pytest.fixture(scope="session")
def rolling_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rolling_model")
    model = RollingModel()
    tf.saved_model.save(model, str(path), signatures={"serve_examples": model.serve_examples})
    return path
