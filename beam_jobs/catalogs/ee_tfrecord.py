"""Images that Earth Engine exported as TFRecord.

Input: a folder, or its sub-folders (training, validation), with `<name>-mixer.json` or
`<name>.json` and `<name>-00000.tfrecord.gz`, ..., or with TFRecords alone. Output: STAC
items.
`beam_jobs/rasters/ee_tfrecord.py` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pystac

from beam_jobs.catalogs import ee_timeseries, items
from beam_jobs.contracts.bands import BANDS
from beam_jobs.errors import DataError
from beam_jobs.rasters.ee_tfrecord import RECORD_SUFFIXES, num_records
from beam_jobs.rasters.mixer import MIXER_SUFFIX, is_mixer, record_paths, stem
from beam_jobs.rasters.opening import open_raster

LABEL_BAND = "landcover"
"""Band that Google's land cover sample adds to its patches.

It holds WorldCover in the ids of Dynamic World.

Source: https://github.com/GoogleCloudPlatform/python-docs-samples
(people-and-planet-ai/land-cover-classification).
"""
MASKED = 0.0
"""Value of masked pixels, unless the export sets `defaultValue`.

In float32 dB no measurement is exactly 0.
"""


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of a folder of TFRecord exports.

    With a mixer file the patches are one image, whose band names and dates are read as
    those of `ee_timeseries`. Without one, each record is a patch of unknown place. It
    is listed with its assets, so that it can be viewed, and refused as `unlocated`,
    because it can be neither paired nor split by place.

    Source: https://developers.google.com/earth-engine/guides/tfrecord
    """
    described: set[Path] = set()
    for mixer in filter(is_mixer, files(folder, (MIXER_SUFFIX,))):
        name = stem(mixer).rstrip("-_")
        try:
            described |= set(record_paths(mixer))
            yield from _export(name, mixer)
        except DataError as error:
            yield items.refused(name, {}, error)
    for path in files(folder, RECORD_SUFFIXES):
        if path not in described:
            yield from _unlocated(path)


def holds_exports(folder: Path) -> bool:
    """Return whether a folder holds mixer files or TFRecords."""
    found = files(folder, (MIXER_SUFFIX, *RECORD_SUFFIXES))
    return any(path.name.endswith(RECORD_SUFFIXES) or is_mixer(path) for path in found)


def files(folder: Path, ends: tuple[str, ...]) -> list[Path]:
    """Return the files in `folder` or one folder deeper whose names end with `ends`."""
    return sorted(
        path
        for pattern in ("*", "*/*")
        for path in folder.glob(pattern)
        if path.name.endswith(ends)
    )


def _export(name: str, mixer: Path) -> Iterator[pystac.Item]:
    with open_raster(str(mixer)) as raster:
        bands = [str(band) for band in raster.descriptions]
    for item in ee_timeseries.items_of(name, {band: (mixer, band) for band in bands}):
        if item.properties["constellation"] == "sentinel-1":
            for asset in item.assets.values():
                asset.extra_fields["nodata"] = MASKED
        yield item


def _unlocated(path: Path) -> Iterator[pystac.Item]:
    """Yield one refused item per record and sensor.

    The ids contain the folder, since splits use the same file names.
    """
    prefix = f"{path.parent.name}_{path.name.partition('.')[0]}"
    try:
        number = num_records(path)
        with open_raster(f"{path}#0") as raster:
            names = [str(name) for name in raster.descriptions]
    except DataError as error:
        yield items.refused(prefix, {}, error)
        return
    for record in range(number):
        href = f"{path}#{record}"
        why = DataError(
            f"{href}: the patch has no coordinates: neither a mixer file nor a place", "unlocated"
        )
        label = (
            {"label": items.label(f"{href}/{LABEL_BAND}", "dynamic_world", None)}
            if LABEL_BAND in names
            else {}
        )
        for sensor, known in BANDS.items():
            bands = {name: name for name in known if name in names}
            if bands:
                properties = ee_timeseries.properties_of(sensor, bands)
                assets = {"data": items.asset(href, bands), **label}
                yield items.refused(f"{prefix}_{record:05d}_{sensor}", properties, why, assets)
