"""The building directory: where a version is written before it becomes visible.

On a local disk the directory is renamed at the end, so a visible version is complete.
An object store cannot rename a folder. There the objects are moved one by one, the
manifest last, and a folder without a manifest is not a version.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection

from beam_jobs.build import writers
from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError
from beam_jobs.storage import files

_MARKER = "building-from.txt"
_SPOOL = "spool"


def is_taken(target: Location) -> bool:
    """Return whether the version exists.

    On an object store, objects without a manifest are the rest of a job that was killed
    while it moved them. They do not count.
    """
    return (target / layout.MANIFEST_NAME).exists() if is_remote(target) else target.exists()


def prepare(building_dir: str, marker: str) -> None:
    """Make the building directory ready for a job.

    The spool of a killed job with the same input is kept; all other files are deleted.

    Args:
        building_dir: the building directory.
        marker: names the input of the job.
    """
    marker_path = f"{building_dir}/{_MARKER}"
    if not (files.exists(marker_path) and files.read_bytes(marker_path) == marker.encode()):
        files.delete_tree(building_dir)
    files.write_bytes(marker_path, marker.encode())
    # The summary of an earlier run does not describe this one.
    files.delete_file(f"{building_dir}/{writers.SUMMARY_NAME}")
    # Shards are cheap to write again, and a partial shard must not be taken for a
    # complete one.
    for name in (*layout.SPLITS, layout.REJECTED_DIR):
        files.delete_tree(f"{building_dir}/{name}")


def delete_leftovers(building_dir: str, shards: Collection[str]) -> None:
    """Remove what lost workers left: unfinished files, and shards of another job.

    Args:
        building_dir: the building directory.
        shards: paths of the version's shards below it.
    """
    names = [path[len(building_dir) + 1 :] for path in files.list_files(building_dir)]
    left = [
        name
        for name in names
        if not name.startswith(f"{_SPOOL}/")
        and (
            files.PARTIAL_MARK in name
            or (name.partition("/")[0] in layout.SPLITS and name not in shards)
        )
    ]
    if left:
        files.delete_files([f"{building_dir}/{name}" for name in left])


def spool_dir(
    building_dir: str, spool_root: str | os.PathLike[str] | None, *, target: Location, marker: str
) -> str:
    """Return the folder of the build's spool.

    Args:
        building_dir: the building directory; holds the spool when `spool_root` is None.
        spool_root: folder named by the user. Below it each version and each input gets
            a folder of its own.
        target: directory of the version.
        marker: names the input of the job.
    """
    if spool_root is None:
        return f"{building_dir}/{_SPOOL}"
    where = str(target) if is_remote(target) else os.path.abspath(target)
    return f"{locate(spool_root)}/{hashlib.sha256(f'{where} {marker}'.encode()).hexdigest()[:24]}"


def publish(building_dir: str, target: Location) -> None:
    """Turn the building directory into the version.

    Raises:
        DataError: another job has written the version in the meantime.
    """
    if is_remote(target):
        if is_taken(target):
            raise DataError(
                f"{target}: another job wrote this version in the meantime", "version_exists"
            )
        files.delete_tree(str(target))
        left = (writers.SUMMARY_NAME, _MARKER, layout.MANIFEST_NAME)
        names = [path[len(building_dir) + 1 :] for path in files.list_files(building_dir)]
        moved = [name for name in names if name not in left and not name.startswith(f"{_SPOOL}/")]
        files.move_files(building_dir, str(target), moved)
        files.move_files(building_dir, str(target), [layout.MANIFEST_NAME])
        # Last, so that a job that is killed before this line still finds its spool.
        files.delete_tree(building_dir)
        return
    for name in (writers.SUMMARY_NAME, _MARKER):
        os.unlink(f"{building_dir}/{name}")
    files.delete_tree(f"{building_dir}/{_SPOOL}")
    try:
        os.rename(building_dir, target)
    except OSError as error:
        raise DataError(
            f"{target}: another job wrote this version in the meantime", "version_exists"
        ) from error
