"""Make TFX artifacts of a version of shards, as the data components write them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tfx.types import artifact_utils, standard_artifacts

from beam_jobs.contracts import layout, manifest
from beam_jobs.runner import local_arguments
from components import data_manifest
from components.drift_check import DriftSettings
from models.drift.config import DriftConfig

BEAM_ARGUMENTS = [*local_arguments(1), "--sdk_container_image=none"]
"""As a run gives them to its components: TFX packs no source for workers, which takes 1 s."""

NO_DRIFT = DriftSettings(served_dir="no-models", drift=DriftConfig(), since="")
"""Data of which no model is in service."""


def artifact_of(kind: Any, path: Path) -> Any:
    """Return an artifact of type `kind` whose URI is `path`."""
    artifact = kind()
    artifact.uri = str(path)
    return artifact


def import_version(version: Path, root: Path) -> tuple[Any, Any]:
    """Return the artifacts that ImportExampleGen and DataManifest write: examples, manifest."""
    examples = artifact_of(standard_artifacts.Examples, root / "examples")
    examples.split_names = artifact_utils.encode_split_names(list(layout.SPLITS))
    for split in layout.SPLITS:
        folder = root / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        for path in layout.shard_paths(version, split):
            shutil.copy(path, folder)
    data_manifest.write_manifest(manifest.read(version), str(root / "manifest"))
    return examples, artifact_of(standard_artifacts.HyperParameters, root / "manifest")
