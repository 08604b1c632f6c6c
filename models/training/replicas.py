"""What replicas tell each other: gathered rows, this replica's place among them, sums.

Input: tensors of one replica, inside `strategy.run` or outside of any strategy. Output:
those of the global batch. Used by `losses.py` and by every objective.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def gather(tensor: Any) -> Any:
    """Rows [B, ...] of all replicas in the order of the replicas, [N, ...]; gradients flow back to every replica.

    Without gathering, negatives shrink to the per-replica batch and the loss looks
    better the more devices there are.
    """
    context = _context()
    return tensor if context is None else context.all_gather(tensor, axis=0)


def first_row(num_rows: Any) -> Any:
    """Where this replica's `num_rows` rows begin among the gathered ones, int32 scalar."""
    context = _context()
    return (
        tf.constant(0)
        if context is None
        else tf.cast(context.replica_id_in_sync_group, tf.int32) * num_rows
    )


def num_replicas() -> int:
    """How many replicas share the global batch."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def sum_over_replicas(value: Any) -> Any:
    """The sum of a tensor over replicas."""
    context = _context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _context() -> Any:
    """The replica context when there is more than one replica, else None."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context
