"""Nested subsets of the labelled train patches.

Shards of a version -> one shard for each subset. A larger subset holds all patches of a
smaller one. Patches are spread evenly over all blocks, or taken event by event or scene
by scene: people who label 1 % label a few scenes, not one patch of every scene.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import layout, manifest, shards
from beam_jobs.contracts.records import serialize
from beam_jobs.errors import DataError
from models.scores.patch_scores import Texts
from models.scores.units import Origins, units_of
from pipeline.claim_check.config import Draw

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


def nested_units(unit: AnyArray, seed: int) -> npt.NDArray[np.int64]:
    """Return the order [M] in which subsets take whole units, such as events.

    Only the last unit of a subset may be there in part.

    Args:
        unit: unit of each patch [M].
        seed: seed of the order.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(unit, return_inverse=True)
    place = rng.permutation(len(names))[index] + rng.random(len(unit))
    return np.argsort(place, kind="stable")


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
    version: Path,
    num_patches: int,
    seed: int,
    path: Path,
    *,
    draw: Draw = "patch",
    is_permuted: bool = False,
) -> None:
    """Copy the records of a subset into one shard at `path`, unless it exists.

    Args:
        version: version directory of labelled patches.
        num_patches: size of the subset.
        seed: seed of the draw.
        path: the shard; its folder is created.
        draw: what is drawn: see `ClaimConfig`.
        is_permuted: each patch gets the label of another patch of the subset, so
            nothing can be learned from the labels.

    Raises:
        DataError: events are to be drawn, and a patch has none; or a shard is damaged.
    """
    if path.exists():
        return
    files = [str(shard) for shard in layout.shard_paths(version, "train")]
    with shards.named_damage(files, manifest.read(version)):
        order = _order(_origins(files), seed, draw, version)
        chosen = np.zeros(len(order), bool)
        chosen[order[:num_patches]] = True
        everything = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
        records = itertools.compress(everything, chosen)
        _write(permute_labels(list(records), seed) if is_permuted else records, path)


def check_draw(version: Path, draw: Draw) -> None:
    """Refuse a draw by event or scene of train patches that are not of several.

    Raises:
        DataError: a patch has no event, all patches are of one, or a shard is damaged.
    """
    if draw == "patch":
        return
    num_units = len(np.unique(_drawn(read_origins(version, "train"), draw, version)))
    if num_units < 2:
        raise DataError(
            f"{version}: claim.draw is {draw}, but all train patches are of one {draw}, so every "
            "seed would learn from it: add labelled scenes, or draw by patch",
            "bad_item",
        )


def read_origins(version: Path, split: layout.Split) -> Origins:
    """Return the origins of the patches of a split, in the order of the shards.

    Raises:
        DamagedShardError: a shard is damaged.
    """
    files = [str(shard) for shard in layout.shard_paths(version, split)]
    with shards.named_damage(files, manifest.read(version)):
        return _origins(files)


def _origins(files: Sequence[str]) -> Origins:
    names = [field.name for field in dataclasses.fields(Origins)]
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    found: dict[str, list[str]] = {name: [] for name in names}
    for batch in tf.data.TFRecordDataset(list(files), "GZIP").batch(256):
        for name, values in tf.io.parse_example(batch, spec).items():
            found[name] += [value.decode() for value in values.numpy()]
    return Origins(**{name: np.array(values, np.str_) for name, values in found.items()})


def _order(origins: Origins, seed: int, draw: Draw, version: Path) -> npt.NDArray[np.int64]:
    if draw == "patch":
        return nested_order(origins.block, seed)
    return nested_units(_drawn(origins, draw, version), seed)


def _drawn(origins: Origins, draw: Literal["event", "scene"], version: Path) -> Texts:
    """Return the event or scene of each patch."""
    num_without = int((origins.event == "").sum())
    if draw == "event" and num_without:
        raise DataError(
            f"{version}: claim.draw is event, but {num_without} of {len(origins.event)} train "
            "patches have none: set terrapair:event in their items, or draw by scene",
            "bad_item",
        )
    return units_of(origins, draw).of_patch


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
