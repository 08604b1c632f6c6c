"""SEN12MS and DFC2020: ROIs<seed>_<season>/{s1,s2,lc}_<scene>/..._p<patch>.tif, patches of 256 px with land cover.

Input: the folder that holds the ROIs folders. Output: STAC items. Called through `layouts.READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pystac

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS
from beam_jobs.public_datasets import items, sen12ms_splits

MIDDLE_OF_SEASON = {
    "winter": datetime(2017, 1, 15, 12, tzinfo=timezone.utc),
    "spring": datetime(2017, 4, 15, 12, tzinfo=timezone.utc),
    "summer": datetime(2017, 7, 15, 12, tzinfo=timezone.utc),
    "fall": datetime(2017, 10, 15, 12, tzinfo=timezone.utc),
}
"""Northern meteorological seasons from December 2016 to November 2017. Source: SEN12MS, arXiv 1906.07789."""
MIDDLE_OF_DFC2020 = datetime(2017, 6, 1, 12, tzinfo=timezone.utc)
"""DFC2020 tells no season; this is the middle of SEN12MS' year."""

_SEASON_FOLDER = re.compile(rf"ROIs\d+_({'|'.join(MIDDLE_OF_SEASON)})")
_DFC2020_FOLDERS = ("ROIs0000_validation", "ROIs0000_test")


def read_sen12ms(folder: Path, split_lists: Sequence[Path] = ()) -> Iterator[pystac.Item]:
    """Items of a SEN12MS folder, labels in the 17 IGBP classes, band 1 of `lc`.

    The files have no dates: both sensors get the middle of the season their folder is named after, one same nominal time,
    so that a patch pairs with its own partner and never with another season's. With the data set's split lists, given or
    found in `folder` or `folder/splits`, items declare the official split; without them it stays with the place.

    Raises:
        DataError: a split list cannot be read, or lists a patch for two splits.

    Source: https://github.com/schmitt-muc/SEN12MS; arXiv 1906.07789.
    """
    splits = sen12ms_splits.read(folder, split_lists)
    for season_folder in season_folders(folder):
        season = season_folder.name.split("_")[1]
        for item in _patches(season_folder, MIDDLE_OF_SEASON[season], "lc", "igbp17"):
            if splits:
                item.properties["terrapair:split"] = sen12ms_splits.split_of(item.id, splits)
            yield item


def read_dfc2020(folder: Path) -> Iterator[pystac.Item]:
    """Items of a DFC2020 folder, labels in the 10 simplified IGBP classes of its `dfc` files.

    No item declares a split: publications give the folders `validation` and `test` opposite roles, so the split stays
    with the place, as for any other data.

    Source: https://ieee-dataport.org/competitions/2020-ieee-grss-data-fusion-contest
    """
    for part in dfc2020_folders(folder):
        yield from _patches(part, MIDDLE_OF_DFC2020, "dfc", "igbp10")


def season_folders(folder: Path) -> list[Path]:
    """The ROIs<seed>_<season> folders of SEN12MS below `folder`."""
    return sorted(path for path in folder.glob("ROIs*") if path.is_dir() and _SEASON_FOLDER.fullmatch(path.name))


def dfc2020_folders(folder: Path) -> list[Path]:
    """The folders of DFC2020 below `folder`."""
    return [folder / name for name in _DFC2020_FOLDERS if (folder / name).is_dir()]


def _patches(folder: Path, acquired_at: datetime, label_kind: str, schema: str) -> Iterator[pystac.Item]:
    """Two items a patch; a radar or optical file whose partner is missing gives its item all the same."""
    sensors = (
        ("s1", S1_DEFAULT_BANDS, items.radar(items.NOMINAL_TIME)),
        # All images are from 2016-2017, before the 2022 offset, and the archives were not reprocessed.
        ("s2", S2_L1C_BANDS, items.optical("L1C", 0, items.NOMINAL_TIME)),
    )
    for sensor, bands, properties in sensors:
        for path in sorted(folder.glob(f"{sensor}_*/*_{sensor}_*.tif")):
            assets = {"data": items.asset(path, bands)}
            label = _sibling(path, sensor, label_kind)
            if label.exists():
                # 0 is no class: what Earth Engine writes where its land cover has no value.
                assets["label"] = items.label(label, schema, 0)
            yield items.item(path.stem, path, acquired_at, properties, assets)


def _sibling(path: Path, sensor: str, kind: str) -> Path:
    """.../s1_7/ROIs1158_spring_s1_7_p30.tif -> .../lc_7/ROIs1158_spring_lc_7_p30.tif."""
    folder = path.parent.name.replace(f"{sensor}_", f"{kind}_", 1)
    return path.parents[1] / folder / path.name.replace(f"_{sensor}_", f"_{kind}_", 1)
