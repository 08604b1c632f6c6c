"""Places: where on Earth pairs are collected, and in which time windows; the file `places.geojson` and lists of users.

Input: GeoJSON or CSV. Output: checked `Place`s, and the GeoJSON that `plan`, `fetch`
and `export` read. `sampling.py` draws places; this module only knows what a place is
and how it is written down.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from beam_jobs.errors import DataError
from beam_jobs.places.config import WindowsConfig
from beam_jobs.scenes.grids import Grid, from_lonlat, utm_crs
from beam_jobs.storage import files

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_HEAD = '{"type": "FeatureCollection", "terrapair:sampling": %s, "features": [\n'
UTM_LATITUDES = (-80.0, 84.0)
"""Where UTM zones are defined. Source: NGA.SIG.0012, The Universal Grids, 2014."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of time: first day included, last day excluded, ISO, UTC."""

    start: str
    end: str

    def __post_init__(self) -> None:
        if not date.fromisoformat(self.start) < date.fromisoformat(self.end):
            raise ValueError(f"a window must end after it starts, got {self.start} to {self.end}")

    @property
    def times(self) -> tuple[datetime, datetime]:
        """Start and end, UTC."""
        start, end = (
            datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
            for day in (self.start, self.end)
        )
        return start, end


@dataclass(frozen=True, kw_only=True)
class Place:
    """A point on Earth and when it is looked at.

    Attributes:
        place_id: stable name, fit for file names.
        lon: degrees, -180 to 180.
        lat: degrees, within the limits of UTM.
        source: how it was drawn: a strategy, or the user's file.
        stratum: land cover class or city it was drawn for; "" = none.
        windows: one pair is looked for in each.
    """

    place_id: str
    lon: float
    lat: float
    source: str = "file"
    stratum: str = ""
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.place_id):
            raise ValueError(
                f"a place's id must be of letters, digits, '.', '_', '-', got {self.place_id!r}"
            )
        if not -180 <= self.lon <= 180:
            raise ValueError(f"lon must be within -180 to 180, got {self.lon:g}")
        if not UTM_LATITUDES[0] <= self.lat <= UTM_LATITUDES[1]:
            raise ValueError(
                f"lat must be within {UTM_LATITUDES[0]:g} to {UTM_LATITUDES[1]:g}, got {self.lat:g}"
            )
        # Else one image could be the best of two windows, and its patch come twice.
        for earlier, later in itertools.pairwise(
            sorted(self.windows, key=lambda window: window.start)
        ):
            if later.start < earlier.end:
                raise ValueError(f"windows must not overlap, got {earlier} and {later}")


def place_id(lon: float, lat: float) -> str:
    """Name of a place by where it is, to 5 decimals (1.1 m): the same place has the same name in every sample."""
    return f"{'n' if lat >= 0 else 's'}{abs(lat):08.5f}{'e' if lon >= 0 else 'w'}{abs(lon):09.5f}"


def make_windows(config: WindowsConfig) -> tuple[Window, ...]:
    """The windows of the config, in order of time."""
    half = timedelta(days=config.window_days) / 2
    if config.start:
        start = datetime.fromisoformat(str(config.start))
        part = (datetime.fromisoformat(str(config.end)) - start) / config.num_windows
        middles = [start + (index + 0.5) * part for index in range(config.num_windows)]
    else:
        middles = [datetime.fromisoformat(day) for day in sorted(map(str, config.dates))]
    firsts = [(middle - half).date() for middle in middles]
    days = timedelta(days=config.window_days)
    return tuple(
        Window(start=first.isoformat(), end=(first + days).isoformat()) for first in firsts
    )


def patch_grid(place: Place, size_px: int, pixel_size_m: float) -> Grid:
    """The grid of a patch centred on the place, in the place's own UTM zone, corners on whole pixels of the zone.

    So pixels of 10 m are those of the Sentinel-2 archive wherever its tile is of the
    same zone.
    """
    crs = utm_crs(place.lon, place.lat)
    x, y = from_lonlat(crs, place.lon, place.lat)
    half = size_px * pixel_size_m / 2
    xmin, ymax = (
        round((x - half) / pixel_size_m) * pixel_size_m,
        round((y + half) / pixel_size_m) * pixel_size_m,
    )
    transform = (pixel_size_m, 0.0, xmin, 0.0, -pixel_size_m, ymax)
    return Grid(crs=crs, transform=transform, height=size_px, width=size_px)


