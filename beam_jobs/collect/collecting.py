"""Make the requests to Earth Engine for one place in one window; send none.

Input: places and listed acquisitions. Output: units, the chosen pair, its two pixel
requests, and the STAC items of its scenes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pystac
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from beam_jobs.collect.config import CollectConfig
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.earth_engine.listing import Acquisition
from beam_jobs.earth_engine.requests import PixelRequest
from beam_jobs.errors import DataError
from beam_jobs.places.place import Place, Window, patch_grid
from beam_jobs.scenes.grids import Bounds, Grid, centre_and_corners


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One place in one window; one pair is looked for in it."""

    place: Place
    window: Window

    @property
    def unit_id(self) -> str:
        """Name of the unit in the ledger."""
        return f"{self.place.place_id}/{self.window.start}_{self.window.end}"

    @property
    def stem(self) -> str:
        """Path of the unit's files without ending.

        A hash spreads the units over 4,096 folders, so that none holds millions of
        files.
        """
        folder = hashlib.sha256(self.place.place_id.encode()).hexdigest()[:3]
        days = f"{self.window.start}_{self.window.end}".replace("-", "")
        return f"scenes/{folder}/{self.place.place_id}_{days}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two scenes that were chosen for a unit."""

    s1: Acquisition
    s2: Acquisition

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pair:
        """Return the pair of a ledger's entry, as `to_dict` wrote it."""
        scenes = {sensor: dict(values[sensor]) for sensor in ("s1", "s2")}
        for scene in scenes.values():
            if scene["cloud_fraction"] is None:
                scene["cloud_fraction"] = float("nan")
        return cls(s1=Acquisition(**scenes["s1"]), s2=Acquisition(**scenes["s2"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a ledger's entry; NaN becomes None."""
        values = {"s1": asdict(self.s1), "s2": asdict(self.s2)}
        for scene in values.values():
            if math.isnan(scene["cloud_fraction"]):
                scene["cloud_fraction"] = None
        return values


def unit_of(entry: Mapping[str, Any]) -> Unit:
    """Return the unit of a ledger's entry that holds `place_fields`."""
    place_id, _, days = str(entry["unit"]).partition("/")
    start, _, end = days.partition("_")
    window = Window(start=start, end=end)
    place = Place(
        place_id=place_id,
        lon=entry["lon"],
        lat=entry["lat"],
        stratum=entry["stratum"],
        windows=(window,),
    )
    return Unit(place=place, window=window)


def place_fields(unit: Unit) -> dict[str, Any]:
    """Return the values of a place that a ledger's entry must hold.

    With them and the unit's id, the catalog can be written from the ledger alone.
    """
    return {"lon": unit.place.lon, "lat": unit.place.lat, "stratum": unit.place.stratum}


def units(places: Iterable[Place]) -> Iterator[Unit]:
    """Yield the units of places, in their order.

    Raises:
        DataError: a place has no windows.
    """
    for place in places:
        if not place.windows:
            raise DataError(
                f"place {place.place_id} has no time windows; "
                f"add them with `terrapair sample --set strategy=file`",
                "bad_place",
            )
        for window in place.windows:
            yield Unit(place=place, window=window)


def slice_of(unit_id: str, num_slices: int) -> int:
    """Return the slice of a job that a unit belongs to.

    A hash decides, so slices have about equal size and are the same in every run.
    """
    return int.from_bytes(hashlib.sha256(unit_id.encode()).digest()[:8], "big") % num_slices


def grid_of(unit: Unit, config: CollectConfig) -> Grid:
    """Return the pixel grid of a unit; both sensors share it."""
    return patch_grid(unit.place, config.size_px, config.pixel_size_m)


def listing_bounds(grid: Grid) -> Bounds:
    """Return the bounds of a grid in degrees, for `list_acquisitions`.

    xmax exceeds 180 if the patch crosses the antimeridian.
    """
    xmin, ymin, xmax, ymax = (round(value, 7) for value in _unwrapped(grid).bounds)
    return xmin, ymin, xmax, ymax


def choose(acquisitions: Iterable[Acquisition], config: CollectConfig) -> Pair:
    """Return the best pair of the acquisitions.

    Pairs of the preferred orbit come first, then the smallest time gap, then the least
    cloud, then the smaller ids. Every listed scene covers the whole patch, so overlap
    does not decide, as it does for catalogs in `judging/pairing.py`.

    Raises:
        DataError: there is no pair; the reason is no_s1, no_s2 or time_gap.
    """
    found = list(acquisitions)
    s1, s2 = ([scene for scene in found if scene.sensor == sensor] for sensor in ("s1", "s2"))
    if not s1:
        raise DataError(
            "no Sentinel-1 scene (IW, VV and VH) covers the place in the window", "no_s1"
        )
    if not s2:
        limit = f"max_scene_cloud_fraction is {config.earth_engine.max_scene_cloud_fraction:g}"
        raise DataError(f"no Sentinel-2 scene covers the place in the window; {limit}", "no_s2")
    pairs = [Pair(s1=one, s2=two) for one in s1 for two in s2]
    best = min(pairs, key=lambda pair: _rank(pair, config))
    limit_s = config.max_time_gap_hours * 3600.0
    if _gap_s(best) > limit_s:
        # No pair of the preferred orbit is close enough; the other orbit may have one.
        best = min(pairs, key=lambda pair: _rank(pair, config)[1:])
    if _gap_s(best) > limit_s:
        limit = f"max_time_gap_hours is {config.max_time_gap_hours:g}"
        raise DataError(
            f"the nearest two scenes are {_gap_s(best) / 3600.0:.1f} h apart; {limit}", "time_gap"
        )
    return best


def pixel_requests(pair: Pair, grid: Grid, config: CollectConfig) -> dict[Sensor, PixelRequest]:
    """Return the pixel request of each sensor on the grid.

    Sentinel-2 comes first, since its clouds decide whether radar is needed.
    """
    s2 = PixelRequest(
        sensor="s2",
        image_id=pair.s2.image_id,
        bands=config.bands_of_s2,
        cloud_score=config.earth_engine.cloud_score,
        label=config.earth_engine.label,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
    )
    s1 = PixelRequest(
        sensor="s1",
        image_id=pair.s1.image_id,
        bands=config.s1_bands,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
    )
    return {"s2": s2, "s1": s1}


def stac_item(
    acquisition: Acquisition,
    unit: Unit,
    *,
    config: CollectConfig,
    hrefs: Mapping[str, str],
    cloud_fraction: float | None = None,
) -> pystac.Item:
    """Return the STAC item of one scene of a unit.

    Its id consists of the Earth Engine image and the place.

    Args:
        acquisition: the scene.
        unit: place and window.
        config: bands and grid.
        hrefs: asset name (data, label, cloud_mask) -> href.
        cloud_fraction: cloud over the patch, 0-1, as measured; None = that of the whole
            scene.
    """
    grid = grid_of(unit, config)
    item = pystac.Item(
        id=f"{acquisition.image_id.rsplit('/', 1)[-1]}_{unit.place.place_id}",
        geometry=mapping(footprint(grid)),
        bbox=_bbox(grid),
        datetime=datetime.fromtimestamp(acquisition.acquired_at, timezone.utc),
        properties={
            **_properties(acquisition, config, cloud_fraction),
            "sat:orbit_state": acquisition.orbit_state,
            "proj:code": grid.crs,
            "proj:transform": list(grid.transform),
            "proj:shape": [grid.height, grid.width],
            "terrapair:place": unit.place.place_id,
            "terrapair:stratum": unit.place.stratum,
            "terrapair:image_id": acquisition.image_id,
        },
    )
    if acquisition.relative_orbit > 0:
        item.properties["sat:relative_orbit"] = acquisition.relative_orbit
    for name, href in hrefs.items():
        extra: dict[str, Any] = {}
        if name == "data":
            names = config.s1_bands if acquisition.sensor == "s1" else config.bands_of_s2
            extra["bands"] = [{"name": band} for band in names]
        if name == "label":
            extra |= {
                "terrapair:label_schema": config.earth_engine.label,
                "terrapair:label_nodata": IGNORE,
            }
        item.add_asset(
            name, pystac.Asset(href=href, media_type=pystac.MediaType.GEOTIFF, extra_fields=extra)
        )
    return item


def footprint(grid: Grid) -> Polygon | MultiPolygon:
    """Return the outline of a patch in lon/lat.

    A patch across the antimeridian gets one polygon on each side. Source: RFC 7946,
    3.1.9.
    """
    outline = _unwrapped(grid)
    if outline.bounds[2] <= 180.0:
        return outline
    west = outline.intersection(box(0.0, -90.0, 180.0, 90.0))
    east = translate(outline.intersection(box(180.0, -90.0, 540.0, 90.0)), xoff=-360.0)
    return MultiPolygon([west, east])


def _unwrapped(grid: Grid) -> Polygon:
    """Return the outline with longitudes that continue beyond 180."""
    lon, lat = (values[1:] for values in centre_and_corners(grid))
    if np.ptp(lon) > 180.0:
        lon = np.where(lon < 0, lon + 360.0, lon)
    # Seven decimals are a centimetre. Rounding gives the same text with every version
    # of PROJ.
    return Polygon(
        [(round(float(x), 7), round(float(y), 7)) for x, y in zip(lon, lat, strict=True)]
    )


def _bbox(grid: Grid) -> list[float]:
    xmin, ymin, xmax, ymax = _unwrapped(grid).bounds
    return [xmin, ymin, xmax - 360.0 if xmax > 180.0 else xmax, ymax]


def _properties(
    acquisition: Acquisition, config: CollectConfig, cloud_fraction: float | None
) -> dict[str, Any]:
    if acquisition.sensor == "s1":
        name = acquisition.image_id.rsplit("/", 1)[-1]
        return {
            "constellation": "sentinel-1",
            "platform": f"sentinel-{name[1:3].lower()}",
            "sar:instrument_mode": "IW",
            "sar:polarizations": list(config.s1_bands),
        }
    cloud = acquisition.cloud_fraction if cloud_fraction is None else cloud_fraction
    # The HARMONIZED collections have no offset of 2022 any more.
    properties: dict[str, Any] = {
        "constellation": "sentinel-2",
        "processing:level": config.earth_engine.s2_processing_level,
        "terrapair:dn_offset": 0,
    }
    return (
        properties
        if math.isnan(cloud)
        else {**properties, "eo:cloud_cover": round(100.0 * cloud, 2)}
    )


def _gap_s(pair: Pair) -> int:
    return abs(pair.s2.acquired_at - pair.s1.acquired_at)


def _rank(pair: Pair, config: CollectConfig) -> tuple[bool, int, float, str, str]:
    is_other_orbit = config.orbit_preference not in ("any", pair.s1.orbit_state)
    cloud = pair.s2.cloud_fraction
    # NaN compares as neither less nor more, so unknown cloud counts as full cloud.
    known_cloud = 1.0 if math.isnan(cloud) else cloud
    return is_other_orbit, _gap_s(pair), known_cloud, pair.s2.image_id, pair.s1.image_id
