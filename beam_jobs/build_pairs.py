"""build-pairs: catalogs -> shards of unlabeled Sentinel-1/Sentinel-2 pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beam_jobs.build import OnProgress, build
from beam_jobs.config import BuildConfig


def build_pairs(
    config: BuildConfig,
    catalogs: Sequence[Path],
    output_root: Path,
    span: int | None = 1,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> Path:
    """Builds a version of unlabeled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names a label.
    """
    if config.label is not None:
        raise ValueError(f"build-pairs takes no label, got one of schema {config.label.schema!r}: use build-labels")
    return build(config, catalogs, output_root, span, version, on_progress, beam_options)
