"""Count what a training step of the dual encoders costs, whatever the machine.

Input: the shapes of `training_speed`. Output: the operations of a pair, and the numbers
that replicas exchange. `training_sizing` goes on from them.
"""

import itertools
from typing import Any

from tests.benchmarks.training import training_speed

BACKBONES = ("resnet18", "resnet50")
SIZES_PX = (64, 128)


def measure() -> dict[str, object]:
    """Return the counts of each backbone, and the operations of each patch size."""
    found: dict[str, dict[str, object]] = {}
    for backbone, size_px in itertools.product(BACKBONES, SIZES_PX):
        model = training_speed.make_model(backbone, "float32")
        counts = found.setdefault(backbone, _count_variables(model))
        counts[f"forward_gflops_{size_px}px"] = round(_count_flops(model, size_px) / 1e9, 3)
    return found


def _count_variables(model: Any) -> dict[str, object]:
    import keras

    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    return {
        "num_weights": sum(variable.shape.num_elements() for variable in model.trainable_variables),
        "num_statistics": sum(2 * layer.gamma.shape[0] for layer in layers),
        "num_normalizations": len(layers),
    }


def _count_flops(model: Any, size_px: int) -> int:
    """Return the operations of the forward pass of a pair, a product and a sum as two.

    TensorFlow counts convolutions and products of matrices, from the shapes alone.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = {
        sensor: tf.TensorSpec([1, size_px, size_px, num_bands], tf.float32)
        for sensor, num_bands in training_speed.NUM_BANDS.items()
    }
    function = tf.function(lambda batch: model.encode(batch, training=False), autograph=False)
    # It inlines calls of functions, in which nothing would be counted.
    graph = convert_variables_to_constants_v2(function.get_concrete_function(specs)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(
        tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    )
    counted = tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())
    return int(counted.total_float_ops)
