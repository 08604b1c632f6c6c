"""Cached gradients: an exact update from a batch too large for the memory.

Input: a `TwoStageLoss`. Output: a step like that of `steps.make_step`.
Source: Gao et al. 2021 (GradCache), arXiv 2101.06983, section 3: (1) encode all
micro-batches without keeping activations; (2) the loss of the whole global batch, and
its gradient with respect to the encoders' outputs; (3) encode each micro-batch again,
and send its part of that gradient through it.

What is exact: the update equals that of the undivided batch when a row's outputs depend
on that row alone (group normalization, or batch normalization that is frozen). Batch
normalization takes its statistics per micro-batch (of all replicas): the gradient is
then exact for the loss with these statistics, which is another loss than the undivided
batch's. The moving statistics advance once per micro-batch. Both passes see the same
state (moving statistics, seeds of dropout), and augmentation happened in the input
pipeline, so the second pass repeats the first to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from models.training.steps import Batch, Scalars, TwoStageLoss, sum_scalars


class CachedStep:
    """The update with the gradient of a `TwoStageLoss` in `num_micro_batches` parts.

    The optimizer must be built. The update is several small graphs, called one after
    the other, and not a loop within one graph. TensorFlow does not allow collective
    operations (synchronized batch normalization) in loops. An unrolled loop could run
    parts at the same time and need the memory of all.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        compute_loss: TwoStageLoss,
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        self._strategy, self._loss, self._optimizer = strategy, compute_loss, optimizer
        self._variables, self._state = model.trainable_variables, model.non_trainable_variables
        self._parts = [tf.constant(index) for index in range(compute_loss.num_micro_batches)]
        self._run_encode = self._compiled(self._encode)
        self._run_loss_stage = self._compiled(self._loss_stage)
        self._run_backward = self._compiled(self._backward)
        self._run_apply = self._compiled(self._apply)
        self._run_read_state = self._compiled(self._read_state)
        self._run_write_state = self._compiled(self._write_state)

    def __call__(self, batch: Any) -> Scalars:
        """Update the weights from a distributed batch; see `steps.StepFunction`."""
        state = self._run_read_state() if self._state else None
        outputs = [self._run_encode(batch, part) for part in self._parts]
        if self._state:
            # The second pass must start from the same state as the first one.
            self._run_write_state(state)
        scalars, output_gradients, sums = self._run_loss_stage(outputs)
        for part in self._parts:
            sums = self._run_backward(batch, part, output_gradients, sums)
        self._run_apply(sums)
        return sum_scalars(self._strategy, scalars)

    def _encode(self, batch: Batch, part: tf.Tensor) -> Batch:
        return self._loss.encode(_rows_of_part(batch, part, len(self._parts)))

    def _loss_stage(self, outputs: list[Batch]) -> tuple[Scalars, Batch, list[tf.Tensor]]:
        """Return the scalars and the gradients by encoder outputs and by variables."""
        whole = {
            name: tf.concat([output[name] for output in outputs], axis=0) for name in outputs[0]
        }
        with tf.GradientTape() as tape:
            tape.watch(list(whole.values()))
            scalars = self._loss.loss(whole)
            scaled_loss = self._optimizer.scale_loss(scalars["loss"])
        sources = [*whole.values(), *_values(self._variables)]
        gradients = tape.gradient(
            scaled_loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        # Only here do the objective's own variables (temperature) get a gradient.
        return scalars, dict(zip(whole, gradients, strict=False)), gradients[len(whole) :]

    def _backward(
        self, batch: Batch, part: tf.Tensor, output_gradients: Batch, sums: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Return `sums` plus one micro-batch's part of the variables' gradients."""
        with tf.GradientTape() as tape:
            outputs = self._encode(batch, part)
        upstream = _rows_of_part(output_gradients, part, len(self._parts))
        gradients = tape.gradient(
            list(outputs.values()),
            _values(self._variables),
            output_gradients=[upstream[name] for name in outputs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        # Keras sums them over replicas. Tensors from outside of the graph have no
        # device yet; with several workers they need one, so copy them.
        self._optimizer.apply([tf.identity(gradient) for gradient in gradients], self._variables)

    def _read_state(self) -> list[tf.Tensor]:
        return [tf.identity(value) for value in _values(self._state)]

    def _write_state(self, values: list[tf.Tensor]) -> None:
        for variable, value in zip(self._state, values, strict=True):
            variable.assign(value)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` of each replica's tensors, compiled to a graph."""

        @tf.function(jit_compile=False, autograph=False)
        def run(*args: Any) -> Any:
            return self._strategy.run(function, args=args)

        return run


def _values(variables: list[Any]) -> list[Any]:
    """Return the TensorFlow variables behind Keras' own.

    A tape cannot make zeros from a Keras dtype.
    """
    return [variable.value for variable in variables]


def _rows_of_part(tensors: Batch, part: tf.Tensor, num_parts: int) -> Batch:
    """Return the rows of the `part`-th of `num_parts` equal parts."""
    size = {name: tf.shape(tensor)[0] // num_parts for name, tensor in tensors.items()}
    return {
        name: tensor[part * size[name] : (part + 1) * size[name]]
        for name, tensor in tensors.items()
    }
