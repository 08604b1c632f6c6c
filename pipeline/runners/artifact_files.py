"""Outputs of earlier runs that lost files: their components run again.

TFX's cache looks whether the folder of an output exists, not what is in it. A folder
that somebody emptied, or that lost some of its files, would go into the next component.
After each component the names and sizes of its output files are written down. Before it
is launched again they are compared, and an output that lost files is marked as deleted
in ML Metadata. TFX then does not take it from its cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_metadata import proto
from tfx.orchestration import metadata

from beam_jobs.contracts.locations import Location, list_tree, locate, staged

_NUM_NAMED = 3
Files = dict[str, int]
"""Path below the artifact's folder -> bytes."""


class Inventory:
    """The files of the last outputs of each component: one JSON document for each.

    Nodes of one run may work at the same time in several processes.
    """

    def __init__(self, folder: str) -> None:
        """Use the documents of a folder, which may be on an object store."""
        self._folder = folder

    def record(self, component: str, outputs: Mapping[str, Iterable[Any]]) -> None:
        """Write down the files of a component's outputs; those of before are forgotten.

        Args:
            component: id of the component.
            outputs: its output artifacts by name.
        """
        found = {
            artifact.uri: list_tree(locate(artifact.uri))
            for artifacts in outputs.values()
            for artifact in artifacts
        }
        with staged(self._path(component)) as file:
            file.write_text(json.dumps(found, sort_keys=True))

    def forget_incomplete(
        self, handle: metadata.Metadata, component: str, on_notice: Callable[[str, bool], None]
    ) -> list[str]:
        """Mark the outputs that lost files as deleted, so that TFX makes them again.

        Args:
            handle: ML Metadata, entered.
            component: whose outputs are looked at.
            on_notice: called with one line for the component, and True for a warning.

        Returns:
            The URIs of these outputs.
        """
        lost = []
        for uri, files in self._read(component).items():
            why = _why_incomplete(files, list_tree(locate(uri)))
            if why:
                lost.append(uri)
                on_notice(f"{component}: its output {uri} {why}: the component runs again", True)
        if lost:
            _mark_deleted(handle, set(lost))
        return sorted(lost)

    def _path(self, component: str) -> Location:
        return locate(self._folder) / f"{component}.json"

    def _read(self, component: str) -> dict[str, Files]:
        """Return URI -> files; what is missing or damaged counts as empty.

        TFX's own check of the folders is what is left then.
        """
        try:
            values = json.loads(self._path(component).read_text())
            return {uri: dict(files) for uri, files in values.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


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


def _mark_deleted(handle: metadata.Metadata, uris: set[str]) -> None:
    artifacts = [item for item in handle.store.get_artifacts() if item.uri in uris]
    for artifact in artifacts:
        artifact.state = proto.Artifact.DELETED
    handle.store.put_artifacts(artifacts)
