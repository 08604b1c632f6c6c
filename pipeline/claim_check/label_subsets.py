"""Nested subsets of the labelled train patches, spread evenly over all blocks.

Shards of a version -> one shard for each subset. A larger subset holds all patches of a
smaller one.
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
from beam_jobs.contracts.records import serialize
from beam_jobs.errors import DataError

AnyArray = npt.NDArray[np.generic]


def nested_order(block: AnyArray, seed: int) -> npt.NDArray[np.int64]:
    """Return the order [M] in which subsets take the patches.

    The first n patches hold about the same share of every block, for any n.

    Args:
        block: spatial block of each patch [M].
        seed: seed of the order; another seed is another draw of the labels.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(block))
    _, index, sizes = np.unique(block[shuffled], return_inverse=True, return_counts=True)
    by_block = np.argsort(index, kind="stable")
    rank = np.empty(len(block))
    rank[by_block] = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else []
    # Systematic sampling in each block: patch r of a block of n is placed at random
    # between r/n and (r + 1)/n.
    place = (rank + rng.random(len(block))) / sizes[index]
    return shuffled[np.argsort(place, kind="stable")]


def num_labelled(fraction: float, num_patches: int, task: str) -> int:
    """Return how many patches a fraction is.

    Raises:
        DataError: the fraction is less than one patch.
    """
    num = int(fraction * num_patches + 1e-9)
    if num < 1:
        raise DataError(
            f"claim.fractions: {fraction:g} of the {num_patches} labelled train patches of "
            f"{task!r} is less than one patch: use at least {1 / num_patches:.2g}",
            "no_patch",
        )
    return num


def write_subset(
    version: Path, num_patches: int, seed: int, path: Path, is_permuted: bool = False
) -> None:
    """Copy the records of a subset into one shard at `path`, unless it exists.

    Args:
        version: version directory of labelled patches.
        num_patches: size of the subset.
        seed: seed of the draw; see `nested_order`.
        path: the shard; its folder is created.
        is_permuted: each patch gets the label of another patch of the subset, so
            nothing can be learned from the labels.
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
    """Return the block of each record of a shard, in order."""
    spec = {"block": tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset(file, "GZIP").batch(256)
    blocks = [tf.io.parse_example(batch, spec)["block"].numpy() for batch in records]
    return np.concatenate(blocks) if blocks else np.empty(0, object)


def permute_labels(records: Sequence[bytes], seed: int) -> list[bytes]:
    """Return the records with each label moved to another patch.

    Args:
        records: serialized tf.Examples of patches of one size.
        seed: seed of the order in which the labels move.
    """
    examples = [tf.train.Example.FromString(record) for record in records]
    order = np.random.default_rng(seed).permutation(len(examples))
    labels = [example.features.feature["label"].bytes_list.value[0] for example in examples]
    for place, number in enumerate(order):
        examples[number].features.feature["label"].bytes_list.value[0] = labels[order[place - 1]]
    return [serialize(example) for example in examples]


def _write(records: Iterable[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same subset at a time.
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with tf.io.TFRecordWriter(str(partial), "GZIP") as writer:
        for record in records:
            writer.write(record)
    os.replace(partial, path)
