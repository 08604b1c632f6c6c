"""Scenes: a raster or a STAC item on disk, read as `terrapair predict` reads it.

Input: a path. Output: a MapTask, whose pixels `beam_jobs.predict.parts.reader` reads.
Units, offsets, no data and refusals are those of the readers of the data jobs, and so
is the code; see docs/adr/0029-a-published-model-reads-scenes.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from beam_jobs.catalogs import items
from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import ProcessingLevel, Sensor
from beam_jobs.errors import DataError
from beam_jobs.predict import parts
from beam_jobs.predict.parts import MapTask
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import inspection
from beam_jobs.scenes.band_names import band_of
from beam_jobs.scenes.products import constellation_of
from beam_jobs.scenes.scene import SENSOR_OF_CONSTELLATION, Scene, absent_partner, from_item

_CATALOGS = (".json", ".geojson", ".ndjson")
_NO_TIME = datetime.fromtimestamp(0, timezone.utc)
"""Time of a raster without an item. No pixel depends on it."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The pixels that a model needs.

    Attributes:
        bands: sensor -> names of its bands.
        s2_processing_level: of the Sentinel-2 pixels.
        pixel_size_m: of the grid.
        takes_one_of_two: whether one of two sensors may be absent.
    """

    bands: Mapping[Sensor, tuple[str, ...]]
    s2_processing_level: ProcessingLevel
    pixel_size_m: float
    takes_one_of_two: bool = False


def open_scenes(paths: Mapping[Sensor, str | os.PathLike[str]], wanted: Wanted) -> MapTask:
    """Return the scene of each sensor, inspected, and the grid of what they share.

    Args:
        paths: by sensor: a raster whose band descriptions name its bands, a STAC item,
            or a catalog of one scene per sensor.
        wanted: what the model needs.

    Raises:
        DataError: there is no scene or several, a rule of the readers is broken, the
            product is of another level, or the scenes share no pixel.
    """
    found: dict[Sensor, Scene] = {}
    for sensor, names in wanted.bands.items():
        if sensor in paths and (scene := _scene(os.fspath(paths[sensor]), sensor, wanted)):
            _check_level(scene, wanted.s2_processing_level)
            found[sensor] = inspection.inspect(scene, names)
    missing = [sensor for sensor in wanted.bands if sensor not in found]
    if missing and not (wanted.takes_one_of_two and found):
        files = ", ".join(sorted({os.fspath(path) for path in paths.values()}))
        bands = ", ".join(name for sensor in missing for name in wanted.bands[sensor])
        raise DataError(
            f"{files}: holds no scene of {' and '.join(missing)} with the bands {bands}: name a "
            "GeoTIFF whose band descriptions are these names, or a STAC item",
            "no_scene",
        )
    for sensor in missing:
        found[sensor] = absent_partner(next(iter(found.values())))
    ordered = {sensor: found[sensor] for sensor in wanted.bands}
    task = parts.task_of(ordered, wanted.pixel_size_m)
    if task is None:
        raise DataError(
            f"{' and '.join(scene.scene_id for scene in ordered.values())}: share no pixel",
            "too_small",
        )
    return task


def _scene(path: str, sensor: Sensor, wanted: Wanted) -> Scene | None:
    """Return the only scene of a sensor in a file, None if there is none.

    Raises:
        DataError: it holds several, or cannot be read.
    """
    location = locations.parse(path)
    is_catalog = path.endswith(_CATALOGS) or (isinstance(location, Path) and location.is_dir())
    if is_catalog:
        # Catalogs may lie on stores, which are opened by Beam. A raster needs no Beam.
        from beam_jobs.catalogs import catalog

        listed = catalog.read_items(path)
    else:
        listed = _items_of_raster(path, sensor, wanted)
    scenes = [values for values in listed if _sensor_of(values) == sensor]
    if len(scenes) > 1:
        raise DataError(
            f"{path}: must hold one scene of {sensor}, got {len(scenes)}: name one of its items, "
            "or make maps of all by `terrapair predict`"
        )
    return from_item(scenes[0], location) if scenes else None


def _sensor_of(values: Mapping[str, Any]) -> Sensor | None:
    return SENSOR_OF_CONSTELLATION.get(constellation_of(values.get("properties") or {}))


def _items_of_raster(path: str, sensor: Sensor, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Yield the STAC item of a raster, if its descriptions name bands of the sensor."""
    with open_raster(path) as dataset:
        numbered = enumerate(dataset.descriptions, start=1)
        found = {band_of(sensor, name): index for index, name in numbered}
    places = {name: index for name, index in found.items() if name is not None}
    if not places:
        return
    # Only level 1C has the cirrus band. A file says no more about its level.
    level: ProcessingLevel = "L1C" if "B10" in places else wanted.s2_processing_level
    of_sensor = items.radar(None, tuple(places)) if sensor == "s1" else items.optical(level, None)
    location = locations.parse(path)
    href = os.fspath(location.absolute() if isinstance(location, Path) else location)
    item = items.item(
        Path(path).stem, href, _NO_TIME, of_sensor, {"data": items.asset(href, places)}
    )
    yield item.to_dict(include_self_link=False, transform_hrefs=False)


def _check_level(scene: Scene, level: ProcessingLevel) -> None:
    if scene.sensor == "s2" and scene.processing_level != level:
        raise DataError(
            f"{scene.scene_id}: must be {level}, as the model was trained on, got "
            f"{scene.processing_level}",
            "other_processing_level",
        )
