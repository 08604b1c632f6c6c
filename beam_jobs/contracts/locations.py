"""Locations: folders and files on this machine or on an object store, with one interface, that of pathlib.

Input: a path or URI. Output: `pathlib.Path` for a path, `epath.Path` (over
`tf.io.gfile`) for a URI. Called by whatever reads or writes small files beside the
jobs' data flow; Beam workers use `beam_jobs/storage/files.py` instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from etils import epath

from beam_jobs.contracts import object_store
from beam_jobs.contracts.settings import SettingsError

Location: TypeAlias = Path | epath.Path


def parse(path: str | os.PathLike[str]) -> Location:
    """The location that `path` names; opens nothing.

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
    """As `parse`, and TensorFlow is ready to open it."""
    object_store.load_filesystem(path)
    return parse(path)


def size(path: str | os.PathLike[str]) -> int | None:
    """Bytes of a file; None when there is none."""
    found = locate(path)
    try:
        if isinstance(found, Path):
            return found.stat().st_size if found.is_file() else None
        return int(found.stat().length)
    except FileNotFoundError:
        return None


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A local file to write; it appears at `path` once the body has ended well, and folders are made. Nothing else does."""
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
