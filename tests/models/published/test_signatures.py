import keras
import numpy as np
import pytest
import tensorflow as tf

from models.dual_encoder import ProjectionHead
from models.encoders import SensorEncoder
from models.published import signatures
from models.segmenter import Segmenter

NUM_BANDS = {"s1": 2, "s2": 3}


def encoder(sensor):
    bands = ("VV", "VH") if sensor == "s1" else ("B2", "B3", "B4")
    mean, std = ((-12.0, -19.0), (4.0, 5.0)) if sensor == "s1" else ((0.1,) * 3, (0.05,) * 3)
    return SensorEncoder(sensor=sensor, bands=bands, mean=mean, std=std, backbone="small")


@pytest.fixture(scope="module")
def segmenter():
    keras.utils.set_random_seed(0)
    encoders = {sensor: encoder(sensor) for sensor in NUM_BANDS}
    return Segmenter(encoders=encoders, num_classes=2, decoder_channels=(8, 8, 8, 8))


def graph(function, *specs):
    """The function as it is exported: traced once, for all sizes."""
    return tf.function(function, input_signature=specs, autograph=False)


def example(height, width, seed=0):
    rng = np.random.default_rng(seed)
    s1 = rng.integers(-2500, -800, (height, width, 2), dtype=np.int16)
    s2 = rng.integers(100, 4000, (height, width, 3), dtype=np.uint16)
    features = {
        "height": tf.train.Feature(int64_list=tf.train.Int64List(value=[height])),
        "width": tf.train.Feature(int64_list=tf.train.Int64List(value=[width])),
        "s1": tf.train.Feature(bytes_list=tf.train.BytesList(value=[s1.tobytes()])),
        "s2": tf.train.Feature(bytes_list=tf.train.BytesList(value=[s2.tobytes()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def serve_examples(segmenter):
    pixels = signatures.pixels_endpoint(segmenter)
    return graph(
        signatures.examples_endpoint(segmenter, pixels),
        tf.TensorSpec([None], tf.string, "examples"),
    )


# The first two have equally many bytes.
@pytest.mark.parametrize("sizes", [((32, 16), (16, 32)), ((16, 16), (32, 32))])
def test_examples_of_several_sizes_are_refused_by_the_graph(serve_examples, sizes):
    request = tf.constant([example(*size) for size in sizes])
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="all examples of one batch must have one height and width; send those of another",
    ):
        serve_examples(request)


def test_each_size_is_served_in_a_batch_of_its_own(serve_examples):
    outputs = serve_examples(tf.constant([example(16, 32), example(16, 32, seed=1)]))
    assert outputs["label"].shape == (2, 16, 32)
    assert not np.array_equal(outputs["probabilities"][0], outputs["probabilities"][1])


def test_no_examples_give_no_labels(serve_examples):
    outputs = serve_examples(tf.constant([], tf.string))
    assert outputs["probabilities"].shape == (0, 16, 16, 2)
    assert outputs["label"].shape == (0, 16, 16)


# The last one is what a client sends who stacks an empty list.
@pytest.mark.parametrize(("height", "width"), [(48, 32), (0, 0)])
def test_no_pixels_give_no_labels_and_no_embeddings(segmenter, height, width):
    expected = (height or 16, width or 16)
    serve = graph(signatures.pixels_endpoint(segmenter), *signatures.pixel_specs(segmenter))
    outputs = serve(*(tf.zeros([0, height, width, n]) for n in NUM_BANDS.values()))
    assert outputs["probabilities"].shape == (0, *expected, 2)
    assert outputs["label"].shape == (0, *expected)
    assert outputs["label"].dtype == tf.int32
    head = ProjectionHead(features_dim=128, embedding_dim=8)
    for sensor, num_bands in NUM_BANDS.items():
        spec = tf.TensorSpec([None, None, None, num_bands], tf.float32, sensor)
        embed = graph(signatures.embed_endpoint(segmenter.encoders[sensor], head), spec)
        outputs = embed(tf.zeros([0, height, width, num_bands]))
        assert outputs["features"].shape == (0, expected[0] // 16, expected[1] // 16, 128)
        assert outputs["embedding"].shape == (0, 8)


def test_no_layer_reads_pixels_before_their_size_is_checked(segmenter):
    """Else a client sometimes gets a layer's message about shapes, by thread timing."""
    traced = tf.function(signatures.pixels_endpoint(segmenter), autograph=False)
    inputs = traced.get_concrete_function(*signatures.pixel_specs(segmenter)).inputs[:2]
    for pixels in inputs:
        readers = [op for op in pixels.consumers() if op.type != "Shape"]
        assert [op.type for op in readers] == ["Identity"]
        assert ["assert" in op.name for op in readers[0].control_inputs] == [True]
