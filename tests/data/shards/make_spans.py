"""Write small spans that can be read together: one config, other scenes and places."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from beam_jobs.contracts import layout, manifest, settings
from tests.data.shards import make_shards

CONFIG = {"split": {"seed": 17}}


def make_span(
    root: str | Path,
    span: int,
    *,
    version: int = 1,
    without: tuple[layout.Split, ...] = (),
    north: float | None = None,
    config: dict[str, Any] = CONFIG,
    **options: Any,
) -> Path:
    """Write one version of a span, with 4 or 6 patches in train and 2 each in eval and test.

    Args:
        root: folder that gets the span.
        span: its number; odd spans have 4 train patches, even ones 6.
        version: number of the version.
        without: splits that get no patch.
        north: degrees by which the patches are moved; None = 3 for each span, so that no
            two spans show the same ground.
        config: config in the manifest.
        options: further arguments of `make_shards.make_version`.
    """
    path = make_shards.make_version(
        root,
        num_patches=4 if span % 2 else 6,
        size_px=16,
        span=span,
        version=version,
        seed=100 * span + version,
        north=3.0 * span if north is None else north,
        **options,
    )
    found = manifest.read(path)
    for split in without:
        for shard in layout.shard_paths(path, split):
            shard.unlink()
    changed = dataclasses.replace(
        found,
        num_examples={s: n for s, n in found.num_examples.items() if s not in without},
        shards={n: e for n, e in found.shards.items() if n.split("/")[0] not in without},
        config=config,
        config_sha256=settings.sha256(config),
    )
    (path / layout.MANIFEST_NAME).write_text(changed.to_json())
    (path / layout.SCENES_NAME).write_text(f"S1_{span}\nS2_{span}\n")
    return path
