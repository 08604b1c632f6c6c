"""Folders of STAC items as they are downloaded: one JSON file per item, or collections.

Input: a folder with item files (`<scene>/<scene>.json` beside its rasters) or
ItemCollections. Output: their STAC items with absolute hrefs. Hrefs in a file start at
the folder of that file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac

from beam_jobs.catalogs import items
from beam_jobs.errors import DataError
from beam_jobs.scenes import hrefs
from beam_jobs.scenes.scene import from_item

_SUFFIXES = (".json", ".geojson")
_CATALOG_NAME = "items.ndjson"
_MAX_DETECTED = 20
"""Files that are opened to find out whether a folder holds items."""


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items in all files of a folder and its sub-folders.

    An item that appears again, as in a collection beside its own file, is left out. An
    item that cannot become a scene is refused with the reason. Folders with a catalog
    (`items.ndjson`) are left out.

    Source: https://github.com/radiantearth/stac-api-spec, ItemCollection; the output of
    stac-asset and of pystac's `Item.save_object`.
    """
    known: set[str] = set()
    for path in files(folder):
        for values in items_in(path):
            item = _item(values, path)
            if item.id not in known:
                known.add(item.id)
                yield item


def holds_items(folder: Path) -> bool:
    """Return whether one of the first JSON files under a folder has STAC items."""
    found = zip(files(folder), range(_MAX_DETECTED), strict=False)
    return any(items_in(path) for path, _ in found)


def files(folder: Path) -> Iterator[Path]:
    """Yield the JSON files in and under a folder, by name, those nearest first."""
    for root, folders, names in os.walk(folder):
        if _CATALOG_NAME in names and Path(root) != folder:
            folders.clear()
            continue
        folders.sort()
        yield from (Path(root) / name for name in sorted(names) if name.endswith(_SUFFIXES))


def items_in(path: Path) -> list[dict[str, Any]]:
    """Return the STAC items of a JSON file; none if it holds something else."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    features = [values]
    if isinstance(values, dict) and values.get("type") == "FeatureCollection":
        features = values.get("features") or []
    # A GeoJSON Feature of something else has no assets.
    return [
        one
        for one in features
        if isinstance(one, dict) and one.get("type") == "Feature" and "stac_version" in one
    ]


def _item(values: dict[str, Any], path: Path) -> pystac.Item:
    """Return the item with absolute hrefs, refused if it cannot become a scene."""
    name = str(values.get("id") or path.stem)
    try:
        absolute = with_absolute_hrefs(values, path.parent)
        # The build decides whether it reads from web servers.
        from_item(absolute, path, allow_http=True)
        found = pystac.Item.from_dict(absolute, migrate=False, preserve_dict=False)
    except DataError as error:
        return items.refused(name, {}, error)
    # Links lead to files that this catalog does not have.
    found.clear_links()
    if found.collection_id:
        found.properties.setdefault("terrapair:source", found.collection_id)
    return found


def with_absolute_hrefs(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy of an item whose assets name their files from the root on.

    Hrefs that are no files of this machine stay as they are.
    """
    assets = values.get("assets")
    if not isinstance(assets, dict):
        return values
    return {**values, "assets": {key: _absolute(asset, folder) for key, asset in assets.items()}}


def _absolute(asset: Any, folder: Path) -> Any:
    if not isinstance(asset, dict):
        return asset
    found = dict(asset)
    for key in ("href", "file:local_path"):
        if isinstance(asset.get(key), str) and hrefs.is_local(asset[key]):
            found[key] = hrefs.resolve(asset[key], folder, str(folder))
    return found
