"""Places: points on Earth with time windows, and the files that hold them.

Input: GeoJSON or CSV. Output: checked `Place`s, the pixel grid of each, and
`places.geojson`, which `plan`, `fetch` and `export` read.
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
"""Latitudes in which UTM zones are defined. Source: NGA.SIG.0012, The Universal Grids,
2014."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of time in ISO days, UTC.

    Attributes:
        start: first day.
        end: day after the last one.
    """

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
    """A point on Earth and the time windows in which it is looked at.

    Attributes:
        place_id: stable name that can be part of a file name.
        lon: degrees, -180 to 180.
        lat: degrees, within the limits of UTM.
        source: how it was drawn: a strategy, or "file" for a user's list.
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
                f"a place's id must consist of letters, digits, '.', '_' and '-', "
                f"got {self.place_id!r}"
            )
        if not -180 <= self.lon <= 180:
            raise ValueError(f"lon must be within -180 to 180, got {self.lon:g}")
        if not UTM_LATITUDES[0] <= self.lat <= UTM_LATITUDES[1]:
            raise ValueError(
                f"lat must be within {UTM_LATITUDES[0]:g} to {UTM_LATITUDES[1]:g}, got {self.lat:g}"
            )
        # If windows overlapped, one image could be the best of both, and its patch
        # would come twice.
        for earlier, later in itertools.pairwise(
            sorted(self.windows, key=lambda window: window.start)
        ):
            if later.start < earlier.end:
                raise ValueError(f"windows must not overlap, got {earlier} and {later}")


def place_id(lon: float, lat: float) -> str:
    """Return the name of a place, made of its position to 5 decimals (1.1 m).

    The same position has the same name in every sample.
    """
    return f"{'n' if lat >= 0 else 's'}{abs(lat):08.5f}{'e' if lon >= 0 else 'w'}{abs(lon):09.5f}"


def make_windows(config: WindowsConfig) -> tuple[Window, ...]:
    """Return the windows of the config in order of time."""
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
    """Return the grid of a patch centred on the place, in the place's own UTM zone.

    The corners lie on whole pixels of the zone. Pixels of 10 m are therefore those of
    the Sentinel-2 archive, wherever its tile is in the same zone.
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
    """Write the places as a GeoJSON FeatureCollection and return their number.

    There is one feature a line. The file gets its name only once it is complete.

    Args:
        places: places to write.
        path: file to write.
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
    """Yield the places of a GeoJSON or CSV file, path or URI.

    Files that `sample` wrote are read line by line, so they need not fit into memory.

    Raises:
        DataError: the file cannot be read, or a place breaks a rule; the message holds
            its number.
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
                    f"{where}: the place {place.place_id} comes twice; remove one",
                    "duplicate_place",
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
            raise DataError(
                f"{path}: the file is cut short; write it again with `terrapair sample`",
                "bad_place",
            )
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
        # Spreadsheets write a byte order mark at the start of a file.
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
    """Return the place of a CSV row or of a feature.

    The values must hold lon and lat. They may hold id, source, stratum, and windows or
    start and end.
    """
    try:
        lon, lat = (_number(name, values.get(name)) for name in ("lon", "lat"))
        windows = values.get("windows")
        if windows is None:
            windows = (
                [[values["start"], values["end"]]] if "start" in values and "end" in values else []
            )
        # 5 decimals are 1.1 m. Round first: the id and the spacing must see the values
        # that the file will hold.
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
