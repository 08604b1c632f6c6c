"""Settings of `terrapair sample`: where places are drawn, and their time windows.

Input: YAML or `--set` options. Output: dataclasses that are checked at construction.
The settings of `plan`, `fetch` and `export` are in `collect/config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from beam_jobs.contracts.labels import get_schema

Day = str | date
"""ISO text. YAML reads an unquoted 2021-03-20 as a date; the config turns it into text.
"""
Strategy = Literal["land", "land_cover", "cities", "file"]


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """Time windows of every place; one pair is looked for in each.

    Attributes:
        dates: middles of the windows, ISO days. Default: the four seasons of the year
            of WorldCover 2021, as SSL4EO-S12 takes them (docs/earth_engine.md). Not
            used with `start`.
        start: first day of a period that is cut into `num_windows` equal parts; ""
            means that `dates` is used.
        end: day after the last day of the period.
        num_windows: parts of the period.
        window_days: length of a window, at the middle of its part or around its date.
            Default 30: SSL4EO-S12's 15 days to both sides. Source:
            https://github.com/zhu-xlab/SSL4EO-S12.
    """

    dates: tuple[Day, ...] = ("2020-12-21", "2021-03-20", "2021-06-21", "2021-09-22")
    start: Day = ""
    end: Day = ""
    num_windows: int = 4
    window_days: int = 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "dates", tuple(str(day) for day in self.dates))
        object.__setattr__(self, "start", str(self.start))
        object.__setattr__(self, "end", str(self.end))
        if self.window_days < 1:
            raise ValueError(f"window_days must be at least 1, got {self.window_days}")
        if bool(self.start) != bool(self.end):
            raise ValueError(
                f"give both start and end or neither, got start {self.start!r} and end {self.end!r}"
            )
        for name, text in (
            *(("dates", text) for text in self.dates),
            ("start", self.start),
            ("end", self.end),
        ):
            if text:
                check_day(name, str(text))
        if not self.start:
            if not self.dates or len(set(self.dates)) != len(self.dates):
                raise ValueError(
                    f"dates must hold at least one day and no day twice, got {self.dates}"
                )
            return
        num_days = (date.fromisoformat(str(self.end)) - date.fromisoformat(str(self.start))).days
        if self.num_windows < 1:
            raise ValueError(f"num_windows must be at least 1, got {self.num_windows}")
        if num_days < self.num_windows * self.window_days:
            raise ValueError(
                f"{self.num_windows} windows of {self.window_days} days do not fit into the "
                f"{num_days} days from {self.start} to {self.end}"
            )


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How places are drawn.

    Attributes:
        strategy: "land" draws uniformly over the land of the sphere, "land_cover" draws
            equal numbers per class, "cities" draws around the largest cities, "file"
            takes a list of your own.
        num_places: number of places; not used with "file".
        min_distance_km: least great-circle distance between two places. Default 4:
            patches of 256 px at 10 m, 3.6 km from corner to corner, cannot share a
            pixel.
        min_lat: southern limit, degrees. Default -56: Sentinel-2 observes land from 56
            S.
        max_lat: northern limit, degrees. Default 82.8: Sentinel-2 observes land to 82.8
            N. Source: Sentinel-2 User Handbook, 2015, ESA.
        path: with "land_cover" a GeoTIFF, "" = WorldCover through Earth Engine; with
            "file" a GeoJSON or CSV.
        label_schema: with "land_cover": meaning of the ids in the raster.
        num_cities: with "cities": how many of the largest cities. Default as
            SSL4EO-S12.
        city_sd_km: with "cities": standard deviation of the distance east and north of
            a city. Default as SSL4EO-S12.
        windows: time windows of every place that has none of its own.
        seed: the same seed gives the same places. With "land" and "cities" a larger
            num_places keeps the places of a smaller one.
    """

    strategy: Strategy = "land"
    num_places: int = 1000
    min_distance_km: float = 4.0
    min_lat: float = -56.0
    max_lat: float = 82.8
    path: str = ""
    label_schema: str = "worldcover"
    num_cities: int = 10_000
    city_sd_km: float = 50.0
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_places", "num_cities"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.min_distance_km <= 1000:
            raise ValueError(f"min_distance_km must be within 0-1000, got {self.min_distance_km}")
        # There is no UTM zone for a patch beyond these latitudes.
        if not -80 <= self.min_lat < self.max_lat <= 84:
            raise ValueError(
                f"min_lat and max_lat must keep -80 <= min_lat < max_lat <= 84, "
                f"got {self.min_lat} and {self.max_lat}"
            )
        if not self.city_sd_km > 0:
            raise ValueError(f"city_sd_km must be above 0, got {self.city_sd_km}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}")
        if self.strategy == "file" and not self.path:
            raise ValueError("strategy 'file' needs path: a GeoJSON or CSV file")
        if self.path and self.strategy in ("land", "cities"):
            raise ValueError(
                f"path needs strategy 'file' or 'land_cover', got strategy {self.strategy!r}"
            )
        get_schema(self.label_schema)


def check_day(name: str, text: str) -> None:
    """Refuse a text that is no ISO day.

    Raises:
        ValueError: it is none; the message holds `name`.
    """
    try:
        date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{name} must be an ISO day like 2021-03-20, got {text!r}") from error
