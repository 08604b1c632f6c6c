"""What tests of several files need, made once for all workers of pytest-xdist."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

MadeT = TypeVar("MadeT")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], MadeT]) -> MadeT:
    """Return what `make` returns for an empty folder; only the first worker calls it.

    The others wait for it, and get a copy. Tests must not change the folder.

    Args:
        factory: of the temporary folders.
        name: of the folder, the same in all workers.
        make: fills the folder; its result must be picklable.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The folders of the workers lie side by side in that of the run.
        base = base.parent
    kept = base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            folder = base / f"{name}-{os.getpid()}"
            folder.mkdir()
            made = pickle.dumps(make(folder))
            kept.write_bytes(made)
        found: MadeT = pickle.loads(kept.read_bytes())
        return found
