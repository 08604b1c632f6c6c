"""Communication between replicas: gathered rows, this replica's position, sums.

Input: tensors of one replica, inside `strategy.run` or outside of any strategy. Output:
tensors of the global batch.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def gather(tensor: Any) -> Any:
    """Return the rows [B, ...] of all replicas, in their order, as [N, ...].

    Gradients flow back to every replica. Without gathering, the negatives would be only
    those of the replica's own batch, and more devices would lower the loss.
    """
    context = _context()
    return tensor if context is None else context.all_gather(tensor, axis=0)


def first_row(num_rows: Any) -> Any:
    """Return where this replica's rows begin among the gathered ones, int32 scalar."""
    context = _context()
    return (
        tf.constant(0)
        if context is None
        else tf.cast(context.replica_id_in_sync_group, tf.int32) * num_rows
    )


def num_replicas() -> int:
    """Return how many replicas share the global batch."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def sum_over_replicas(value: Any) -> Any:
    """Return the sum of a tensor over replicas."""
    context = _context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _context() -> Any:
    """Return the replica context when there is more than one replica, else None."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context
