"""Fingerprint of the source code behind a component.

TFX caches a component by its inputs and parameters and does not see the code that `run_fn` names. Every component here
that runs our own code therefore carries this hash as a parameter: changed code gives a new hash and so a new execution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def source_fingerprint(sources: Sequence[str], root: Path = REPOSITORY) -> str:
    """Hex SHA-256 over the Python files of `sources`.

    Args:
        sources: files or folders below `root`; a folder stands for every *.py file in it.
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
