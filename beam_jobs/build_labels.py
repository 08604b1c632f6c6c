"""build-labels: catalogs with label assets -> shards of labelled pairs, remapped to one label schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beam_jobs.build import StrPath, build
from beam_jobs.config import BuildConfig
from beam_jobs.contracts.locations import Location


def build_labels(config: BuildConfig, catalogs: Sequence[StrPath], output_root: StrPath, **options: Any) -> Location:
    """Builds a version of labelled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names no label.
    """
    if config.label is None:
        raise ValueError("build-labels needs the setting label: which schema, and from which sensor's scene")
    return build(config, catalogs, output_root, **options)
