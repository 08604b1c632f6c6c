"""A quicker start of a process, which mostly imports libraries.

Each command, and each worker process of a Beam job, imports Beam, TensorFlow or TFX.
`prepare` takes off what this costs without need: 1.5 s of the 10 s of CPU that an
import of TFX takes, 1.7 s of the 4 s of a worker of `fetch`, and a third of an import
of TensorFlow in a process that needs no Keras (measured in 2026).
"""

from __future__ import annotations

import gc
import importlib.abc
import sys
from collections.abc import Sequence
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

_UNUSED_BY = {
    "tensorflow": ("keras.", "googleapiclient"),
    "keras": ("IPython", "matplotlib", "sklearn"),
}
"""Library -> beginnings of the names of modules that it does without, but that others
need. TensorFlow imports Keras last of all, and otherwise with the first use of
`tf.keras`. It looks for a TPU by Google's client."""


class _Refusal(importlib.abc.MetaPathFinder):
    """Lets Python find no module that the library which is being imported can spare."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Raise ModuleNotFoundError for such a module; leave others to Python."""
        for library, unused in _UNUSED_BY.items():
            if name.startswith(unused) and _is_starting(library):
                raise ModuleNotFoundError(f"{library} starts without {name}", name=name)


def _is_starting(library: str) -> bool:
    """Return whether a library is being imported at this moment."""
    spec = getattr(sys.modules.get(library), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def prepare() -> None:
    """Set up this process for many imports; call it before the first of them."""
    gc.set_threshold(_ALLOCATIONS)
    modules = cast(dict[str, Any], sys.modules)
    for name in _UNUSED:
        # Python raises ImportError for a module that is None here, as for a missing
        # one.
        modules.setdefault(name, None)
    if not any(isinstance(finder, _Refusal) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusal())
