"""Clean: remove published versions that nobody needs, and what killed pushes left.

Serving folder -> the versions that are removed, or would be.
"""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.contracts import published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import Location, locate
from models.publishing import retention, store


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A version that was removed, or would be: its model and number."""

    model: str
    version: int


def clean(serving_dir: str, keep_versions: int, is_dry: bool) -> list[Removed]:
    """Remove old versions of all models; return them.

    What is in service, what has a label, the version before it, the newest
    `keep_versions`, and encoders that a model in service started from stay.

    Args:
        serving_dir: base folder of all published models.
        keep_versions: how many of the newest of each model stay, at least 1.
        is_dry: only tell.
    """
    folders = sorted(path for path in locate(serving_dir).iterdir() if path.is_dir())
    removed = []
    for folder in folders:
        needed = _ancestors(folders, folder)
        if not is_dry:
            store.remove_unfinished(folder)
        for version in retention.removable(folder, keep_versions, needed):
            removed.append(Removed(model=folder.name, version=int(version.name)))
            if not is_dry:
                retention.remove(version, f"gc, keep_versions {keep_versions}")
    return removed


def _ancestors(folders: list[Location], model_dir: Location) -> set[int]:
    """Return the versions of a model that models in service started from.

    A card names the folder that its training started from: a published version, or a
    model of the same content that a Trainer made.
    """
    served = [path for folder in folders if (path := published.in_service(folder)) is not None]
    starts = {
        start
        for path in served
        for start in (published.read_card(str(path)).get("started_from") or {}).values()
        if start
    }
    hashes = set()
    for start in starts:
        try:
            hashes.add(tree_sha256(start))
        except OSError:
            # It is gone. If it was a published version, its path still names it.
            continue
    return {
        int(version.name)
        for version in published.versions(model_dir)
        if str(version) in starts or store.model_sha256(version) in hashes
    }
