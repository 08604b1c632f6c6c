"""Catalogs: files of STAC items, one per line, that list the scenes of a build.

Input: a catalog file, a public data set's folder, or the simulator's config. Output:
the path of a catalog. Catalogs are read, written and found here.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pystac

from beam_jobs.catalogs import layouts, stac_items
from beam_jobs.config import CatalogConfig
from beam_jobs.contracts import locations
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.reasons import Reason, is_reason
from beam_jobs.errors import DataError
from beam_jobs.scenes import hrefs
from beam_jobs.scenes.scene import REFUSED
from beam_jobs.simulation.simulate import simulate
from beam_jobs.storage import files

CATALOG_NAME = "items.ndjson"


def read_items(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the items of a catalog: one STAC item per line, or one ItemCollection.

    A folder, or a STAC Catalog or Collection in a file, stands for all items in and
    under its folder.

    Raises:
        DataError: the file is missing, empty, not JSON, or holds something that is not
            an item; or the folder has no item.
    """
    catalog = locations.parse(path)
    if isinstance(catalog, Path) and catalog.is_dir():
        yield from _in_folder(catalog)
        return
    try:
        with files.open_text(str(catalog)) as lines:
            number, first = next(
                ((n, line) for n, line in enumerate(lines, start=1) if line.strip()), (0, "")
            )
            if not first:
                raise DataError(f"{path}: the catalog is empty", "empty_catalog")
            # An indented ItemCollection spans many lines.
            head = json.loads(first if _is_whole_json(first) else first + lines.read())
            if isinstance(head, dict) and head.get("type") == "FeatureCollection":
                yield from _features(head, catalog)
                return
            is_index = isinstance(head, dict) and head.get("type") in ("Catalog", "Collection")
            if is_index and isinstance(catalog, Path):
                yield from _in_folder(catalog.parent)
                return
            yield _as_item(head, catalog, number)
            for line_number, line in enumerate(lines, start=number + 1):
                if line.strip():
                    yield _parse_line(line, catalog, line_number)
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the catalog: {error.strerror or error}", "missing_file"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the catalog is not JSON: {error}", "bad_item") from error


def write_items(items: Iterable[pystac.Item], path: str | os.PathLike[str]) -> Location:
    """Write a catalog, one item per line; the file appears only when it is complete."""
    with locations.staged(path) as partial:
        with partial.open("w") as lines:
            for item in items:
                lines.write(
                    json.dumps(item.to_dict(include_self_link=False), sort_keys=True) + "\n"
                )
        if not partial.stat().st_size:
            raise DataError(f"{path}: not written, since no scene was found", "empty_catalog")
    return locations.parse(path)


def check_usable(catalogs: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse catalogs of which every scene is refused.

    Only as many items are read as are needed to find a usable one.

    Raises:
        DataError: all scenes are refused. The message counts the reasons and holds the
            detail of the first scene; the reason is the most frequent one.
    """
    reasons: Counter[Reason] = Counter()
    first = ""
    for item in (item for path in catalogs for item in read_items(path)):
        refused = (item.get("properties") or {}).get(REFUSED)
        if not isinstance(refused, dict):
            return
        reason = str(refused.get("reason"))
        reasons[reason if is_reason(reason) else "bad_item"] += 1
        first = first or str(refused.get("detail", ""))
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise DataError(
            f"{', '.join(map(str, catalogs))}: every scene is refused ({counts}); "
            f"the first: {first}",
            reasons.most_common(1)[0][0],
        )


def resolve_catalog(
    config: CatalogConfig, work_dir: str | Path, on_scene: Callable[[int, int], None] | None = None
) -> Location:
    """Return the catalog file of one source, after simulating or scanning if needed.

    Args:
        config: the source.
        work_dir: where simulated scenes and catalogs of folders are written; for these,
            it may be a URI.
        on_scene: called with (done, total) while scenes are simulated.
    """
    if config.layout == "stac":
        return locations.parse(config.path)
    if config.layout == "simulated":
        if config.simulate is None:
            raise ValueError("layout 'simulated' needs the simulate settings")
        folder = Path(config.path) if config.path else Path(work_dir, "simulated")
        return simulate(config.simulate, folder, on_scene)
    items = layouts.read(
        config.layout, Path(config.path).resolve(), tuple(map(Path, config.split_lists))
    )
    return write_items(items, locations.parse(work_dir) / config.layout / CATALOG_NAME)


def discover(data_dir: str | Path) -> tuple[CatalogConfig, ...]:
    """Return the sources in a folder of real data.

    They are sub-folders in a public data set's layout, folders of STAC items, and
    catalog files. Items below a folder of items belong to it, and so do all sub-folders
    with files that a catalog in `data_dir` lists.

    Raises:
        DataError: the folder holds nothing that terrapair can read.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder", "missing_file")
    found = []
    listed = _listed_folders(data_dir / CATALOG_NAME)
    for folder in (data_dir, *sorted(path for path in data_dir.iterdir() if path.is_dir())):
        if Path(os.path.abspath(folder)) in listed:
            continue
        if (folder / CATALOG_NAME).exists():
            found.append(CatalogConfig(layout="stac", path=str(folder / CATALOG_NAME)))
            continue
        layout = layouts.detect(folder)
        # The items of the whole folder are listed already.
        is_covered = layout == "stac_items" and (
            (data_dir / CATALOG_NAME).exists()
            or CatalogConfig(layout="stac_items", path=str(data_dir)) in found
        )
        if layout is not None and not is_covered:
            found.append(CatalogConfig(layout=layout, path=str(folder)))
    if not found:
        raise DataError(
            f"{data_dir}: neither {CATALOG_NAME} nor a folder in a known layout "
            f"({', '.join(layouts.READERS)}) lies there",
            "missing_file",
        )
    return tuple(found)


def _listed_folders(path: Path) -> set[Path]:
    """Return the folders beside a catalog whose files it lists; none without one."""
    if not path.exists():
        return set()
    root = Path(os.path.abspath(path.parent))
    assets = (asset for item in read_items(path) for asset in (item.get("assets") or {}).values())
    found = set()
    for asset in assets:
        # The build rejects a scene with an href that is refused.
        with suppress(DataError, AttributeError, TypeError):
            file = Path(os.path.abspath(hrefs.resolve(asset.get("href"), root, str(path))))
            if root in file.parents:
                found.add(root / file.relative_to(root).parts[0])
    return found


def _in_folder(folder: Path) -> Iterator[dict[str, Any]]:
    is_empty = True
    for item in stac_items.read(folder.resolve()):
        is_empty = False
        yield item.to_dict(include_self_link=False)
    if is_empty:
        raise DataError(
            f"{folder}: holds no STAC item; make a catalog of it with `terrapair catalog`",
            "empty_catalog",
        )


def _is_whole_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _features(collection: dict[str, Any], path: Location) -> list[dict[str, Any]]:
    features = collection.get("features")
    if not isinstance(features, list) or not all(isinstance(item, dict) for item in features):
        raise DataError(
            f"{path}: an ItemCollection needs a list of items as its features", "bad_item"
        )
    return features


def _parse_line(line: str, path: Location, number: int) -> dict[str, Any]:
    try:
        return _as_item(json.loads(line), path, number)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {number} is not JSON: {error}", "bad_item") from error


def _as_item(value: Any, path: Location, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: line {number} is not a STAC item but a {type(value).__name__}", "bad_item"
        )
    return value
