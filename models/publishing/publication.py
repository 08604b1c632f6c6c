"""Publish a model: a new version, then the label `stable`, then a line of the history.

A model that is in service already is not copied again. A process may be killed after
any step; publishing the same model again then does the steps that are missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from beam_jobs.contracts import published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.published import STABLE
from models.publishing import labels, store
from models.publishing.labels import Change


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Why a model may go into service.

    Attributes:
        reason: of the gate, one sentence.
        document: the gate's whole verdict as JSON, which is kept with the version;
            "" = there is none.
        since: what the gate found in service; see `labels.state_of`.
        run: name of the run.
        files: path below the version -> content of further files that are kept with it.
    """

    reason: str
    document: str = ""
    since: str = ""
    run: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def publish(model: str, model_dir: str, approval: Approval) -> Location:
    """Put a model in service; return the folder of its version.

    Args:
        model: folder of the SavedModel.
        model_dir: folder of the model's versions; may be on an object store.
        approval: why it may.

    Raises:
        FileNotFoundError: there is no such model.
        OSError: the copy fails; what was in service stays.
    """
    # Also if nothing is copied now: a model that was killed in a push may be given up.
    store.remove_unfinished(model_dir)
    sha256 = tree_sha256(model)
    old = published.in_service(model_dir)
    version = _present(model_dir, sha256, old)
    if version is None:
        gate = {store.GATE: approval.document.encode()} if approval.document else {}
        version = store.push(model, model_dir, {**gate, **approval.files})
    number = int(version.name)
    known = [one.new for one in labels.read_history(model_dir) if one.action == "publish"]
    # The label comes last: with it, the work is done.
    if number not in known:
        change = Change(
            at=labels.now(),
            who=labels.myself(),
            action="publish",
            label=STABLE,
            old=int(old.name) if old is not None and old != version else None,
            new=number,
            reason=approval.reason,
            run=approval.run,
        )
        labels.note(model_dir, change)
    if published.read_labels(model_dir).versions.get(STABLE) != number:
        labels.put(model_dir, {STABLE: number}, since=approval.since)
    return version


def is_in_service(model: str, model_dir: str | os.PathLike[str]) -> bool:
    """Return whether the version in service was copied from this model."""
    found = published.in_service(model_dir)
    return found is not None and store.model_sha256(found) == tree_sha256(model)


def _present(model_dir: str, sha256: str, old: Location | None) -> Location | None:
    """Return the version that needs not be copied: in service, or newer but not yet."""
    versions = published.versions(model_dir)
    newest = versions[-1:] if old is not None and versions else []
    for version in (*filter(None, (old,)), *newest):
        if store.model_sha256(version) == sha256:
            return version
    return None
