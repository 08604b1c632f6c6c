"""Losses of rows against the global batch, a few rows at a time.

Input: a function from some rows to their losses. Output: the losses of all rows, with
exact gradients. Only one chunk is in memory at a time. Logits [B, N] are the one tensor
of a training step that grows with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

RowFunction = Callable[[Any, Sequence[Any], Sequence[Any]], Any]
"""Maps positions and rows to losses float32 [b].

Its arguments are positions int32 [b], rows [b, ...] at these positions, and shared
tensors.
"""


def by_row_chunks(
    function: RowFunction, rows: Sequence[Any], shared: Sequence[Any], chunk_size: int | None
) -> Any:
    """Apply `function` to all rows, `chunk_size` rows at a time.

    The backward pass computes each chunk again instead of keeping its logits. That is
    about a third more arithmetic in the loss, and memory linear in the batch. Source:
    Chen et al. 2016, arXiv 1604.06174 (recomputation).

    Args:
        function: losses of some rows. No gradient reaches tensors that it takes from
            elsewhere (masks, coordinates).
        rows: float32 tensors [B, ...], all cut into the same chunks.
        shared: float32 tensors that every chunk gets whole.
        chunk_size: rows per chunk; the last chunk may be shorter. None = all at once.

    Returns:
        float32 [B].
    """
    num_rows = tf.shape(rows[0])[0]
    if chunk_size is None:
        return function(tf.range(num_rows), rows, shared)
    chunked = _Chunks(function, num_rows, chunk_size)

    @tf.custom_gradient
    def losses_of(*inputs: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
        own, others = inputs[: len(rows)], inputs[len(rows) :]
        return chunked.losses(own, others), lambda upstream: chunked.gradients(
            own, others, upstream
        )

    return losses_of(*rows, *shared)


class _Chunks:
    """The rows of one call of `by_row_chunks`, cut into chunks."""

    def __init__(self, function: RowFunction, num_rows: Any, chunk_size: int) -> None:
        self._function, self._num_rows, self._size = function, num_rows, chunk_size
        self._num_chunks = (num_rows + chunk_size - 1) // chunk_size

    def losses(self, rows: Sequence[Any], shared: Sequence[Any]) -> Any:
        """Return the losses of all rows, float32 [B]."""

        def add_chunk(chunk: Any, losses: Any) -> tuple[Any, Any]:
            return chunk + 1, losses.write(
                chunk, self._function(self._positions(chunk), self._take(rows, chunk), shared)
            )

        _, losses = self._loop(add_chunk, self._pieces())
        return tf.reshape(losses.concat(), [self._num_rows])

    def gradients(self, rows: Sequence[Any], shared: Sequence[Any], upstream: Any) -> list[Any]:
        """Return the gradients of all rows, then of all shared tensors.

        `upstream` [B] is the gradient of the losses.
        """

        def add_chunk(chunk: Any, pieces: Any, sums: Any) -> tuple[Any, Any, Any]:
            own = self._take(rows, chunk)
            with tf.GradientTape() as tape:
                tape.watch([*own, *shared])
                losses = self._function(self._positions(chunk), own, shared)
            gradients = tape.gradient(
                losses,
                [*own, *shared],
                output_gradients=self._take([upstream], chunk)[0],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            of_rows, of_shared = gradients[: len(own)], gradients[len(own) :]
            pieces = [
                piece.write(chunk, gradient)
                for piece, gradient in zip(pieces, of_rows, strict=True)
            ]
            return (
                chunk + 1,
                pieces,
                [total + gradient for total, gradient in zip(sums, of_shared, strict=True)],
            )

        zeros = [tf.zeros_like(tensor) for tensor in shared]
        _, pieces, sums = self._loop(add_chunk, [self._pieces() for _ in rows], zeros)
        of_rows = [
            tf.reshape(piece.concat(), tf.shape(row))
            for piece, row in zip(pieces, rows, strict=True)
        ]
        return [*of_rows, *sums]

    def _positions(self, chunk: Any) -> Any:
        return tf.range(chunk * self._size, tf.minimum((chunk + 1) * self._size, self._num_rows))

    def _take(self, tensors: Sequence[Any], chunk: Any) -> list[Any]:
        return [tensor[chunk * self._size : (chunk + 1) * self._size] for tensor in tensors]

    def _loop(self, body: Callable[..., Any], *state: Any) -> Any:
        # Run one chunk after the other: parallel chunks would need their memory at the
        # same time.
        return tf.while_loop(
            lambda chunk, *_: chunk < self._num_chunks,
            body,
            (tf.constant(0), *state),
            parallel_iterations=1,
        )

    def _pieces(self) -> Any:
        # The last chunk may be shorter than the others.
        return tf.TensorArray(tf.float32, size=self._num_chunks, infer_shape=False)
