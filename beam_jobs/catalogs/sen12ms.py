"""SEN12MS: patches of 256 px with land cover labels, in folders of seasons.

Input: the folder with ROIs<seed>_<season>/{s1,s2,lc}_<scene>/..._p<patch>.tif. Output:
STAC items. `patches` serves DFC2020 too, whose files are arranged alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pystac

from beam_jobs.catalogs import items, sen12ms_splits
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS

MIDDLE_OF_SEASON = {
    "winter": datetime(2017, 1, 15, 12, tzinfo=timezone.utc),
    "spring": datetime(2017, 4, 15, 12, tzinfo=timezone.utc),
    "summer": datetime(2017, 7, 15, 12, tzinfo=timezone.utc),
    "fall": datetime(2017, 10, 15, 12, tzinfo=timezone.utc),
}
"""Northern meteorological seasons from December 2016 to November 2017.

Source: SEN12MS, arXiv 1906.07789.
"""

_SEASON_FOLDER = re.compile(rf"ROIs\d+_({'|'.join(MIDDLE_OF_SEASON)})")


def read_sen12ms(folder: Path, split_lists: Sequence[Path] = ()) -> Iterator[pystac.Item]:
    """Yield the items of a SEN12MS folder.

    Labels are the 17 IGBP classes in band 1 of `lc`. The files have no dates. Both
    sensors get the middle of their folder's season as a nominal time, so a patch pairs
    with its own partner and never with another season's. With the data set's split
    lists, given or found in `folder` or `folder/splits`, items declare the official
    split. Without them the place decides.

    Raises:
        DataError: a split list cannot be read, or lists a patch for two splits.

    Source: https://github.com/schmitt-muc/SEN12MS; arXiv 1906.07789.
    """
    splits = sen12ms_splits.read(folder, split_lists)
    for season_folder in season_folders(folder):
        season = season_folder.name.split("_")[1]
        for item in patches(season_folder, MIDDLE_OF_SEASON[season], "lc", "igbp17"):
            if splits:
                item.properties["terrapair:split"] = sen12ms_splits.split_of(item.id, splits)
            yield item


def season_folders(folder: Path) -> list[Path]:
    """Return the ROIs<seed>_<season> folders of SEN12MS below `folder`."""
    return sorted(
        path
        for path in folder.glob("ROIs*")
        if path.is_dir() and _SEASON_FOLDER.fullmatch(path.name)
    )


def patches(
    folder: Path,
    acquired_at: datetime,
    label_kind: str,
    schema: str,
    place: Callable[[Path], str] = str,
) -> Iterator[pystac.Item]:
    """Yield two items per patch, or one if the file of the other sensor is missing.

    Args:
        folder: the one with folders `<sensor>_<scene>` or `<sensor>`.
        acquired_at: of all its patches.
        label_kind: takes the place of the sensor in the names of label files and
            folders.
        schema: of the labels.
        place: file -> path under which its pixels have a place on Earth.
    """
    sensors = (
        ("s1", S1_DEFAULT_BANDS, items.radar(items.NOMINAL_TIME)),
        # All images are from 2016-2017, before the 2022 offset, and were not
        # reprocessed.
        ("s2", S2_L1C_BANDS, items.optical("L1C", 0, items.NOMINAL_TIME)),
    )
    for sensor, bands, properties in sensors:
        for path in sorted(folder.glob(f"{sensor}*/*_{sensor}_*.tif")):
            raster = place(path)
            assets = {"data": items.asset(raster, bands)}
            label = _sibling(path, sensor, label_kind)
            if label.exists():
                # 0 is not a class: Earth Engine writes it where its land cover has no
                # value.
                assets["label"] = items.label(place(label), schema, 0, index=1)
            yield items.item(path.stem, raster, acquired_at, properties, assets)


def _sibling(path: Path, sensor: str, kind: str) -> Path:
    """Return the path of the label, or of another kind of file, of the same patch.

    .../s1_7/ROIs1158_spring_s1_7_p30.tif -> .../lc_7/ROIs1158_spring_lc_7_p30.tif.
    """
    folder = path.parent.name.replace(sensor, kind, 1)
    return path.parents[1] / folder / path.name.replace(f"_{sensor}_", f"_{kind}_", 1)
