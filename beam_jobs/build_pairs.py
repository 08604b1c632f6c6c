"""build-pairs: catalogs -> shards of unlabeled Sentinel-1/Sentinel-2 pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beam_jobs.build import StrPath, build
from beam_jobs.config import BuildConfig
from beam_jobs.contracts.locations import Location


def build_pairs(config: BuildConfig, catalogs: Sequence[StrPath], output_root: StrPath, **options: Any) -> Location:
    """Builds a version of unlabeled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names a label.
    """
    if config.label is not None:
        raise ValueError(f"build-pairs takes no label, got one of schema {config.label.schema!r}: use build-labels")
    return build(config, catalogs, output_root, **options)
