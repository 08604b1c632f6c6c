"""build-labels: catalogs with label assets -> shards of labelled pairs, remapped to one label schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beam_jobs.build import OnProgress, build
from beam_jobs.config import BuildConfig


def build_labels(
    config: BuildConfig,
    catalogs: Sequence[Path],
    output_root: Path,
    span: int | None = 1,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> Path:
    """Builds a version of labelled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names no label.
    """
    if config.label is None:
        raise ValueError("build-labels needs the setting label: which schema, and from which sensor's scene")
    return build(config, catalogs, output_root, span, version, on_progress, beam_options)
