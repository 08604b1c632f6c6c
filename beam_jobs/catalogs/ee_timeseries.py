"""Series that Earth Engine exported as one image; band names tell the step.

Input: a folder of GeoTIFFs. Output: one Sentinel-1 and one Sentinel-2 STAC item per
step and file. `items_of` serves TFRecord exports of the same images too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pystac

from beam_jobs.catalogs import items
from beam_jobs.contracts.bands import BANDS, SENSORS, Sensor
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster

_NAME = re.compile(r"(?:(?P<prefix>.+)_)?(?P<band>VV|VH|HH|HV|B\d{1,2}A?)(?:_(?P<step>\d{1,4}))?")
_TIME = re.compile(r"\d{8}T\d{6}")
_DAY = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NO_BAND = "no band is named like VV, B2, VV_1, 0_VV or 20230105T101401_B2"

Step = int | str
"""Number of a step, from 0, or the name of its source image, which holds its time."""
Steps = dict[Step, dict[Sensor, dict[str, str]]]
"""Step -> sensor -> band -> name of the band in the export."""
Place = tuple[Path, int | str]
"""File of a band, and its 1-based index there or the file's name for it."""


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of a folder of exported series.

    Earth Engine splits a series that is too large for one file into
    `<name>-<row>-<column>.tif`; each such file is a scene of its own. Files
    `<name>.<band>.tif`, one per band, belong together. Bands of other sensors (weather,
    elevation) are left out. A file without Sentinel bands, or without a date in its
    name, gives a refused item.

    Source: https://github.com/nasaharvest/cropharvest (names and steps); Earth Engine,
    Exporting images (file splitting), ee.ImageCollection.toBands (prefixes),
    ee.Image.getDownloadURL (filePerBand).
    """
    for stem, found in _exports(folder).items():
        try:
            yield from items_of(stem, found())
        except DataError as error:
            yield items.refused(stem, {}, error)


def items_of(stem: str, places: Mapping[str, Place]) -> Iterator[pystac.Item]:
    """Yield the items of one export.

    A step is known by a suffix (VV, VH, VV_1, ...), by a number in front (0_VV, 1_VV,
    ...), or by the name of the image in front, as `toBands()` of a collection writes it
    (20230105T101401_20230105T101356_T31UFS_B2). An image's name holds its time. A
    numbered step is a composite; its time is the nominal middle of the step. An export
    of one step is an image: if its own name holds one time or one day, that is its
    time.

    Args:
        stem: name of the export.
        places: where each of its bands is; at least one.

    Raises:
        DataError: no Sentinel band, or no date for numbered steps.
    """
    steps = band_steps(places)
    if not steps:
        raise DataError(f"{_file(places)}: {_NO_BAND}", "unknown_band_order")
    numbers = [step for step in steps if isinstance(step, int)]
    is_image = set(steps) == {0} and num_days(stem) == 1
    times = step_times(_file(places), max(numbers) + 1) if numbers and not is_image else []
    for step, by_sensor in sorted(steps.items(), key=lambda entry: (str(type(entry[0])), entry[0])):
        image = stem if is_image else str(step)
        exact = (is_image or isinstance(step, str)) and _TIME.search(image) is not None
        nominal = {} if exact else items.NOMINAL_TIME
        if is_image or isinstance(step, str):
            acquired_at = _time_of(image, _file(places))
        else:
            acquired_at = times[step]
        for sensor, names in sorted(by_sensor.items()):
            properties = properties_of(sensor, names, nominal)
            assets = _assets({band: places[name] for band, name in names.items()})
            item_id = (
                f"{stem}_{sensor}_{step:02d}"
                if isinstance(step, int)
                else f"{stem}_{sensor}_{step}"
            )
            yield items.item(
                item_id, next(iter(assets.values())).href, acquired_at, properties, assets
            )


def properties_of(
    sensor: Sensor, bands: Iterable[str], others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the properties of an exported scene with these bands, and `others`."""
    names = tuple(bands)
    if sensor == "s1":
        return items.radar(others, names)
    # Exports do not name their collection, but only level 1C has the cirrus band.
    return items.optical("L1C" if "B10" in names else "L2A", None, others)