def write_places(places: Iterable[Place], path: Path, sampling: Mapping[str, Any]) -> int:
    """Writes the FeatureCollection, one feature a line, under its name only once it is whole; returns their number.

    Args:
        places: to write.
        path: of the file.
        sampling: resolved config, kept in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    number = 0
    with partial.open("w") as lines:
        lines.write(_HEAD % json.dumps(sampling, sort_keys=True))
        for number, place in enumerate(places, start=1):
            lines.write((",\n" if number > 1 else "") + json.dumps(_to_feature(place)))
        lines.write("\n]}\n")
    os.replace(partial, path)
    return number


def read_places(path: str | os.PathLike[str]) -> Iterator[Place]:
    """The places of a GeoJSON or CSV file, path or URI, one at a time; files that `sample` wrote are not held in memory.

    Raises:
        DataError: the file cannot be read, or a place breaks a rule; with its number.
    """
    path = os.fspath(path)
    is_csv = path.lower().endswith(".csv")
    records = _csv_records(path) if is_csv else _features(path)
    seen: set[str] = set()
    try:
        for number, values in records:
            where = f"{path}: {'line' if is_csv else 'feature'} {number}"
            place = _from_values(values, where) if is_csv else _from_feature(values, where)
            if place.place_id in seen:
                raise DataError(
                    f"{where}: the place {place.place_id} comes twice", "duplicate_place"
                )
            seen.add(place.place_id)
            yield place
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the places: {error.strerror or error}", "missing_file"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not {'CSV' if is_csv else 'GeoJSON'}: {error}", "bad_place"
        ) from error
    if not seen:
        raise DataError(f"{path}: holds no place", "no_place")


def _to_feature(place: Place) -> dict[str, Any]:
    properties = {
        "source": place.source,
        "stratum": place.stratum,
        "windows": [[window.start, window.end] for window in place.windows],
    }
    geometry = {"type": "Point", "coordinates": [place.lon, place.lat]}
    return {"type": "Feature", "id": place.place_id, "geometry": geometry, "properties": properties}


def _features(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with files.open_text(path) as lines:
        head = lines.readline()
        if head.rstrip().endswith('"features": ['):
            for number, line in enumerate(lines, start=1):
                if line.strip() == "]}":
                    return
                yield number, json.loads(line.rstrip().rstrip(","))
            raise DataError(f"{path}: the file is cut short", "bad_place")
        found = json.loads(head + lines.read())
    features = found.get("features") if isinstance(found, dict) else None
    if not isinstance(features, list):
        raise DataError(f"{path}: must be a GeoJSON FeatureCollection", "bad_place")
    yield from enumerate(features, start=1)


def _from_feature(feature: Any, where: str) -> Place:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    if not isinstance(geometry, dict) or geometry.get("type") != "Point":
        raise DataError(
            f"{where}: must be a Point, got {(geometry or {}).get('type', type(feature).__name__)}",
            "bad_place",
        )
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or len(coordinates) < 2:
        raise DataError(f"{where}: needs coordinates [lon, lat], got {coordinates!r}", "bad_place")
    properties = feature.get("properties") or {}
    found_id = feature.get("id", properties.get("id", ""))
    values = {**properties, "lon": coordinates[0], "lat": coordinates[1], "id": found_id}
    return _from_values(values, where)


def _csv_records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with files.open_text(path) as lines:
        # Spreadsheets begin a file with a byte order mark.
        first = next(lines, "").removeprefix("\ufeff")
        reader = csv.DictReader(itertools.chain([first], lines), skipinitialspace=True)
        columns = reader.fieldnames or []
        missing = [name for name in ("lon", "lat") if name not in columns]
        if missing:
            raise DataError(
                f"{path}: lacks the columns {missing}; it has {list(columns)}", "bad_place"
            )
        for row in reader:
            yield (
                reader.line_num,
                {name: value for name, value in row.items() if value not in (None, "")},
            )


def _from_values(values: Mapping[str, Any], where: str) -> Place:
    """The place of a CSV row or a feature: lon, lat; optional are id, source, stratum, and windows or start and end."""
    try:
        lon, lat = (_number(name, values.get(name)) for name in ("lon", "lat"))
        windows = values.get("windows")
        if windows is None:
            windows = (
                [[values["start"], values["end"]]] if "start" in values and "end" in values else []
            )
        # 5 decimals are 1.1 m; the id and the spacing must see what the file will hold.
        lon, lat = round(lon, 5), round(lat, 5)
        return Place(
            place_id=str(values.get("id") or place_id(lon, lat)),
            lon=lon,
            lat=lat,
            source=str(values.get("source", "file")),
            stratum=str(values.get("stratum", "")),
            windows=tuple(Window(start=str(start), end=str(end)) for start, end in windows),
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}", "bad_place") from error


def _number(name: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return found
