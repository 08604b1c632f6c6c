"""Time series that Earth Engine exported as one GeoTIFF: VV, VH, B1, ..., VV_1, VH_1, B1_1, ...: the suffix is the step.

Input: a folder of such files, their dates in their names. Output: one Sentinel-1 and one Sentinel-2 STAC item per step and
file. Called through `layouts.READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pystac

from beam_jobs.contracts.bands import BANDS, SENSORS, Sensor
from beam_jobs.errors import DataError
from beam_jobs.public_datasets import items

_BAND_AND_STEP = re.compile(r"([A-Z]+[0-9]*A?)(?:_(\d+))?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Steps = dict[int, dict[Sensor, dict[str, int]]]
"""Step -> sensor -> band name -> 1-based index in the file."""


def read(folder: Path) -> Iterator[pystac.Item]:
    """Items of a folder of exported time series.

    A series too large for one file is split by Earth Engine into `<name>-<row>-<column>.tif`: each such file is a scene
    of its own. Bands that are no Sentinel band (weather, elevation) are left out. A step is a composite: its time is the
    nominal middle of the step.

    Raises:
        DataError: a file without such bands or without a date in its name.

    Source: https://github.com/nasaharvest/cropharvest (names and steps); Earth Engine, Exporting images (file splitting).
    """
    for path in sorted(folder.glob("*.tif")):
        steps = band_steps(path)
        if not steps:
            raise DataError(f"{path}: no band is named like VV, B2, VV_1 or B2_1", "unknown_band_order")
        times = step_times(path, max(steps) + 1)
        for step, by_sensor in sorted(steps.items()):
            for sensor, bands in sorted(by_sensor.items()):
                if sensor == "s1":
                    properties = items.radar(items.NOMINAL_TIME, tuple(bands))
                else:
                    # The collection is not written down, but only level 1C has the cirrus band.
                    properties = items.optical("L1C" if "B10" in bands else "L2A", None, items.NOMINAL_TIME)
                assets = {"data": items.asset(path, bands)}
                yield items.item(f"{path.stem}_{sensor}_{step:02d}", path, times[step], properties, assets)


def band_steps(path: Path) -> Steps:
    """Where each step's Sentinel bands are in the file, by its band descriptions."""
    with items.open_raster(path) as dataset:
        names = dataset.descriptions
    steps: Steps = {}
    for index, name in enumerate(names, start=1):
        match = _BAND_AND_STEP.fullmatch(name or "")
        sensor = next((s for s in SENSORS if match and match[1] in BANDS[s]), None)
        if match and sensor:
            steps.setdefault(int(match[2] or 0), {}).setdefault(sensor, {})[match[1]] = index
    return steps


def step_times(path: Path, num_steps: int) -> list[datetime]:
    """The middle of each step, UTC.

    With two dates in the name, first and last day, the steps divide the time between them evenly: exporters use steps of
    30 days as well as calendar months. With one date, it begins the first of as many months of 30.44 days.

    Raises:
        DataError: no date, or the second is not after the first.
    """
    dates = [
        items.utc_time(text, "the date in the file name", path).replace(tzinfo=timezone.utc)
        for text in _DATE.findall(path.name)[:2]
    ]
    if not dates:
        raise DataError(f"{path}: its name needs the first day of the series, as in 2019-02-06", "bad_item")
    step = timedelta(days=30.44)
    if len(dates) == 2:
        if dates[1] <= dates[0]:
            raise DataError(f"{path}: the second date in its name must be after the first", "bad_item")
        step = (dates[1] - dates[0]) / num_steps
    return [(dates[0] + (index + 0.5) * step).replace(microsecond=0) for index in range(num_steps)]
