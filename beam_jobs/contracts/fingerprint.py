"""Hashes of files, folders and source code.

A result depends on its code too. TFX caches a component by its inputs and parameters
and does not see the code that `run_fn` names. A build reuses a version of the same
catalogs and config. Both include the hash of the code, so changed code gives a new
execution and a new version.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from beam_jobs.contracts.locations import Location, locate

REPOSITORY = Path(__file__).resolve().parents[2]

_BLOCK_BYTES = 1 << 20


def file_sha256(path: str) -> str:
    """Return the hex SHA-256 of a file, which may lie on an object store.

    The file is read in blocks of 1 MiB.
    """
    digest = hashlib.sha256()
    with locate(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tree_sha256(folder: str) -> str:
    """Return the hex SHA-256 over names and contents of all files of a folder.

    A model is a folder, or one file, whose hash is that of the file. A path alone does
    not name a model, because another one may be written there later.

    Raises:
        FileNotFoundError: there is no such folder, or it is empty.
    """
    root = locate(folder)
    if root.is_file():
        return file_sha256(folder)
    names = sorted(
        os.fspath(path)[len(os.fspath(root)) :].strip("/") for path in _files_below(root)
    )
    if not names:
        raise FileNotFoundError(f"{folder}: no such folder, or it is empty")
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
        digest.update(file_sha256(f"{os.fspath(root)}/{name}").encode())
    return digest.hexdigest()


def _files_below(folder: Location) -> Iterator[Location]:
    for path in folder.iterdir() if folder.is_dir() else ():
        yield from _files_below(path) if path.is_dir() else (path,)


def source_fingerprint(sources: Sequence[str], root: Path = REPOSITORY) -> str:
    """Return the hex SHA-256 over the Python files of `sources`.

    Args:
        sources: files or folders below `root`. A folder stands for all *.py files in
            it, at any depth.
        root: folder that the paths are relative to.

    Raises:
        FileNotFoundError: a source does not exist.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = root / source
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such source to fingerprint")
        # The hash includes the names: code that moves to another file is changed code.
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()
