"""Rejections: maps that could not be made, as the next run remembers them.

Input: a Rejection of a map. Output: a small file in the folder of the run. The next run
does not try that map again, unless a file or a setting that decides it has changed.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from beam_jobs.build.patches import Rejection
from beam_jobs.storage import files

_DIR = ".rejected"
_MADE_FROM = "made_from"


def remember(output: str, name: str, made_from: str, rejection: Rejection) -> None:
    """Note that a map could not be made.

    Args:
        output: folder of the run, path or URI.
        name: of the map's folder.
        made_from: hash of everything that decides the map.
        rejection: why there is none.
    """
    text = json.dumps({_MADE_FROM: made_from, **asdict(rejection)}, sort_keys=True)
    files.write_bytes(_path(output, name), text.encode())


def recall(output: str, name: str, made_from: str) -> Rejection | None:
    """Return why a map could not be made; None if it was not tried from the same."""
    path = _path(output, name)
    if not files.exists(path):
        return None
    try:
        noted = json.loads(files.read_bytes(path))
        return Rejection(**noted) if noted.pop(_MADE_FROM) == made_from else None
    except (ValueError, KeyError, TypeError, AttributeError):
        # A damaged note costs one more try.
        return None


def forget(output: str, name: str) -> None:
    """Remove what is noted about a map, if anything."""
    files.delete_file(_path(output, name))


def forget_all(output: str) -> None:
    """Remove all notes, so that all maps are tried again."""
    files.delete_tree(f"{output}/{_DIR}")


def _path(output: str, name: str) -> str:
    return f"{output}/{_DIR}/{name}.json"
