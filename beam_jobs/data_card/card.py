"""The data card: what a version holds, its origin, its licences and its quality.

Input: manifest and Contents. Output: `data_card.json` for programs, `data_card.md` and
two pictures for people, beside the manifest. A build writes the card with the version.
`remake` makes it again from the shards, with the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import tensorflow as tf

from beam_jobs.contracts import manifest as manifest_lib
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.locations import Location, content_of, locate, staged
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.records import SCORES
from beam_jobs.contracts.shards import why_damaged
from beam_jobs.data_card import few_labels, pictures
from beam_jobs.data_card.contents import (
    CELL_DEGREES,
    NUM_SCORE_BINS,
    OFFSET_BIN_PX,
    Contents,
    bin_edges,
)
from beam_jobs.errors import DataError

JSON_NAME, MARKDOWN_NAME = "data_card.json", "data_card.md"
MAP_NAME, HISTOGRAMS_NAME = "data_card_map.png", "data_card_histograms.png"


def write(version_path: str | os.PathLike[str], found: Manifest, contents: Contents) -> None:
    """Write the card into the directory of a version, finished or not.

    Each file becomes visible only when it is complete.
    """
    card = make_card(found, contents)
    files: dict[str, Callable[[Path], Any]] = {
        MAP_NAME: lambda path: pictures.draw_map(card, path),
        HISTOGRAMS_NAME: lambda path: pictures.draw_histograms(card, path),
        JSON_NAME: lambda path: path.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n"),
        MARKDOWN_NAME: lambda path: path.write_text("\n".join(_markdown(card)) + "\n"),
    }
    for name, make in files.items():
        with staged(locate(version_path) / name) as path:
            make(path)


def remake(
    version_path: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None
) -> Location:
    """Read all shards of a finished version, write its card again and return its path.

    Args:
        version_path: the version directory.
        on_progress: called with (shards read, all shards).

    Raises:
        FileNotFoundError: the version has no manifest.
        DataError: a shard is missing or incomplete.
    """
    version_path = locate(version_path)
    found = manifest_lib.read(version_path)
    contents = Contents()
    for number, name in enumerate(sorted(found.shards), start=1):
        path = version_path / name
        try:
            for serialized in tf.data.TFRecordDataset(
                str(path), compression_type="GZIP"
            ).as_numpy_iterator():
                contents.add(name.split("/")[0], serialized)
        except (tf.errors.DataLossError, tf.errors.NotFoundError, ValueError, IndexError) as error:
            why = why_damaged(str(path)) or " ".join(str(error).split())
            raise DataError(
                f"{path}: not a whole shard of patches: {why}; build the version again", "bad_shard"
            ) from error
        if on_progress is not None:
            on_progress(number, len(found.shards))
    write(version_path, found, contents)
    return version_path / MARKDOWN_NAME


def newest_day(version_path: str | os.PathLike[str]) -> date | None:
    """Return the day of the newest image of a version, UTC, according to its card.

    None: it has no card, because an early release built it, or no patch.

    Raises:
        DamagedFileError: the card is not what was written.
    """
    path = locate(version_path) / JSON_NAME
    if not path.exists():
        return None
    with content_of(path, "write it again with `terrapair card`"):
        periods = json.loads(path.read_text())["acquired_at"].values()
        # The time follows after ten characters.
        return max((date.fromisoformat(last[:10]) for _, last in periods), default=None)


def make_card(found: Manifest, contents: Contents) -> dict[str, Any]:
    """Return the card as JSON values."""
    bands = {}
    for sensor in SENSORS:
        first, width = bin_edges(sensor)
        for channel, entry in enumerate(found.statistics(sensor)):
            bands[entry.band] = {
                "sensor": sensor,
                "unit": entry.unit,
                "first_edge": first,
                "bin_width": width,
                "counts": contents.bands[sensor][channel].tolist()
                if sensor in contents.bands
                else [],
                "train_mean": entry.mean,
                "train_std": entry.std,
            }
    return {
        "kind": found.kind,
        "span": found.span,
        "version": found.version,
        "manifest_sha256": found.sha256,
        "config_sha256": found.config_sha256,
        "code_version": found.code_version,
        "patch": {"size_px": found.patch_size_px, "pixel_size_m": found.pixel_size_m},
        "s2_processing_level": found.s2_processing_level,
        "label_schema": found.label_schema,
        "sources": [
            {"sensor": e.sensor, "source": e.source, "license": e.license, "num_pairs": e.num_pairs}
            for e in found.sources
        ],
        "num_examples": dict(found.num_examples),
        "num_held_out": found.num_held_out,
        "num_absent": found.num_absent,
        "num_out_of_range": found.num_out_of_range,
        "num_rejected": found.num_rejected,
        "few_labels": few_labels.advice(found, contents),
        "num_pixels_per_class": found.num_pixels_per_class,
        "num_bytes": sum(entry.num_bytes for entry in found.shards.values()),
        "num_shards": len(found.shards),
        "split": found.config.get("split", {}),
        "acquired_at": {
            sensor: [_utc(at) for at in both]
            for sensor, both in sorted(contents.acquired_at.items())
        },
        "patches_per_month": dict(sorted(contents.months.items())),
        "time_gap_hours": {str(hour): count for hour, count in sorted(contents.gaps.items())},
        "offset_px": {
            "not_measured": contents.offsets[-1],
            **{
                f"{b * OFFSET_BIN_PX:g}": count
                for b, count in sorted(contents.offsets.items())
                if b >= 0
            },
        },
        "scores": _scores(contents),
        "bands": bands,
        "cell_degrees": CELL_DEGREES,
        # [south edge, west edge, patches]
        "cells": [
            [row * CELL_DEGREES - 90.0, column * CELL_DEGREES - 180.0, count]
            for (row, column), count in sorted(contents.cells.items())
        ],
    }


def _scores(contents: Contents) -> dict[str, dict[str, Any]]:
    """Return for each score the counts of its bins over 0-1, and of unknown values."""
    present = {name for name, _ in contents.scores}
    return {
        name: {
            "counts": [contents.scores[name, number] for number in range(NUM_SCORE_BINS)],
            "unknown": contents.scores[name, -1],
        }
        for name in SCORES
        if name in present
    }


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _markdown(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Data card: {card['kind']}, span {card['span']}, version {card['version']}"
    yield ""
    size_px, pixel_size_m = card["patch"]["size_px"], card["patch"]["pixel_size_m"]
    yield (
        f"Patches of {size_px} x {size_px} pixels of {pixel_size_m:g} m, "
        f"Sentinel-2 {card['s2_processing_level']}"
        + (f", labels in `{card['label_schema']}`." if card["label_schema"] else ", no labels.")
    )
    yield (
        f"{card['num_shards']} shards, {card['num_bytes'] / 1e6:.1f} MB. "
        f"Manifest `{card['manifest_sha256'][:12]}`."
    )
    if card["few_labels"]:
        yield from ("", f"**Few labels:** {card['few_labels']}.")
    rows = [(e["sensor"], e["source"], e["license"], e["num_pairs"]) for e in card["sources"]]
    yield from _table("Sources", ("sensor", "source", "licence", "pairs of scenes"), rows)
    yield from _table("Patches kept", ("split", "patches"), card["num_examples"].items())
    held_out = [
        (name, split, count)
        for name, per in card["num_held_out"].items()
        for split, count in per.items()
    ]
    yield from _table("Held out", ("hold-out", "split", "patches"), held_out)
    absent = [
        (sensor, split, count)
        for sensor, per in card["num_absent"].items()
        for split, count in per.items()
    ]
    yield from _table("Of one sensor alone", ("sensor without a scene", "split", "patches"), absent)
    outside = [
        (sensor, band, count)
        for sensor, per in card["num_out_of_range"].items()
        for band, count in per.items()
    ]
    yield from _table("Values out of range", ("sensor", "band", "pixels"), outside)
    yield from _table("Not used", ("reason", "scenes or patches"), card["num_rejected"].items())
    classes = [
        (split, k, n) for split, per in card["num_pixels_per_class"].items() for k, n in per.items()
    ]
    yield from _table("Labels", ("split", "class id", "pixels"), classes)
    dates = [(sensor, first, last) for sensor, (first, last) in card["acquired_at"].items()]
    yield from _table("Dates (UTC)", ("sensor", "first", "last"), dates)
    rows = [
        (name, e["unit"], f"{e['train_mean']:.4g}", f"{e['train_std']:.4g}")
        for name, e in card["bands"].items()
    ]
    yield from _table("Bands (train)", ("band", "unit", "mean", "standard deviation"), rows)
    yield from (
        "",
        "## Where",
        "",
        f"![map]({MAP_NAME})",
        "",
        "## Distributions",
        "",
        f"![histograms]({HISTOGRAMS_NAME})",
    )


def _table(title: str, header: tuple[str, ...], rows: Any) -> Iterator[str]:
    rows = list(rows)
    yield from ("", f"## {title}", "")
    if not rows:
        yield "None."
        return
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        # A "|" in the text of a catalog would begin a new column.
        yield f"| {' | '.join(str(value).replace('|', '/') for value in row)} |"
