"""A quicker start of a process, which mostly imports libraries.

Each command, and each worker process of a Beam job, imports Beam, TensorFlow or TFX.
`prepare` takes off what this costs without need: 1.5 s of the 10 s of CPU that an
import of TFX takes, and 1.7 s of the 4 s of a worker of `fetch` (measured in 2026).
"""

from __future__ import annotations

import gc
import sys
from typing import Any, cast

_ALLOCATIONS = 50_000
"""New objects between two looks for garbage. Python's default is 700. An import makes
millions of objects and no garbage, so most of these looks find nothing. Memory without
a cycle of references is freed at once, whatever this value is."""

_UNUSED = ("rfc3987_syntax", "tqdm.notebook")
"""Modules that libraries import where they are installed, and do without elsewhere.
jsonschema checks the format "iri" by the first, which builds a parser on import (1 s);
this project checks no such format. BigQuery's client shows progress in a notebook by
the second, which imports ipywidgets."""


def prepare() -> None:
    """Set up this process for many imports; call it before the first of them."""
    gc.set_threshold(_ALLOCATIONS)
    leave_out(*_UNUSED)


def leave_out(*names: str) -> None:
    """Let imports of these modules fail in this process, as where they are missing.

    Only a process that has one task can know that it needs none of them. A module that
    is already imported stays.
    """
    modules = cast(dict[str, Any], sys.modules)
    for name in names:
        # Python raises ImportError for a module that is None here.
        modules.setdefault(name, None)