def band_steps(names: Iterable[str]) -> Steps:
    """Return the Sentinel bands of each step, from the band names of an export."""
    steps: Steps = {}
    for name in names:
        match = _NAME.fullmatch(name)
        sensor = next((s for s in SENSORS if match and match["band"] in BANDS[s]), None)
        step = _step(match["prefix"], match["step"]) if match else None
        if match and sensor and step is not None:
            steps.setdefault(step, {}).setdefault(sensor, {})[match["band"]] = name
    return steps


def num_days(stem: str) -> int:
    """Return how many days the name of an export holds.

    A time, and the times of one image's begin and end, count as one. Two days are the
    first and the last day of a series.
    """
    return 1 if _TIME.search(stem) else len(_DAY.findall(stem))


def step_times(path: Path, num_steps: int) -> list[datetime]:
    """Return the middle of each step, UTC.

    With two dates in the name, the first and the last day, the steps divide the time
    between them evenly: exporters use steps of 30 days as well as calendar months. A
    single date is the first day of the first step, and each step is a month of 30.44
    days.

    Raises:
        DataError: no date, or the second is not after the first.
    """
    dates = [
        items.utc_time(text, "the date in the file name", path).replace(tzinfo=timezone.utc)
        for text in _DATE.findall(path.name)[:2]
    ]
    if not dates:
        raise DataError(
            f"{path}: its name needs the first day of the series, as in 2019-02-06", "bad_item"
        )
    step = timedelta(days=30.44)
    if len(dates) == 2:
        if dates[1] <= dates[0]:
            raise DataError(
                f"{path}: the second date in its name must be after the first", "bad_item"
            )
        step = (dates[1] - dates[0]) / num_steps
    return [(dates[0] + (index + 0.5) * step).replace(microsecond=0) for index in range(num_steps)]


def band_places(path: Path) -> dict[str, Place]:
    """Return where the named bands of one GeoTIFF are.

    Raises:
        DataError: the file cannot be opened, or names no band.
    """
    with open_raster(str(path)) as dataset:
        places: dict[str, Place] = {
            n: (path, index) for index, n in enumerate(dataset.descriptions, start=1) if n
        }
    if not places:
        raise DataError(f"{path}: {_NO_BAND}", "unknown_band_order")
    return places


def _exports(folder: Path) -> dict[str, Callable[[], dict[str, Place]]]:
    """Return, by the name of each export, what finds the places of its bands.

    Files of one band each, `<name>.<band>.tif`, make one export.
    """
    found: dict[str, Callable[[], dict[str, Place]]] = {}
    singles: dict[str, dict[str, Place]] = {}
    for path in sorted(folder.glob("*.tif")):
        stem, _, band = path.stem.rpartition(".")
        if stem and _NAME.fullmatch(band):
            singles.setdefault(stem, {})[band] = (path, 1)
            found[stem] = partial(dict, singles[stem])
        else:
            found[path.stem] = partial(band_places, path)
    return found


def _file(places: Mapping[str, Place]) -> Path:
    return next(iter(places.values()))[0]


def _assets(places: Mapping[str, Place]) -> dict[str, pystac.Asset]:
    """Return one asset `data` if all bands are in one file, else one asset per band."""
    if len({path for path, _ in places.values()}) == 1:
        return {
            "data": items.asset(_file(places), {band: where for band, (_, where) in places.items()})
        }
    return {band: items.asset(path) for band, (path, _) in places.items()}


def _step(prefix: str | None, suffix: str | None) -> Step | None:
    """Return the step of a band name, or None if its prefix has no number or date."""
    if prefix is None:
        return int(suffix or 0)
    if _TIME.search(prefix) or _DAY.search(prefix):
        return prefix
    return int(prefix) if prefix.isdecimal() and suffix is None else None


def _time_of(image: str, path: Path) -> datetime:
    """Return when the image of this name was taken; noon if the name has only a day."""
    time, day = _TIME.search(image), _DAY.search(image)
    text = time[0] if time else "".join(day.groups()) + "T120000" if day else ""
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise DataError(f"{path}: the name {image!r} holds no time: {error}", "bad_item") from error
