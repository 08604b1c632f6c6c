"""Embeds a version: writes an index of the patches of some splits.

Input: a published encoder and a version directory. Output: an index folder. Batches go
straight from the shards to the index, so memory does not grow with the number of
patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from beam_jobs.contracts import manifest as manifest_lib
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.locations import Location, content_of, locate
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.published import read_card
from beam_jobs.contracts.shards import named_damage
from models.health.embeddings import (
    Arrays,
    Embedder,
    decode,
    load_dual_encoder,
    metadata_of,
    seen_by_both,
    why_unfit,
)
from models.neighbours.index import (
    Embeddings,
    IndexedPatch,
    IndexInfo,
    IndexSource,
    check_absent,
    write_index,
)
from models.reading import passes
from models.reading.shard_checks import check_split

ProgressFunction = Callable[[int, int], None]
"""Called with (records done, all records)."""

_TEXTS = ("patch_id", "block", "s1_scene_id", "s2_scene_id")
_NUMBERS = ("lon", "lat", "s1_acquired_at", "s2_acquired_at")
_VALID = tuple(f"{sensor}_valid_fraction" for sensor in SENSORS)
_DEGREE_DIGITS = 6
"""0.1 m on the ground; the record's float32 is no more precise."""


def embed_version(
    encoder_dir: str,
    version_dir: str,
    output: str,
    *,
    splits: Sequence[str] = ("eval",),
    batch_size: int = 64,
    on_progress: ProgressFunction = lambda done, total: None,
) -> IndexInfo:
    """Write the index of some splits of a version.

    Args:
        encoder_dir: SavedModel directory of a published encoder of both sensors.
        version_dir: finished version directory of pairs or labels.
        output: folder without an index.
        splits: names of splits. Splits without shards are skipped, unless none has
            shards.
        batch_size: patches per batch.
        on_progress: called after each batch.

    Raises:
        FileNotFoundError: there is no finished encoder of both sensors, or no finished
            version.
        FileExistsError: `output` holds an index.
        ValueError: the encoder takes other bands than the version holds; its stride
            does not divide the patch size; a shard is missing or cut short; or no patch
            has data in both sensors.
    """
    check_absent(output)
    model_path, version_path = locate(encoder_dir), locate(version_dir)
    manifest = manifest_lib.read(version_path)
    with content_of(f"{model_path}: model card", "publish the encoder again"):
        config_sha256 = str(read_card(str(model_path))["config_sha256"])
    embedder = Embedder(load_dual_encoder(str(model_path)))
    if reason := why_unfit(embedder.dual_encoder, manifest):
        raise ValueError(f"{encoder_dir}: the encoder does not fit {version_dir}: {reason}")
    shards = {
        split: sorted(name for name in manifest.shards if name.startswith(f"{split}/"))
        for split in splits
    }
    held = [split for split in splits if shards[split]] or list(splits)
    for split in held:
        check_split(
            split, [f"{version_path}/{name}" for name in shards[split]], manifest, sensors=SENSORS
        )
    source = IndexSource(
        encoder=_absolute(model_path),
        encoder_config_sha256=config_sha256,
        pairs=_absolute(version_path),
        manifest_sha256=manifest.sha256,
        splits=tuple(held),
        num_records=sum(manifest.num_examples[split] for split in held),
        patch_width_km=manifest.patch_size_px * manifest.pixel_size_m / 1000.0,
    )
    names = [name for split in held for name in shards[split]]
    return write_index(
        output, source, _embed(embedder, manifest, source, names, batch_size, on_progress)
    )


def _absolute(location: Location) -> str:
    """Return the absolute path: an index is often searched from another folder."""
    return str(location.resolve() if isinstance(location, Path) else location)


def _embed(
    embedder: Embedder,
    manifest: Manifest,
    source: IndexSource,
    names: Sequence[str],
    batch_size: int,
    on_progress: ProgressFunction,
) -> Iterator[tuple[Embeddings, list[IndexedPatch]]]:
    num_done = 0
    for batch in _read(source.pairs, manifest, names, batch_size):
        arrays = metadata_of(batch) | embedder.encode(batch)
        num_done += len(arrays["patch_id"])
        arrays = seen_by_both(arrays)
        yield {sensor: arrays[f"{sensor}_embedding"] for sensor in SENSORS}, _patches(arrays, names)
        on_progress(num_done, source.num_records)


def _read(
    version_dir: str, manifest: Manifest, names: Sequence[str], batch_size: int
) -> Iterator[dict[str, tf.Tensor]]:
    """Yield batches of all records in order.

    `shard` is the position in `names`, `record` the position in the shard.
    """

    def open_shard(shard: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path, "GZIP").enumerate()
        return records.map(lambda record, serialized: (shard, record, serialized))

    def parse(shard: tf.Tensor, record: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = decode(serialized, manifest, (*_TEXTS, *_NUMBERS, *_VALID))
        return {**pixels, "shard": shard, "record": record}

    paths = tf.data.Dataset.from_tensor_slices(
        [f"{version_dir}/{name}" for name in names]
    ).enumerate()
    batches = passes.one_pass(paths.flat_map(open_shard).batch(batch_size), parse)
    try:
        with named_damage([f"{version_dir}/{name}" for name in names], manifest):
            yield from batches
    except tf.errors.OpError as error:
        # `check_split` found the first record of each shard complete; a later one is
        # not.
        raise ValueError(
            f"{version_dir}: must hold complete records of patches: {error.message.splitlines()[0]}"
        ) from error


def _patches(arrays: Arrays, names: Sequence[str]) -> list[IndexedPatch]:
    columns = {name: array.tolist() for name, array in arrays.items() if array.ndim == 1}
    columns |= {name: [value.decode() for value in columns[name]] for name in _TEXTS}
    columns |= {
        name: [round(value, _DEGREE_DIGITS) for value in columns[name]] for name in ("lon", "lat")
    }
    shards = [names[number] for number in columns["shard"]]
    return [
        IndexedPatch(
            **{name: columns[name][row] for name in (*_TEXTS, *_NUMBERS, "record")},
            shard=shard,
            split=shard.split("/")[0],
        )
        for row, shard in enumerate(shards)
    ]
