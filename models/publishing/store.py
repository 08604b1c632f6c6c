"""Versions of a model on disk or an object store: write one whole, or not at all.

TensorFlow Serving looks at every folder below a model whose name is a number, and
begins to load it at once. So a number appears with a model that loads, or not at all:

- On a disk the copy has a hidden name in the same folder. Its files are flushed, then
  the folder is renamed, which happens at once.
- An object store cannot rename, and writes one object at a time. The copy is uploaded
  under a hidden name first. The first object of the number is then the whole model in
  one file: a `saved_model.pb` that holds the weights (`models.published.one_file`). The
  store copies the other files beside it, which takes no upload. When all are there, the
  model's own `saved_model.pb` replaces the first one. The model card comes last.
- A removal from a store goes the same way back: the card, the model in one file, the
  other files, and `saved_model.pb` at last.

A process that is killed between may leave a number on a store that loads, but has no
card. Nothing of ours takes it for a version. The next push removes it. It knows the
number by the hidden folder `.pushing-<number>`, which is there before the first object
of the number is written or removed, and goes after the last.

A number is never used twice, not even that of a version which was removed, or of one
that a killed push left. TensorFlow Serving gives up a version that it could not load,
and does not try it again while a folder of that number is there.
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

from beam_jobs.contracts import locations, object_store, published
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import ASSETS_DIR, CARD_NAME, GRAPH_NAME

HIDDEN = ".pushing-"
"""Before a number, the name of its copy while the number is written or removed.

No server takes it for a version.
"""
WITHDRAWN = ".withdrawn"
"""Folder of versions that were rolled back; no server looks into it."""
RECORD = f"{ASSETS_DIR}/publication.json"
"""File of a version: the hash of its model, and what it replaced."""
GATE = f"{ASSETS_DIR}/gate.json"
"""File of a version: why the gate blessed it."""
_CARD = f"{ASSETS_DIR}/{CARD_NAME}"
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
        OneFileError: the model cannot be published on an object store.
    """
    base = locate(model_dir)
    base.mkdir(parents=True, exist_ok=True)
    remove_unfinished(base)
    number = next_number(base)
    record = json.dumps({"sha256": tree_sha256(model)}) + "\n"
    added = {RECORD: record.encode(), **(notes or {})}
    target = base / str(number)
    copy = _hidden(target)
    try:
        whole = b"" if isinstance(target, Path) else _in_one_file(model)
        copy_model(locate(model), copy, added)
        if isinstance(copy, Path):
            _flush(copy)
            # On a disk this cannot replace a version: it fails if the folder has files.
            os.rename(copy, target)
            _flush_folder(copy.parent)
        else:
            _fill(target, copy, whole)
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
    """Return the place of a file among those that are copied or removed."""
    return {GRAPH_NAME: 1, _CARD: 2}.get(name, 0), name


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

    No server sees a part of it that does not load.
    """
    base = version.parent.parent if version.parent.name == WITHDRAWN else version.parent
    _use_up(base)
    if version.parent.name == WITHDRAWN:
        _remove_files(version)
    elif isinstance(version, Path):
        os.rename(version, _hidden(version))
        locations.remove_tree(_hidden(version))
    else:
        _remove_number(version)


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
        _remove_number(version)
    return target


def restore(version: Location) -> Location:
    """Move a version back that `withdraw` moved aside; return its folder."""
    target = version.parent.parent / version.name
    if isinstance(version, Path):
        os.rename(version, target)
    else:
        whole = _in_one_file(version)
        _mark(target)
        _fill(target, version, whole)
        _remove_files(version)
        locations.remove_tree(_hidden(target))
    return target


def remove_unfinished(model_dir: str | os.PathLike[str]) -> list[str]:
    """Remove what killed processes left of pushes and removals; return the names.

    On a store, a numbered folder is unfinished when it has no card, and its hidden
    folder is there. Its number is not used again. Folders of others stay.
    """
    base = locate(model_dir)
    paths = list(base.iterdir()) if base.is_dir() else []
    hidden = [path for path in paths if path.name.startswith(HIDDEN)]
    unfinished: list[Location] = []
    if hidden and not isinstance(base, Path):
        object_store.abort_uploads(base)
        names = {path.name.removeprefix(HIDDEN) for path in hidden}
        marked = [path for path in paths if path.name in names]
        unfinished = [path for path in marked if not (path / _CARD).exists()]
        for path in marked:
            # A version that was moved is there twice when the process died.
            if path not in unfinished:
                _remove_files(base / WITHDRAWN / path.name)
    if unfinished:
        _use_up(base)
    for path in unfinished:
        _clear(path)
    for path in hidden:
        locations.remove_tree(path)
    return sorted(path.name for path in (*unfinished, *hidden))


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


def _use_up(base: Location) -> None:
    """Note all numbers that there are, before some are removed."""
    with locations.staged(base / f".{_HIGHEST}") as file:
        file.write_text(f"{next_number(base) - 1}\n")


def _hidden(version: Location) -> Location:
    """Return the folder that is there while a number is written or removed."""
    return version.parent / f"{HIDDEN}{version.name}"


def _mark(version: Location) -> None:
    """Write the hidden folder of a number, so that the next push knows the number."""
    (_hidden(version) / "mark").write_text(f"{version.name}\n")


def _in_one_file(model: str | os.PathLike[str]) -> bytes:
    """Return a model as one file."""
    # TensorFlow takes seconds to import, and disks do without it.
    from models.published import one_file

    return one_file.pack(model)


def _fill(version: Location, source: Location, whole: bytes) -> None:
    """Copy a model to a number of a store; at any time what is there loads.

    Args:
        version: folder of the number; the hidden one must be there.
        source: folder of the model, on the same store.
        whole: the same model in one file.
    """
    (version / GRAPH_NAME).write_bytes(whole)
    copy_model(source, version)


def _remove_number(version: Location) -> None:
    """Remove a number from a store, so that the next push ends what this one began."""
    _mark(version)
    _clear(version)
    locations.remove_tree(_hidden(version))


def _clear(version: Location) -> None:
    """Empty a number on a store; as long as something is there, it loads.

    Args:
        version: folder of the number; the hidden one must be there. If its model does
            not load, the graph goes first, so that no server loads a part of it.
    """
    from models.published.one_file import OneFileError

    try:
        whole = _in_one_file(version)
    except OneFileError:
        whole = None
    (version / _CARD).unlink(missing_ok=True)
    if whole is None:
        (version / GRAPH_NAME).unlink(missing_ok=True)
    else:
        (version / GRAPH_NAME).write_bytes(whole)
    _remove_files(version)


def _remove_files(version: Location) -> None:
    """Remove the files of a version, then the graph, the card last.

    A process that is killed while it removes a withdrawn version leaves something that
    is listed, and removed again.
    """
    for name in sorted(locations.list_tree(version), key=_order):
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
