"""BigEarthNet-MM: a folder per patch and sensor, one GeoTIFF per band.

Input: the folder with s1/<patch>/<patch>_VV.tif, s2/<patch>/<patch>_B02.tif, ..., and a
JSON file beside the bands. Output: STAC items.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pystac

from beam_jobs.catalogs import items
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L2A_BANDS


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of a folder in the BigEarthNet layout.

    Times are in the JSON files. Sentinel-2 bands have pixels of 10, 20 and 60 m.

    Source: https://bigearth.net, BigEarthNet-MM v1.0 guide.
    """
    for patch in sorted(path for path in (folder / "s1").iterdir() if path.is_dir()):
        assets = {
            name: items.asset(patch / f"{patch.name}_{name}.tif") for name in S1_DEFAULT_BANDS
        }
        properties = items.radar({"platform": f"sentinel-{patch.name[1:3].lower()}"})
        reference = patch / f"{patch.name}_VV.tif"
        yield items.item(
            patch.name,
            reference,
            partial(_metadata_time, patch, "acquisition_time"),
            properties,
            assets,
        )
    for patch in sorted(path for path in (folder / "s2").iterdir() if path.is_dir()):
        # The file names have B01 where Earth Engine has B1.
        files = {name: patch / f"{patch.name}_{_two_digits(name)}.tif" for name in S2_L2A_BANDS}
        # All scenes are from 2017-2018, before the 2022 offset, and were not
        # reprocessed.
        properties = items.optical("L2A", 0, {"platform": f"sentinel-{patch.name[1:3].lower()}"})
        assets = {name: items.asset(path) for name, path in files.items()}
        yield items.item(
            patch.name,
            files["B2"],
            partial(_metadata_time, patch, "acquisition_date"),
            properties,
            assets,
        )


def _two_digits(band: str) -> str:
    return band if band == "B8A" else f"B{int(band[1:]):02d}"


def _metadata_time(patch: Path, key: str) -> datetime:
    path = patch / f"{patch.name}_labels_metadata.json"
    return items.utc_time(items.read_json(path).get(key), key, path)
