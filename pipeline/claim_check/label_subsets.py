"""Nested subsets of the labelled train patches: each fraction holds what the smaller ones hold, spread over all blocks alike.

Shards of a version -> one shard per subset. Called by `trials.py`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import layout
from beam_jobs.errors import DataError

AnyArray = npt.NDArray[np.generic]


def nested_order(block: AnyArray, seed: int) -> npt.NDArray[np.int64]:
    """The patches [M] in the order in which subsets take them: of every block about the same share, at any length.

    Args:
        block: spatial block of each patch [M].
        seed: of the order; another draw of the labels.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(block))
    _, index, sizes = np.unique(block[shuffled], return_inverse=True, return_counts=True)
    by_block = np.argsort(index, kind="stable")
    rank = np.empty(len(block))
    rank[by_block] = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else []
    # Patch r of a block of n stands somewhere between r/n and (r + 1)/n of the way:
    # systematic sampling in each block.
    place = (rank + rng.random(len(block))) / sizes[index]
    return shuffled[np.argsort(place, kind="stable")]


def num_labelled(fraction: float, num_patches: int, task: str) -> int:
    """How many patches a fraction is.

    Raises:
        DataError: it is none.
    """
    num = int(fraction * num_patches + 1e-9)
    if num < 1:
        raise DataError(
            f"claim.fractions: {fraction:g} of the {num_patches} labelled train patches of {task!r} is no patch: take at "
            f"least {1 / num_patches:.2g}",
            "no_patch",
        )
    return num


def write_subset(
    version: Path, num_patches: int, seed: int, path: Path, is_permuted: bool = False
) -> None:
    """Copies the records of a subset into one shard at `path`, unless it is there already.

    Args:
        version: version directory of labelled patches.
        num_patches: of the subset.
        seed: of the draw; see `nested_order`.
        path: of the shard; its folder is made.
        is_permuted: each patch gets the label of another one of the subset: nothing can
            be learned from them.
    """
    if path.exists():
        return
    files = [str(shard) for shard in layout.shard_paths(version, "train")]
    block = np.concatenate([_blocks(file) for file in files])
    chosen = np.zeros(len(block), bool)
    chosen[nested_order(block, seed)[:num_patches]] = True
    records = itertools.compress(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator(), chosen)
    _write(permute_labels(list(records), seed) if is_permuted else records, path)


def _blocks(file: str) -> AnyArray:
    """Block of each record of a shard, in order."""
    spec = {"block": tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset(file, "GZIP").batch(256)
    blocks = [tf.io.parse_example(batch, spec)["block"].numpy() for batch in records]
    return np.concatenate(blocks) if blocks else np.empty(0, object)


def permute_labels(records: Sequence[bytes], seed: int) -> list[bytes]:
    """The records with labels moved on by at least one place, in an order drawn with `seed`; all patches have one size."""
    examples = [tf.train.Example.FromString(record) for record in records]
    order = np.random.default_rng(seed).permutation(len(examples))
    labels = [example.features.feature["label"].bytes_list.value[0] for example in examples]
    for place, number in enumerate(order):
        examples[number].features.feature["label"].bytes_list.value[0] = labels[order[place - 1]]
    return [example.SerializeToString(deterministic=True) for example in examples]


def _write(records: Iterable[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with tf.io.TFRecordWriter(str(partial), "GZIP") as writer:
        for record in records:
            writer.write(record)
    os.replace(partial, path)
