"""What must be installed: a supported Python, and the optional groups of dependencies.

This module uses only the standard library and the syntax of old Pythons: it must be
able to tell an unsupported Python so.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 12)

GROUP_OF_MODULE = {
    "tfx": "pipeline",
    "tfx_bsl": "pipeline",
    "cronsim": "pipeline",
    "kfp": "pipeline",
    "ml_metadata": "pipeline",
    "tensorflow_data_validation": "pipeline",
    "tensorflow_metadata": "pipeline",
    "tensorflow_model_analysis": "pipeline",
    "tensorflow_transform": "pipeline",
    "ee": "earthengine",
}
"""Top-level module -> optional group of `pyproject.toml` that installs it."""

_INSTALL = {
    "pipeline": "uv pip install 'terrapair[pipeline]' (uv, because pip refuses tfx on Python 3.11)",
    "earthengine": "pip install 'terrapair[earthengine]'",
}


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> None:
    """End the process with exit code 2 and one line on an unsupported Python."""
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return
    oldest, newest, found = (".".join(map(str, v)) for v in (OLDEST_PYTHON, NEWEST_PYTHON, version))
    sys.stderr.write(
        f"error: terrapair runs on Python {oldest} to {newest}, this is Python {found}: install "
        "Python 3.11 and make the environment with it\n"
    )
    raise SystemExit(2)


def missing_group(verb: str, groups: tuple[str, ...]) -> str:
    """Return the line about the first of `groups` that is missing, "" if none is."""
    for group in groups:
        modules = [module for module, of in GROUP_OF_MODULE.items() if of == group]
        if any(find_spec(module) is None for module in modules):
            return install_line(verb, group)
    return ""


def install_line(verb: str, group: str) -> str:
    """Return one line that says how to install a group for a verb."""
    return f"terrapair {verb} needs the {group} group: {_INSTALL[group]}"
