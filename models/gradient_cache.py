"""Cached gradients: one update from a batch whose activations do not fit into memory, exact.

Input: a `TwoStageLoss`. Output: a step like that of `steps.make_step`. Made by `training.py`.
Source: Gao et al. 2021 (GradCache), arXiv 2101.06983, section 3: (1) encode all micro-batches without keeping activations;
(2) the loss of the whole global batch, and its gradient with respect to the encoders' outputs; (3) encode each micro-batch
again, and send its part of that gradient through it.

What is exact: the update equals that of the undivided batch when a row's outputs depend on that row alone (group
normalization, or batch normalization that is frozen). Batch normalization takes its statistics per micro-batch (of all
replicas): the gradient is then exact for the loss with these statistics, which is another loss than the undivided batch's.
The moving statistics advance once per micro-batch. Both passes see the same state (moving statistics, seeds of dropout), and
augmentation happened in the input pipeline, so the second pass repeats the first to the bit.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from models.steps import Batch, Scalars, StepFunction, TwoStageLoss, sum_scalars


def make_cached_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: TwoStageLoss,
    optimizer: keras.optimizers.Optimizer,
) -> StepFunction:
    """The update with the gradient of `compute_loss` in `num_micro_batches` parts; `optimizer` must be built.

    Several small graphs, called one after the other, and not a loop within one: collectives (synchronized batch
    normalization) are not allowed in TensorFlow's loops, and an unrolled loop would let parts run side by side in memory.
    """
    variables, has_state = model.trainable_variables, bool(model.non_trainable_variables)
    num_parts = compute_loss.num_micro_batches
    parts = [tf.constant(index) for index in range(num_parts)]

    def encode(batch: Batch, part: tf.Tensor) -> Batch:
        return compute_loss.encode(_rows_of_part(batch, part, num_parts))

    def loss_stage(outputs: list[Batch]) -> tuple[Scalars, Batch, list[tf.Tensor]]:
        whole = {name: tf.concat([output[name] for output in outputs], axis=0) for name in outputs[0]}
        with tf.GradientTape() as tape:
            tape.watch(list(whole.values()))
            scalars = compute_loss.loss(whole)
        sources = [*whole.values(), *_values(variables)]
        gradients = tape.gradient(scalars["loss"], sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        # The variables of the objective itself (temperature) are reached here only.
        return scalars, dict(zip(whole, gradients, strict=False)), gradients[len(whole) :]

    def backward(batch: Batch, part: tf.Tensor, output_gradients: Batch, sums: list[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = encode(batch, part)
        upstream = _rows_of_part(output_gradients, part, num_parts)
        gradients = tape.gradient(
            list(outputs.values()),
            _values(variables),
            output_gradients=[upstream[name] for name in outputs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    def read_state() -> list[tf.Tensor]:
        return [tf.identity(value) for value in _values(model.non_trainable_variables)]

    def write_state(values: list[tf.Tensor]) -> None:
        for variable, value in zip(model.non_trainable_variables, values, strict=True):
            variable.assign(value)

    def apply(gradients: list[tf.Tensor]) -> None:
        # Keras sums them over replicas.
        optimizer.apply(gradients, variables)

    run = {function: _compiled(strategy, function) for function in (encode, backward, read_state, write_state, apply)}
    run_loss_stage = _compiled(strategy, loss_stage)

    def step(batch: Any) -> Scalars:
        state = run[read_state]() if has_state else None
        outputs = [run[encode](batch, part) for part in parts]
        if has_state:
            # The second pass must start from where the first one did.
            run[write_state](state)
        scalars, output_gradients, sums = run_loss_stage(outputs)
        for part in parts:
            sums = run[backward](batch, part, output_gradients, sums)
        run[apply](sums)
        return sum_scalars(strategy, scalars)

    return step


def _values(variables: list[Any]) -> list[Any]:
    """TensorFlow's variables behind Keras' ones: a tape cannot make zeros from a Keras dtype."""
    return [variable.value for variable in variables]


def _compiled(strategy: tf.distribute.Strategy, function: Any) -> Any:
    """`function` of each replica's tensors as a graph."""

    @tf.function(jit_compile=False, autograph=False)
    def run(*args: Any) -> Any:
        return strategy.run(function, args=args)

    return run


def _rows_of_part(tensors: Batch, part: tf.Tensor, num_parts: int) -> Batch:
    """Rows of the `part`-th of `num_parts` equal parts."""
    size = {name: tf.shape(tensor)[0] // num_parts for name, tensor in tensors.items()}
    return {name: tensor[part * size[name] : (part + 1) * size[name]] for name, tensor in tensors.items()}
