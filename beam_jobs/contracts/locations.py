"""Locations: files and folders on this machine or an object store, as pathlib has them.

Input: a path or URI. Output: `pathlib.Path` for a path, `epath.Path` (over
`tf.io.gfile`) for a URI, and the few operations that pathlib lacks. All code outside
Beam workers opens files by this module; Beam workers use `beam_jobs/storage/files.py`.
Where TensorFlow itself opens a file (TFRecord, SavedModel), the path stays a string.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from etils import epath

from beam_jobs.contracts import object_store
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.settings import SettingsError

Location: TypeAlias = Path | epath.Path

_SPECIAL = re.compile(r"[*?\[\\]")
"""Characters with a meaning in patterns of TensorFlow's file systems."""


class DamagedFileError(TerrapairError, ValueError):
    """A file of ours with other content than was written; one line with the cure."""

    exit_code = ExitCode.BAD_DATA


@contextmanager
def content_of(path: str | os.PathLike[str], cure: str) -> Iterator[None]:
    """Name the file when the body cannot make sense of its content.

    Args:
        path: of the file that the body reads.
        cure: what to do, for the end of the line.

    Raises:
        DamagedFileError: the body raised an error about a value, type, key or encoding.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except KeyError as error:
        raise DamagedFileError(f"{path}: it lacks {error}; {cure}") from error
    except IsADirectoryError as error:
        raise DamagedFileError(f"{path}: must be a file, got a folder; {cure}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise DamagedFileError(f"{path}: its content is damaged ({why}); {cure}") from error


def parse(path: str | os.PathLike[str]) -> Location:
    """Return the location of `path`; nothing is opened and no library is loaded.

    Raises:
        SettingsError: a URI of another scheme than those of `object_store.SCHEMES`.
    """
    if object_store.is_remote(path):
        return epath.Path(os.fspath(path))
    if "://" in os.fspath(path):
        raise SettingsError(
            f"{path}: must be a path, or a URI of one of {', '.join(object_store.SCHEMES)}"
        )
    return Path(path)


def locate(path: str | os.PathLike[str]) -> Location:
    """Return the location of `path`, ready to be opened.

    Raises:
        SettingsError: see `parse`.
        MissingFilesystemError: TensorFlow cannot open s3:// here.
    """
    object_store.load_filesystem(path)
    return parse(path)


def size(path: str | os.PathLike[str]) -> int | None:
    """Return the number of bytes of a file; None when there is no such file."""
    found = locate(path)
    try:
        if isinstance(found, Path):
            return found.stat().st_size if found.is_file() else None
        return int(found.stat().length)
    except FileNotFoundError:
        return None


def list_tree(folder: Location) -> dict[str, int]:
    """Return path below a folder -> bytes, for all its files; {} without a folder."""
    found: dict[str, int] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            found |= {f"{path.name}/{name}": num for name, num in list_tree(path).items()}
        else:
            found[path.name] = size(path) or 0
    return found


def glob(folder: str | os.PathLike[str], pattern: str) -> list[Location]:
    """Return what matches `pattern` below `folder`, sorted.

    Only `pattern` is a pattern. The name of `folder` may hold `[`, `*` and `?`, which
    `tf.io.gfile.glob` would take for a part of it.
    """
    root = locate(folder)
    if isinstance(root, Path) or not _SPECIAL.search(os.fspath(root)):
        return sorted(root.glob(pattern))
    found: list[Location] = [root]
    for part in pattern.split("/"):
        if _SPECIAL.search(part):
            found = [
                path
                for parent in found
                if parent.is_dir()
                for path in parent.iterdir()
                if fnmatch.fnmatchcase(path.name, part)
            ]
        else:
            found = [parent / part for parent in found]
    return sorted(path for path in found if path.exists())


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy one file; replace `target` if it exists. Its folder must exist."""
    old, new = locate(source), locate(target)
    if isinstance(old, Path) and isinstance(new, Path):
        shutil.copyfile(old, new)
    else:
        epath.Path(old).copy(new, overwrite=True)


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder and everything in it; do nothing when it does not exist."""
    found = locate(path)
    if not found.exists():
        return
    if isinstance(found, Path):
        shutil.rmtree(found)
    else:
        found.rmtree()


def move_tree(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Move a folder; replace `target` if it exists.

    On an object store its objects are copied one by one, then the source is removed.
    """
    old, new = locate(source), locate(target)
    remove_tree(new)
    if isinstance(old, Path) and isinstance(new, Path):
        os.replace(old, new)
        return
    _copy_tree(old, new)
    remove_tree(old)


def _copy_tree(source: Location, target: Location) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy_tree(path, target / path.name)
        else:
            copy_file(path, target / path.name)


@contextmanager
def without_pattern(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a path of the same folder that TensorFlow does not take for a pattern.

    TensorFlow finds the variables of a checkpoint or SavedModel by a pattern made of
    the path, so it fails below a folder such as `runs [v1]`. There the path leads
    through a link, which exists while the body runs. An object store has no links.

    Source: tensorflow/core/kernels/save_restore_v2_ops.cc, `RestoreV2`, which calls
    `GetMatchingPaths`.
    """
    found = locate(path)
    if not isinstance(found, Path) or not _SPECIAL.search(os.path.abspath(found)):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        link = os.path.join(scratch, "link")
        os.symlink(os.path.abspath(found), link)
        yield link


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a local file to write; it appears at `path` when the body ends well.

    Missing folders are made. After an error nothing has changed at `path`.
    """
    target = locate(path)
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        partial = Path(scratch) / target.name
        yield partial
        # An object appears when its upload is complete, never before.
        epath.Path(partial).copy(target, overwrite=True)
