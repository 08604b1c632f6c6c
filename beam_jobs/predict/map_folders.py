"""Map folders: finished maps, on this machine or on an object store.

Input: the files of one map as they are written. Output: the same files in the folder of
the run, where `item.json` marks a map that is whole. A folder that holds
anything else is never replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError
from beam_jobs.predict import maps, pictures, polygons, stac
from beam_jobs.storage import files

_FILES = (
    maps.CLASS_FILE,
    maps.PROBABILITY_FILE,
    maps.UNCERTAINTY_FILE,
    *polygons.FILES.values(),
    pictures.PICTURE_FILE,
    stac.ITEM_FILE,
)


def made_from(folder: str) -> str | None:
    """Return the hash of what a finished map was made from; None = no finished map."""
    item = _item(f"{folder}/{stac.ITEM_FILE}")
    return None if item is None else item["properties"].get(stac.MADE_FROM)


def items(output: str) -> dict[str, dict[str, Any]]:
    """Return path below `output` -> STAC item of each finished map, sorted by path."""
    ending = f"/{stac.ITEM_FILE}"
    if is_remote(output):
        paths = [path for path in files.list_files(output) if path.endswith(ending)]
    else:
        paths = [f"{output}/{one.name}{ending}" for one in Path(output).iterdir()]
    found = {path[len(output) + 1 :]: path for path in sorted(paths)}
    read = {
        name: _item(path)
        for name, path in found.items()
        # Nothing hidden, and nothing deeper.
        if name.count("/") == 1 and not name.startswith(".")
    }
    return {name: item for name, item in read.items() if item and _is_ours(item)}


def check_replaceable(folder: str) -> None:
    """Refuse to replace a folder, or a file, that `predict` did not write.

    Raises:
        DataError: there is one.
    """
    item = _item(f"{folder}/{stac.ITEM_FILE}")
    # A killed upload leaves files without an item.
    ours = {*_FILES, *_asset_files(item)}
    names = [path[len(folder) + 1 :] for path in files.list_files(folder)]
    if os.path.isfile(folder):
        names = ["a file"]
    # Viewers write files such as class.tif.aux.xml beside those that they open.
    others = [name for name in names if not any(f"{name}.".startswith(f"{one}.") for one in ours)]
    if item is not None and not _is_ours(item):
        others.append(stac.ITEM_FILE)
    if others:
        raise DataError(
            f"{folder}: a map would replace what `predict` did not write ({others[0]}): choose "
            "another --output",
            "other_config",
        )


def stage(built: Path, staged: str) -> None:
    """Move files of a map to those that are written already.

    Args:
        built: folder of this machine with the files. If `staged` is on this machine, it
            is on the same file system.
        staged: folder or URI that gets them.

    Raises:
        OSError: the files cannot be moved or uploaded.
    """
    for file in sorted(built.iterdir()):
        if is_remote(staged):
            files.upload(os.fspath(file), f"{staged}/{file.name}")
        else:
            os.makedirs(staged, exist_ok=True)
            os.replace(file, f"{staged}/{file.name}")
    shutil.rmtree(built)


def publish(staged: str, folder: str, names: Sequence[str]) -> None:
    """Make a map visible; it replaces an older one.

    Args:
        staged: folder or URI of its files, which is gone afterwards. It is on the same
            file system, or object store, as `folder`. Files that are missing in it were
            moved before a kill.
        folder: of the map.
        names: of its files, without the item.

    Raises:
        OSError: the files cannot be moved. Then `folder` holds the older map, or none.
    """
    if not is_remote(folder):
        older = f"{staged}-older"
        if os.path.lexists(folder):
            os.replace(folder, older)
        os.replace(staged, folder)
        shutil.rmtree(older, ignore_errors=True)
        return
    before = files.list_files(folder)
    # The item goes first and comes last, so it never stands beside files of two maps.
    item = f"{folder}/{stac.ITEM_FILE}"
    if item in before:
        files.delete_file(item)
    there = {path[len(staged) + 1 :] for path in files.list_files(staged)}
    files.move_files(staged, folder, sorted(there & set(names)))
    kept = {f"{folder}/{name}" for name in names}
    if left := [path for path in before if path not in {*kept, item}]:
        files.delete_files(left)
    files.move_files(staged, folder, [stac.ITEM_FILE])


def _item(path: str) -> dict[str, Any] | None:
    """Return a STAC item; None if there is none, or if it is damaged."""
    if not files.exists(path):
        return None
    try:
        item = json.loads(files.read_bytes(path))
        item["properties"].get(stac.MADE_FROM)
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError):
        return None
    return dict(item)


def _asset_files(item: dict[str, Any] | None) -> list[str]:
    if item is None or not _is_ours(item):
        return []
    return [os.path.basename(asset["href"]) for asset in item["assets"].values()]


def _is_ours(item: dict[str, Any]) -> bool:
    return stac.MADE_FROM in item["properties"]
