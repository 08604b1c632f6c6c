"""Outputs of earlier runs that lost files: their components run again.

TFX's cache looks whether the folder of an output exists, not what is in it. A folder
that somebody emptied, or that lost some of its files, would go into the next component.
After each component the names and sizes of its output files are written down. Before
the next run they are compared, and an output that lost files is marked as deleted in ML
Metadata. TFX then does not take it from its cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_metadata import proto
from tfx.orchestration import metadata

from beam_jobs.contracts.locations import list_tree, locate, staged

INVENTORY_FILE = "artifact_files.json"
"""Lies beside the file of ML Metadata."""

_NUM_NAMED = 3
Files = dict[str, int]
"""Path below the artifact's folder -> bytes."""


class Inventory:
    """The files of all outputs of the last runs, by component and URI."""

    def __init__(self, metadata_path: str | Path) -> None:
        """Read the inventory; one that is missing or damaged counts as empty."""
        self._path = Path(metadata_path).with_name(INVENTORY_FILE)
        self._outputs: dict[str, dict[str, Files]] = {}
        try:
            values = json.loads(self._path.read_text())
            self._outputs = {
                component: {uri: dict(files) for uri, files in outputs.items()}
                for component, outputs in values.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            # Without it, TFX's own check of the folders is what is left.
            self._outputs = {}

    def record(self, component: str, outputs: Mapping[str, Iterable[Any]]) -> None:
        """Write down the files of a component's outputs; those of before are forgotten.

        Args:
            component: id of the component.
            outputs: its output artifacts by name.
        """
        self._outputs[component] = {
            artifact.uri: list_tree(locate(artifact.uri))
            for artifacts in outputs.values()
            for artifact in artifacts
        }
        with staged(self._path) as file:
            file.write_text(json.dumps(self._outputs, sort_keys=True))

    def forget_incomplete(
        self, connection: Any, on_notice: Callable[[str, bool], None]
    ) -> list[str]:
        """Mark the outputs that lost files as deleted, so that TFX makes them again.

        Args:
            connection: of ML Metadata.
            on_notice: called with one line for each component, and True for a warning.

        Returns:
            The URIs of these outputs.
        """
        lost: dict[str, str] = {}
        for component, outputs in self._outputs.items():
            for uri, files in outputs.items():
                why = _why_incomplete(files, list_tree(locate(uri)))
                if why:
                    lost[uri] = component
                    on_notice(
                        f"{component}: its output {uri} {why}: the component runs again", True
                    )
        if lost:
            _mark_deleted(connection, set(lost))
        return sorted(lost)


def _why_incomplete(expected: Files, found: Files) -> str:
    """Return what an output lost, or ""; files that were added do not matter."""
    if expected and not found:
        return "is gone or empty"
    missing = sorted(expected.keys() - found.keys())
    if missing:
        return f"lost {len(missing)} of {len(expected)} files ({_named(missing)})"
    changed = sorted(name for name, size in expected.items() if found[name] != size)
    return f"has files of another size ({_named(changed)})" if changed else ""


def _named(names: list[str]) -> str:
    return ", ".join(names[:_NUM_NAMED]) + (", ..." if len(names) > _NUM_NAMED else "")


def _mark_deleted(connection: Any, uris: set[str]) -> None:
    with metadata.Metadata(connection) as handle:
        artifacts = [item for item in handle.store.get_artifacts() if item.uri in uris]
        for artifact in artifacts:
            artifact.state = proto.Artifact.DELETED
        handle.store.put_artifacts(artifacts)
