"""Fingerprints: of a file, and of source code, which makes a result stale besides its input and config.

TFX caches a component by its inputs and parameters and does not see the code that
`run_fn` names; a build reuses a version of the same catalogs and config. Both carry
this hash, so changed code gives a new execution and a new version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

REPOSITORY = Path(__file__).resolve().parents[2]

_BLOCK_BYTES = 1 << 20


def file_sha256(path: str) -> str:
    """Hex SHA-256 of a file, which may lie on an object store; it is never whole in memory."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def source_fingerprint(sources: Sequence[str], root: Path = REPOSITORY) -> str:
    """Hex SHA-256 over the Python files of `sources`.

    Args:
        sources: files or folders below `root`; a folder stands for every *.py file in
            it.
        root: what the paths are relative to.

    Raises:
        FileNotFoundError: a source does not exist.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = root / source
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such source to fingerprint")
        # Names go in as well: code moved from one file to another is changed code.
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()
