"""SavedModels: functions of Keras models, written with their weights and signatures.

Input: Keras models and the functions behind the signatures. Output: a SavedModel for
TensorFlow Serving. `keras.export.ExportArchive` writes each weight twice, once as
Keras' variable and once as TensorFlow's; here each is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from models.published.precision import is_stored_in_half


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One signature.

    Attributes:
        function: tensors in the order of `specs` -> tensors by output.
        specs: named inputs.
    """

    function: Callable[..., Mapping[str, Any]]
    specs: Sequence[tf.TensorSpec]


def write(
    models: Sequence[keras.Model],
    endpoints: Mapping[str, Endpoint],
    output_dir: str,
    *,
    in_half: bool = False,
) -> None:
    """Write a SavedModel.

    Args:
        models: that the endpoints call.
        endpoints: by the name of their signature.
        output_dir: folder of the SavedModel.
        in_half: store kernels in bfloat16. The graph casts them to float32, so the
            values must be ones that bfloat16 has.
    """
    module = tf.Module()
    module.weights, halves = [], []
    for variable in (one for model in models for one in model.variables):
        stored = variable.value
        if in_half and is_stored_in_half(variable):
            stored = tf.Variable(tf.cast(stored, tf.bfloat16), trainable=False)
            halves.append((variable, stored))
        module.weights.append(stored)
    module.functions = {
        name: tf.function(
            _reading(endpoint.function, halves), input_signature=endpoint.specs, autograph=False
        )
        for name, endpoint in endpoints.items()
    }
    tf.saved_model.save(module, output_dir, signatures=dict(module.functions))


def _reading(
    function: Callable[..., Mapping[str, Any]], halves: Sequence[tuple[Any, tf.Variable]]
) -> Callable[..., Mapping[str, Any]]:
    """Return a function whose Keras variables have the values of `halves`."""

    def read(*inputs: Any) -> Mapping[str, Any]:
        values = [(variable, tf.cast(half, variable.dtype)) for variable, half in halves]
        with keras.StatelessScope(state_mapping=values):
            return function(*inputs)

    return read if halves else function
