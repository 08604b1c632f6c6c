"""Listing: the scenes of both sensors for a place and a time, in one request.

Input: bounds and dates, after `connection.connect`. Output: `Acquisition`s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beam_jobs.config import EarthEngineConfig
from beam_jobs.contracts.bands import OrbitState, Sensor
from beam_jobs.earth_engine.client import ee
from beam_jobs.earth_engine.connection import translated
from beam_jobs.scenes.grids import Bounds

S1_COLLECTION = "COPERNICUS/S1_GRD"
S2_COLLECTIONS = {"L1C": "COPERNICUS/S2_HARMONIZED", "L2A": "COPERNICUS/S2_SR_HARMONIZED"}
"""Processing level -> collection. In harmonized collections digital numbers have no
offset, whatever the processing baseline."""

_ORBIT_STATES: dict[str, OrbitState] = {"ASCENDING": "ascending", "DESCENDING": "descending"}


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One scene of a place.

    Attributes:
        image_id: full asset id, as
            COPERNICUS/S2_SR_HARMONIZED/20230105T103421_20230105T103417_T31UFS.
        sensor: s1 or s2.
        acquired_at: seconds since 1970, UTC.
        orbit_state: ascending, descending or unknown.
        relative_orbit: track number; -1 unknown.
        cloud_fraction: 0-1 of the whole scene; NaN for radar and where unknown.
    """

    image_id: str
    sensor: Sensor
    acquired_at: int
    orbit_state: OrbitState
    relative_orbit: int
    cloud_fraction: float


def list_acquisitions(
    bounds: Bounds, start: datetime, end: datetime, config: EarthEngineConfig
) -> list[Acquisition]:
    """Return all scenes whose footprint holds `bounds`, by sensor and time.

    Sentinel-1 scenes are in IW mode with VV and VH only.

    Args:
        bounds: xmin, ymin, xmax, ymax in degrees of longitude and latitude; xmax may
            exceed 180 across the antimeridian.
        start: UTC, included.
        end: UTC, excluded.
        config: collections, and the cloudiest scene that is wanted.

    Raises:
        EarthEngineError: see `RequestReason`.
    """
    with translated(f"listing scenes of {', '.join(f'{value:g}' for value in bounds)}"):
        region = ee.Geometry.BBox(*bounds)
        scenes = _s1_scenes(region, start, end).merge(_s2_scenes(region, start, end, config))
        answer = ee.data.computeValue(scenes)
    found = [_acquisition(feature["properties"]) for feature in answer["features"]]
    return sorted(found, key=lambda scene: (scene.sensor, scene.acquired_at, scene.image_id))


# One feature per scene. With aggregate_array, each column would drop its missing
# values, and the columns would no longer match.
def _s1_scenes(region: ee.Geometry, start: datetime, end: datetime) -> ee.FeatureCollection:
    scenes = (
        _covering(S1_COLLECTION, region, start, end)
        .filter(ee.Filter.eq("instrumentMode", "IW"))
        .filter(ee.Filter.listContains("transmitterReceiverPolarisation", "VV"))
        .filter(ee.Filter.listContains("transmitterReceiverPolarisation", "VH"))
    )
    names = {"orbit_state": "orbitProperties_pass", "relative_orbit": "relativeOrbitNumber_start"}
    return _features(scenes, S1_COLLECTION, names)


def _s2_scenes(
    region: ee.Geometry, start: datetime, end: datetime, config: EarthEngineConfig
) -> ee.FeatureCollection:
    collection = S2_COLLECTIONS[config.s2_processing_level]
    most_cloud = 100.0 * config.max_scene_cloud_fraction
    scenes = _covering(collection, region, start, end).filter(
        ee.Filter.lte("CLOUDY_PIXEL_PERCENTAGE", most_cloud)
    )
    names = {
        "orbit_state": "SENSING_ORBIT_DIRECTION",
        "relative_orbit": "SENSING_ORBIT_NUMBER",
        "cloud_percent": "CLOUDY_PIXEL_PERCENTAGE",
    }
    return _features(scenes, collection, names)


def _covering(
    collection: str, region: ee.Geometry, start: datetime, end: datetime
) -> ee.ImageCollection:
    # filterBounds uses the server's spatial index. Only the scenes that it leaves are
    # tested for holding the whole region.
    within = ee.ImageCollection(collection).filterDate(start, end).filterBounds(region)
    return within.filter(ee.Filter.contains(leftField=".geo", rightValue=region))


def _features(
    scenes: ee.ImageCollection, collection: str, names: Mapping[str, str]
) -> ee.FeatureCollection:
    def feature(image: ee.Image) -> ee.Feature:
        values = {name: image.get(property_name) for name, property_name in names.items()}
        values |= {"index": image.get("system:index"), "time_start": image.get("system:time_start")}
        return ee.Feature(None, {"collection": collection, **values})

    return ee.FeatureCollection(scenes.map(feature))


def _acquisition(properties: Mapping[str, Any]) -> Acquisition:
    collection = properties["collection"]
    cloud_percent = properties.get("cloud_percent")
    return Acquisition(
        image_id=f"{collection}/{properties['index']}",
        sensor="s1" if collection == S1_COLLECTION else "s2",
        acquired_at=int(properties["time_start"]) // 1000,
        orbit_state=_ORBIT_STATES.get(str(properties.get("orbit_state")).upper(), "unknown"),
        relative_orbit=int(properties.get("relative_orbit") or -1),
        cloud_fraction=math.nan if cloud_percent is None else float(cloud_percent) / 100.0,
    )
