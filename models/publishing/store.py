"""Versions of a model on disk or an object store: write one whole, or not at all.

TensorFlow Serving looks at every folder below a model whose name is a number, and
begins to load it at once. So a version gets its number last:

- On a disk the copy has a hidden name in the same folder. Its files are flushed, then
  the folder is renamed, which happens at once.
- An object store cannot rename. The copy is uploaded under a hidden name first. Then
  the store copies it to its number, `saved_model.pb` and the model card last, which
  takes no upload. A process that is killed in that moment leaves a number without
  `saved_model.pb`. The next one removes it. Servers of `serve-config` copy versions
  that have a label from a store, so never this one.

A number is never used twice, not even that of a version which was removed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from beam_jobs.contracts import locations, published
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import ASSETS_DIR, CARD_NAME

HIDDEN = ".pushing-"
"""Begins the name of a copy that is being written; no server takes it for a version."""
WITHDRAWN = ".withdrawn"
"""Folder of versions that were rolled back; no server looks into it."""
RECORD = f"{ASSETS_DIR}/publication.json"
"""File of a version: the hash of its model, and what it replaced."""
GATE = f"{ASSETS_DIR}/gate.json"
"""File of a version: why the gate blessed it."""
_GRAPH = "saved_model.pb"
_CARD = f"{ASSETS_DIR}/{CARD_NAME}"
_LAST = (_GRAPH, _CARD)
"""Files that make a model visible, in this order: to servers, and to later runs."""
_HIGHEST = "highest_version"


def push(model: str, model_dir: str, notes: Mapping[str, bytes] | None = None) -> Location:
    """Copy a model to a new version; return the version's folder.

    What an earlier push left unfinished is removed first.

    Args:
        model: folder of the SavedModel.
        model_dir: folder of the model's versions; may be on an object store.
        notes: path below the version -> content of a file to add.

    Raises:
        FileNotFoundError: there is no such model.
        OSError: the copy fails, e.g. since the disk is full; no version is visible
            then.
    """
    base = locate(model_dir)
    base.mkdir(parents=True, exist_ok=True)
    remove_unfinished(base)
    number = next_number(base)
    record = json.dumps({"sha256": tree_sha256(model)}) + "\n"
    added = {RECORD: record.encode(), **(notes or {})}
    copy, target = base / f"{HIDDEN}{number}", base / str(number)
    try:
        copy_model(locate(model), copy, added)
        if isinstance(copy, Path):
            _flush(copy)
            # On a disk this cannot replace a version: it fails if the folder has files.
            os.rename(copy, target)
            _flush_folder(copy.parent)
        else:
            copy_model(copy, target)
            locations.remove_tree(copy)
    except BaseException:
        with contextlib.suppress(Exception):
            locations.remove_tree(copy)
        if not isinstance(copy, Path):
            with contextlib.suppress(Exception):
                locations.remove_tree(target)
        raise
    return target


def copy_model(
    source: Location, target: Location, added: Mapping[str, bytes] | None = None
) -> None:
    """Copy a model's folder; write the files last that make it visible.

    Args:
        source: folder of the model.
        target: folder of the copy.
        added: path below the folder -> content of a file that the copy has besides.

    Raises:
        FileNotFoundError: there is no such model.
    """
    names = set(locations.list_tree(source))
    if not names:
        raise FileNotFoundError(f"{source}: no such model, or it is empty")
    for name, content in (added or {}).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    others = names - {RECORD, *_LAST, *(added or {})}
    # The record tells later pushes that what they find is ours.
    for name in (RECORD, *sorted(others), *_LAST):
        if name not in names or name in (added or {}):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        locations.copy_file(source / name, target / name)


def numbered(model_dir: str | os.PathLike[str]) -> list[tuple[int, Location]]:
    """Return number and folder of all that a server takes for a version, sorted.

    They may be complete or not, and ours or not.
    """
    folder = locate(model_dir)
    found = [
        (number, path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (number := published.server_number(path.name)) is not None
    ]
    return sorted(found, key=lambda item: (item[0], item[1].name))


def numbers(model_dir: str | os.PathLike[str]) -> list[int]:
    """Return the numbers of `numbered`, each once."""
    return sorted({number for number, _ in numbered(model_dir)})


def next_number(model_dir: str | os.PathLike[str]) -> int:
    """Return 1 + the largest version that there is, or was.

    The clock does not count: after it was set back, a new version would be older than
    the one before it. Folders of others count if a server takes them for versions. So
    does a version with a label whose folder somebody removed.
    """
    base = locate(model_dir)
    kept = base / WITHDRAWN
    removed = base / f".{_HIGHEST}"
    highest = int(removed.read_text()) if removed.exists() else 0
    labelled = published.read_labels(base).versions.values()
    return 1 + max([highest, *labelled, *numbers(base), *numbers(kept)])


def forget(version: Location) -> None:
    """Remove a version for good; its number is not used again.

    The files that make it visible go first, so no server loads a part of it.
    """
    base, number = version.parent, int(version.name)
    if base.name == WITHDRAWN:
        base = base.parent
    with locations.staged(base / f".{_HIGHEST}") as file:
        file.write_text(f"{next_number(base) - 1}\n")
    _hide(version, base / f"{HIDDEN}{number}-removed")


def withdraw(version: Location) -> Location:
    """Move a version aside, where no server looks; return its new folder.

    A folder that is no complete version may be moved as well.
    """
    target = version.parent / WITHDRAWN / version.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(version, Path):
        os.rename(version, target)
    else:
        copy_model(version, target)
        _hide(version, version.parent / f"{HIDDEN}{version.name}-withdrawn")
    return target


def restore(version: Location) -> Location:
    """Move a version back that `withdraw` moved aside; return its folder."""
    target = version.parent.parent / version.name
    if isinstance(version, Path):
        os.rename(version, target)
    else:
        copy_model(version, target)
        locations.remove_tree(version)
    return target


def remove_unfinished(model_dir: str | os.PathLike[str]) -> list[str]:
    """Remove what killed pushes left; return the names.

    A numbered folder is unfinished when it has files of ours but no card. Folders that
    somebody else put there stay.
    """
    base = locate(model_dir)
    removed = []
    for path in list(base.iterdir()) if base.is_dir() else ():
        is_hidden = path.name.startswith(HIDDEN)
        if is_hidden or _is_unfinished(path):
            locations.remove_tree(path)
            removed.append(path.name)
    return sorted(removed)


def model_sha256(version: Location) -> str:
    """Return the hash of the model that a version was copied from.

    It equals `tree_sha256` of that model's folder. Versions without our record, such as
    those of older releases, are hashed now.
    """
    record = version / RECORD
    if record.exists():
        with locations.content_of(record, published.CURE):
            return str(json.loads(record.read_text())["sha256"])
    return tree_sha256(str(version))


def _is_unfinished(path: Location) -> bool:
    if published.version_number(path.name) is None or isinstance(path, Path):
        return False
    return not (path / _CARD).exists() and (path / RECORD).exists()


def _hide(version: Location, hidden: Location) -> None:
    """Remove a version, which nobody sees in part."""
    if isinstance(version, Path):
        os.rename(version, hidden)
        locations.remove_tree(hidden)
        return
    for name in reversed(_LAST):
        if (version / name).exists():
            (version / name).unlink()
    locations.remove_tree(version)


def _flush(folder: Path) -> None:
    """Make sure that all files and names below a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
