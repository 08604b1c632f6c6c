"""Hold-outs: events and regions that always go to eval or test.

Input: HoldoutConfigs, properties of items, footprints of patches. Output: the hold-outs
that a scene or patch falls under. A build first stores the hashes of the polygon files
in its config (`with_hashes`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from beam_jobs.config import HoldoutConfig, SplitConfig
from beam_jobs.errors import DataError
from beam_jobs.storage import files


def of_item(properties: Mapping[str, Any], config: SplitConfig) -> frozenset[str]:
    """Return the names of the hold-outs whose property a STAC item has."""
    return frozenset(
        holdout.name
        for holdout in config.holdouts
        if str(properties.get(holdout.property)) in holdout.values
    )


def with_hashes(config: SplitConfig) -> SplitConfig:
    """Return the config with the hash of each polygon file, after checking the files.

    Raises:
        DataError: a file is missing or holds no polygon.
    """
    found = []
    for holdout in config.holdouts:
        if holdout.geojson:
            digest = hashlib.sha256(_read(holdout.geojson)).hexdigest()
            _polygons(holdout.geojson, digest)
            holdout = dataclasses.replace(holdout, geojson_sha256=digest)
        found.append(holdout)
    return dataclasses.replace(config, holdouts=tuple(found))


def region(holdout: HoldoutConfig) -> BaseGeometry:
    """Return the union of a hold-out's polygons, in lon/lat degrees.

    Raises:
        DataError: the file is missing, holds no polygon, or has changed since the build
            began.
    """
    return _polygons(holdout.geojson, holdout.geojson_sha256)


@lru_cache(maxsize=64)
def _polygons(path: str, digest: str) -> BaseGeometry:
    raw = _read(path)
    if digest and hashlib.sha256(raw).hexdigest() != digest:
        raise DataError(
            f"{path}: the polygons changed while they were used: start the build again",
            "bad_holdout",
        )
    try:
        document = json.loads(raw)
        features = document.get("features", [document])
        shapes = [shape(feature.get("geometry", feature)) for feature in features]
    except (
        shapely.errors.ShapelyError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{path}: not GeoJSON: {' '.join(str(error).split())}", "bad_holdout"
        ) from error
    kinds = sorted(
        {one.geom_type for one in shapes if one.geom_type not in ("Polygon", "MultiPolygon")}
    )
    if kinds or not shapes or any(one.is_empty for one in shapes):
        raise DataError(
            f"{path}: a hold-out needs polygons, got {', '.join(kinds) or 'none'}", "bad_holdout"
        )
    xmin, ymin, xmax, ymax = shapely.total_bounds(shapes)
    if not (xmin >= -180 and xmax <= 180 and ymin >= -90 and ymax <= 90):
        raise DataError(
            f"{path}: polygons must be in degrees, got {xmin:g}..{xmax:g}, {ymin:g}..{ymax:g}",
            "bad_holdout",
        )
    # Polygons drawn by hand may cross themselves, and the union of invalid polygons
    # raises.
    union = shapely.union_all(shapely.make_valid(shapes))
    # Every patch is tested against it, and it may be the border of a whole country.
    shapely.prepare(union)
    return union


def _read(path: str) -> bytes:
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the polygons: {error.strerror}", "missing_file"
        ) from error
