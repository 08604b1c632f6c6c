"""Path grammar of shard directories: span-N/version-M/<split>/part-?????-of-?????.tfrecord.gz beside manifest.json.

A version is visible only once its manifest is there: jobs write into `building_dir` and
rename it last, or on an object store move the manifest last. Roots may be paths or
URIs.
"""

from __future__ import annotations

import os
import re

from beam_jobs.contracts.locations import Location, locate, parse

SPLITS = ("train", "eval", "test")
MANIFEST_NAME = "manifest.json"
REJECTED_DIR = "rejected"
SHARD_GLOB = "part-*-of-*.tfrecord.gz"
_VERSION_DIR = re.compile(r"version-(\d+)$")
_SPAN_DIR = re.compile(r"span-(\d+)$")


def version_dir(root: str | os.PathLike[str], span: int, version: int) -> Location:
    """Directory of one version."""
    return parse(root) / f"span-{span}" / f"version-{version}"


def building_dir(root: str | os.PathLike[str], span: int, version: int) -> Location:
    """Where a version is built before it is renamed; the dot keeps it out of every `version-*` pattern."""
    return parse(root) / f"span-{span}" / f".building-version-{version}"


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """Path of a shard below its version directory.

    Raises:
        ValueError: an unknown split or a shard number out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if not 0 <= shard < num_shards <= 99_999:
        raise ValueError(
            f"shard must be in 0..num_shards-1 and num_shards at most 99999, got {shard} of {num_shards}"
        )
    return f"{split}/part-{shard:05d}-of-{num_shards:05d}.tfrecord.gz"


def split_pattern(split: str) -> str:
    """Pattern of one split's shards for TFX's ExampleGen, which fills in the newest span and version."""
    return f"span-{{SPAN}}/version-{{VERSION}}/{split}/*"


def list_versions(root: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """(span, version) of every version that has a manifest, ascending."""
    found = []
    for manifest in locate(root).glob(f"span-*/version-*/{MANIFEST_NAME}"):
        version = _VERSION_DIR.search(str(manifest.parent))
        span = _SPAN_DIR.search(str(manifest.parent.parent))
        if span and version:
            found.append((int(span.group(1)), int(version.group(1))))
    return sorted(found)


def shard_paths(version_path: str | os.PathLike[str], split: str) -> list[Location]:
    """Sorted shards of one split of a version directory."""
    return sorted((locate(version_path) / split).glob(SHARD_GLOB))
