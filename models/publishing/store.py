"""Versions of a model on disk or an object store: write one whole, or not at all.

TensorFlow Serving looks at every folder below a model whose name is a number, and
begins to load it at once. So a version gets its number last:

- On a disk the copy has a hidden name in the same folder. Its files are flushed, then
  the folder is renamed, which happens at once.
- An object store cannot rename, and writes one object at a time. The copy is uploaded
  under a hidden name first. Then the store copies it to its number, which takes no
  upload: first what a server loads, with `saved_model.pb` at its end, the model card
  last of all. A process that is killed before `saved_model.pb` is there leaves a number
  that nobody can load. The next one removes it. Servers of `serve-config` copy versions
  that have a label from a store, so never this one.

A number is never used twice, not even that of a version which was removed, or of one
that a killed push left half. TensorFlow Serving gives up a version that it could not
load, and does not try it again while a folder of that number is there.
Source: `GetHighestAspiredNewServableId` in aspired_version_policy.cc, which takes only
versions that were never tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from beam_jobs.contracts import locations, published
from beam_jobs.contracts.errors import ExitCode, TerrapairError
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
_LOADED = ("variables/", "assets/", f"{ASSETS_DIR}/tf_serving_warmup_requests")
"""Begin the paths of what a server loads besides the graph.

A graph without variables loads without an error, and then answers none.
Source: "The specified SavedModel has no variables" in
tensorflow/cc/saved_model/loader.cc.
"""
_HIGHEST = "highest_version"


class UnwritableError(TerrapairError, OSError):
    """A folder of published models that cannot be written; one line."""

    exit_code = ExitCode.CRASH


def check_writable(model_dir: str | os.PathLike[str]) -> None:
    """Check that a model can be published, before it is trained.

    A hidden file is written and removed, in the folder or in what there is of its path.

    Raises:
        UnwritableError: the file cannot be written.
    """
    base = locate(model_dir)
    if isinstance(base, Path):
        base = base.absolute()
        while not base.exists():
            base = base.parent
    trial = base / f".writable-{uuid.uuid4().hex}"
    try:
        trial.write_text("")
        trial.unlink()
    except Exception as error:  # the library of each store raises errors of its own
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnwritableError(
            f"{base}: must be writable, so that models can be published in {model_dir}, got: "
            f"{' '.join(str(why).split())[:300]}: give this user the right to write there; nothing "
            "was built or trained"
        ) from error


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
            remove_unfinished(base)
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
        _make_folder(target / name)
        (target / name).write_bytes(content)
    for name in sorted(names - set(added or {}), key=_order):
        _make_folder(target / name)
        locations.copy_file(source / name, target / name)


def _make_folder(file: Location) -> None:
    """Make the folder of a file; a store needs none, and some would show it empty."""
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)


def _order(name: str) -> tuple[int, str]:
    """Return the place of a file among those that are copied."""
    if name == RECORD:
        # It tells later pushes that what they find is ours.
        return 0, name
    if name.startswith(_LOADED):
        return 1, name
    return {_GRAPH: 2, _CARD: 4}.get(name, 3), name


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
    _use_up(base)
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

    A numbered folder is unfinished when it has files of ours but no card. Its number is
    not used again. Folders that somebody else put there stay.
    """
    base = locate(model_dir)
    paths = list(base.iterdir()) if base.is_dir() else []
    hidden = [path for path in paths if path.name.startswith(HIDDEN)]
    half = [path for path in paths if _is_unfinished(path)]
    if half:
        _use_up(base)
    for path in half:
        _hide(path, path)
    for path in hidden:
        locations.remove_tree(path)
    return sorted(path.name for path in (*half, *hidden))


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


def _use_up(base: Location) -> None:
    """Note all numbers that there are, before some are removed."""
    with locations.staged(base / f".{_HIGHEST}") as file:
        file.write_text(f"{next_number(base) - 1}\n")


def _hide(version: Location, hidden: Location) -> None:
    """Remove a version, which nobody of ours sees in part.

    Args:
        version: its folder.
        hidden: name that the folder gets meanwhile, on a disk.
    """
    if isinstance(version, Path):
        os.rename(version, hidden)
        locations.remove_tree(hidden)
        return
    # What makes it visible goes first; the record goes last, so that a process that is
    # killed leaves something that is known as ours.
    for name in sorted(locations.list_tree(version), key=_order, reverse=True):
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
