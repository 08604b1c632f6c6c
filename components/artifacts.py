"""Files behind TFX's artifacts: shards, documents, and the metrics of a training.

Artifact or pattern -> paths; file -> its content. Paths may lie on an object store.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from beam_jobs.contracts.locations import content_of, locate, staged

T = TypeVar("T")

SOURCES = ("models", "beam_jobs/contracts", "components")
"""Code that decides the result of a training or a measurement.

TFX's cache does not see changed code, so components carry a fingerprint of it.
"""
METRICS_FILE = "metrics.json"
"""Final metrics of a training, in its model_run folder."""


def list_files(patterns: list[str]) -> list[str]:
    """Return the sorted files that match TFX's patterns.

    Args:
        patterns: `<folder>/<glob>` each.

    Raises:
        ValueError: no file matches, so the split is empty.
    """
    files = []
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        files += [str(path) for path in locate(folder).glob(name)]
    if not files:
        raise ValueError(f"no file matches {patterns}: the split is empty")
    return sorted(files)


def split_files(examples: standard_artifacts.Examples, split: str) -> list[str]:
    """Return the sorted files of one split of an Examples artifact.

    Raises:
        ValueError: the split is empty.
    """
    return list_files([io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split))])


def read_document(folder: str, name: str, parse: Callable[[str], T]) -> T:
    """Return what `parse` makes of the text of one file of an artifact.

    Args:
        folder: URI of the artifact.
        name: of the file in it.
        parse: text -> value.

    Raises:
        DamagedFileError: `parse` cannot make sense of the text.
        OSError: the file cannot be read.
    """
    path = locate(folder) / name
    with content_of(path, f"remove the folder {folder} and run again"):
        return parse(path.read_text())


def write_metrics(metrics: dict[str, float], model_run_dir: str) -> None:
    """Write the final metrics beside the TensorBoard logs."""
    with staged(locate(model_run_dir) / METRICS_FILE) as file:
        file.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def read_metrics(model_run_dir: str) -> dict[str, float]:
    """Return the final metrics of a training.

    Raises:
        DamagedFileError: see `read_document`.
    """
    return read_document(model_run_dir, METRICS_FILE, lambda text: dict(json.loads(text)))
