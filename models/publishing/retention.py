"""Retention: remove old versions of a model that nobody needs.

The versions with a label, the version before the one in service, and the newest
`keep_versions` stay. So a rollback is always possible.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import Location, locate
from models.publishing import labels, store
from models.publishing.labels import Change


def removable(
    model_dir: str | os.PathLike[str], keep_versions: int, needed: Collection[int] = ()
) -> list[Location]:
    """Return the versions that may be removed, the oldest first.

    Args:
        model_dir: folder of the model's versions.
        keep_versions: how many of the newest stay, at least 1.
        needed: versions that stay for another reason, such as an encoder that a
            segmenter in service started from.

    Raises:
        ValueError: `keep_versions` is less than 1.
    """
    if keep_versions < 1:
        raise ValueError(f"keep_versions must be at least 1, got {keep_versions}")
    base = locate(model_dir)
    found = [*published.versions(base), *published.versions(base / store.WITHDRAWN)]
    found.sort(key=lambda path: int(path.name))
    kept = {int(path.name) for path in found[-keep_versions:]} | set(needed)
    kept |= set(published.read_labels(base).versions.values())
    current = published.in_service(base)
    if current is not None:
        kept.add(int(current.name))
        kept |= _before(base, int(current.name))
    return [path for path in found if int(path.name) not in kept]


def remove(version: Location, reason: str) -> None:
    """Remove a version, and note it in the model's history."""
    base = version.parent.parent if version.parent.name == store.WITHDRAWN else version.parent
    store.forget(version)
    change = Change(
        at=labels.now(),
        who=labels.myself(),
        action="remove",
        label="",
        old=None,
        new=int(version.name),
        reason=reason,
    )
    labels.note(base, change)


def _before(model_dir: Location, current: int) -> set[int]:
    """Return the version that was in service before the current one was published."""
    return {
        change.old
        for change in labels.read_history(model_dir)
        if change.action == "publish" and change.new == current and change.old is not None
    }
