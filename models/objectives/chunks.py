"""Losses of rows against the global batch, a few rows at a time: memory of one chunk, the same numbers.

Input: a function from some rows to their losses. Output: the losses of all rows, with exact gradients. Used by the
objectives, whose logits [B, N] are the one tensor of the training step that grows with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

RowFunction = Callable[[Any, Sequence[Any], Sequence[Any]], Any]
"""(positions int32 [b], rows [b, ...] at these positions, shared tensors) -> losses float32 [b]."""


def by_row_chunks(function: RowFunction, rows: Sequence[Any], shared: Sequence[Any], chunk_size: int | None) -> Any:
    """`function` over all rows, `chunk_size` rows at a time.

    The backward pass computes each chunk again instead of keeping its logits: about a third more arithmetic in the loss,
    and memory linear in the batch. Source: Chen et al. 2016, arXiv 1604.06174 (recomputation).

    Args:
        function: losses of some rows; no gradient reaches tensors that it takes from elsewhere (masks, coordinates).
        rows: float32 tensors [B, ...], cut into chunks alike.
        shared: float32 tensors that every chunk sees whole.
        chunk_size: rows at a time; the last chunk may be shorter. None = all at once.

    Returns:
        float32 [B].
    """
    num_rows = tf.shape(rows[0])[0]
    if chunk_size is None:
        return function(tf.range(num_rows), rows, shared)
    num_chunks = (num_rows + chunk_size - 1) // chunk_size

    def positions(chunk: Any) -> Any:
        return tf.range(chunk * chunk_size, tf.minimum((chunk + 1) * chunk_size, num_rows))

    def take(tensors: Sequence[Any], chunk: Any) -> list[Any]:
        return [tensor[chunk * chunk_size : (chunk + 1) * chunk_size] for tensor in tensors]

    @tf.custom_gradient
    def losses_of(*inputs: Any) -> tuple[Any, Callable[..., list[Any]]]:
        own, others = inputs[: len(rows)], inputs[len(rows) :]

        def add_losses(chunk: Any, losses: Any) -> tuple[Any, Any]:
            return chunk + 1, losses.write(chunk, function(positions(chunk), take(own, chunk), others))

        _, losses = _loop(num_chunks, add_losses, _pieces(num_chunks))

        def backward(upstream: Any) -> list[Any]:
            def add_gradients(chunk: Any, own_pieces: Any, sums: Any) -> tuple[Any, Any, Any]:
                own_rows = take(own, chunk)
                with tf.GradientTape() as tape:
                    tape.watch([*own_rows, *others])
                    chunk_losses = function(positions(chunk), own_rows, others)
                gradients = tape.gradient(
                    chunk_losses,
                    [*own_rows, *others],
                    output_gradients=take([upstream], chunk)[0],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                own_pieces = [
                    pieces.write(chunk, gradient)
                    for pieces, gradient in zip(own_pieces, gradients[: len(own)], strict=True)
                ]
                sums = [total + gradient for total, gradient in zip(sums, gradients[len(own) :], strict=True)]
                return chunk + 1, own_pieces, sums

            zeros = [tf.zeros_like(tensor) for tensor in others]
            _, own_pieces, sums = _loop(num_chunks, add_gradients, [_pieces(num_chunks) for _ in own], zeros)
            own_gradients = [
                tf.reshape(pieces.concat(), tf.shape(tensor)) for pieces, tensor in zip(own_pieces, own, strict=True)
            ]
            return [*own_gradients, *sums]

        return tf.reshape(losses.concat(), [num_rows]), backward

    return losses_of(*rows, *shared)


def _loop(num_chunks: Any, body: Callable[..., Any], *state: Any) -> Any:
    # One after the other: chunks side by side would need their memory at the same time.
    return tf.while_loop(lambda chunk, *_: chunk < num_chunks, body, (tf.constant(0), *state), parallel_iterations=1)


def _pieces(num_chunks: Any) -> Any:
    # The last chunk may be shorter than the others.
    return tf.TensorArray(tf.float32, size=num_chunks, infer_shape=False)
