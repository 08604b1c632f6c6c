"""Paths of shards, manifests and versions below the folder that holds the spans.

A shard is `span-N/version-M/<split>/part-?????-of-?????.tfrecord.gz`, and the manifest
of its version is `span-N/version-M/manifest.json`. A directory without a manifest is
not a version: a job writes into `building_dir`, and the manifest becomes visible last.
The root may be a path or a URI.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from beam_jobs.contracts.locations import Location, glob, parse

Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")
MANIFEST_NAME = "manifest.json"
SCENES_NAME = "scenes.txt"
"""Name of the file with the ids of a version's scenes, one per line, sorted."""
REJECTED_DIR = "rejected"
SHARD_GLOB = "part-*-of-*.tfrecord.gz"
_VERSION_DIR = re.compile(r"version-(\d+)$")
_SPAN_DIR = re.compile(r"span-(\d+)$")


def version_dir(root: str | os.PathLike[str], span: int, version: int) -> Location:
    """Return the directory of one version."""
    return parse(root) / f"span-{span}" / f"version-{version}"


def building_dir(root: str | os.PathLike[str], span: int, version: int) -> Location:
    """Return the directory in which a version is built before it becomes visible.

    Its name begins with a dot, so the pattern `version-*` does not match it.
    """
    return parse(root) / f"span-{span}" / f".building-version-{version}"


def lock_path(root: str | os.PathLike[str], span: int, version: int) -> Location:
    """Return the file that a job locks while it builds a version."""
    building = building_dir(root, span, version)
    return building.with_name(f"{building.name}.lock")


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """Return the path of a shard relative to its version directory.

    Raises:
        ValueError: the split is unknown or the shard number is out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if not 0 <= shard < num_shards <= 99_999:
        raise ValueError(
            "shard must be in 0..num_shards-1 and num_shards at most 99999, "
            f"got {shard} of {num_shards}"
        )
    return f"{split}/part-{shard:05d}-of-{num_shards:05d}.tfrecord.gz"


def split_pattern(split: str) -> str:
    """Return the pattern of a split's shards for TFX's ExampleGen.

    ExampleGen replaces {SPAN} and {VERSION} by the newest ones.
    """
    return f"span-{{SPAN}}/version-{{VERSION}}/{split}/*"


def list_versions(root: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Return (span, version) of each version with a manifest, in ascending order."""
    found = []
    for manifest in glob(root, f"span-*/version-*/{MANIFEST_NAME}"):
        version = _VERSION_DIR.search(str(manifest.parent))
        span = _SPAN_DIR.search(str(manifest.parent.parent))
        if span and version:
            found.append((int(span.group(1)), int(version.group(1))))
    return sorted(found)


def shard_paths(version_path: str | os.PathLike[str], split: str) -> list[Location]:
    """Return the shards of one split of a version directory, sorted by name."""
    return glob(parse(version_path) / split, SHARD_GLOB)
