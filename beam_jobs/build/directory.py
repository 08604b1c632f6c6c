"""The building directory: where a version is written before it is one, and how it becomes one.

On this machine it is renamed last, so a version that is visible is whole. An object
store cannot rename a folder: there objects are moved, the manifest last, and what has
no manifest is not a version. Called by `build.py`.
"""

from __future__ import annotations

import hashlib
import os

from beam_jobs.build import writers
from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError
from beam_jobs.storage import files

_MARKER = "building-from.txt"
_SPOOL = "spool"


def is_taken(target: Location) -> bool:
    """Whether the version is there. On a store, objects without a manifest are what a killed job left of a move."""
    return (target / layout.MANIFEST_NAME).exists() if is_remote(target) else target.exists()


def prepare(building_dir: str, marker: str) -> None:
    """Makes the directory: what a killed job of the same input, named by `marker`, left is kept; anything else is cleared."""
    marker_path = f"{building_dir}/{_MARKER}"
    if not (files.exists(marker_path) and files.read_bytes(marker_path) == marker.encode()):
        files.delete_tree(building_dir)
    files.write_bytes(marker_path, marker.encode())
    # What an earlier run summed up is not what this one finds.
    files.delete_file(f"{building_dir}/{writers.SUMMARY_NAME}")
    # Shards are cheap to write again, and a half-written one must not be mistaken for a
    # whole one.
    for name in (*layout.SPLITS, layout.REJECTED_DIR):
        files.delete_tree(f"{building_dir}/{name}")


def spool_dir(
    building_dir: str, spool_root: str | os.PathLike[str] | None, target: Location, marker: str
) -> str:
    """The build's spool: inside the building directory, or below a folder that the user names.

    There another version or other input gets another folder.
    """
    if spool_root is None:
        return f"{building_dir}/{_SPOOL}"
    where = str(target) if is_remote(target) else os.path.abspath(target)
    return f"{locate(spool_root)}/{hashlib.sha256(f'{where} {marker}'.encode()).hexdigest()[:24]}"


def publish(building_dir: str, target: Location) -> None:
    """Turns the building directory into the version.

    Raises:
        DataError: the version has come to be meanwhile.
    """
    if is_remote(target):
        if is_taken(target):
            raise DataError(f"{target}: another job wrote it meanwhile", "version_exists")
        files.delete_tree(str(target))
        left = (writers.SUMMARY_NAME, _MARKER, layout.MANIFEST_NAME)
        names = [path[len(building_dir) + 1 :] for path in files.list_files(building_dir)]
        moved = [name for name in names if name not in left and not name.startswith(f"{_SPOOL}/")]
        files.move_files(building_dir, str(target), moved)
        files.move_files(building_dir, str(target), [layout.MANIFEST_NAME])
        # Last: a job killed before this line finds its spool again.
        files.delete_tree(building_dir)
        return
    for name in (writers.SUMMARY_NAME, _MARKER):
        os.unlink(f"{building_dir}/{name}")
    files.delete_tree(f"{building_dir}/{_SPOOL}")
    try:
        os.rename(building_dir, target)
    except OSError as error:
        raise DataError(f"{target}: another job wrote it meanwhile", "version_exists") from error
