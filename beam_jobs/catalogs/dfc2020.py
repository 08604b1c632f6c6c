"""DFC2020: patches of 256 px with land cover labels at 10 m.

Input: the contest's folder with `ROIs0000_{validation,test}/{s1,s2,dfc}_*`, or the
folder of Copernicus-Bench with `{s1,s2,dfc}`. Output: STAC items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pystac

from beam_jobs.catalogs import sen12ms, sen12ms_splits
from beam_jobs.errors import DataError
from beam_jobs.rasters import placed
from beam_jobs.rasters.opening import open_raster, with_place

MIDDLE_OF_YEAR = datetime(2017, 6, 1, 12, tzinfo=timezone.utc)
"""The middle of the year of SEN12MS; DFC2020 does not publish dates or seasons."""
LISTS = ("dfc-*.csv",)
"""Copernicus-Bench's split lists: dfc-{train,val,test}-new.csv, one file a line."""

_CONTEST_FOLDERS = ("ROIs0000_validation", "ROIs0000_test")
_PATCH = re.compile(r"ROIs0000_(validation|test)_(?:s1|s2|dfc)_\d+_p(\d+)")
_ZONE_OF_PART = {"test": "EPSG:32631", "validation": "EPSG:32632"}
_SPACING_M = 12_000.0
"""Distance between patches without a place; a patch is 2.56 km wide.

It is larger than blocks and buffers usually are.
"""


def read(folder: Path, split_lists: Sequence[Path] = ()) -> Iterator[pystac.Item]:
    """Yield the items of a DFC2020 folder.

    Labels are the 10 simplified IGBP classes of its `dfc` files.

    With split lists, given or found in `folder` or `folder/splits`, each patch declares
    the split of its list, and patches in no list are left out. Without them no item
    declares a split: publications use the folders `validation` and `test` in opposite
    roles, so a hold-out by `terrapair:part` decides (docs/protocols.md).

    Patches whose files carry no georeference each get a nominal place
    (`terrapair:place_is_nominal`), apart from all others.

    Raises:
        DataError: a split list cannot be read, or lists a patch for two splits.

    Source: https://ieee-dataport.org/competitions/2020-ieee-grss-data-fusion-contest;
    https://github.com/zhu-xlab/Copernicus-FM (Copernicus-Bench,
    cobench_dfc2020s12_wrapper.py): lists and their form.
    """
    splits = sen12ms_splits.read(folder, split_lists, LISTS)
    for part in folders(folder):
        for item in sen12ms.patches(part, MIDDLE_OF_YEAR, "dfc", "igbp10", _place):
            split = sen12ms_splits.listed_split(item.id, splits)
            if splits and split is None:
                continue
            match = _PATCH.fullmatch(item.id)
            item.properties["terrapair:part"] = match[1] if match else "unknown"
            if split is not None:
                item.properties["terrapair:split"] = split
            # A refused item has no assets.
            if any(placed.PREFIX in asset.href for asset in item.assets.values()):
                item.properties["terrapair:place_is_nominal"] = True
            yield item


def folders(folder: Path) -> list[Path]:
    """Return the folders of patches.

    They are the contest's folders, or `folder` itself in the arrangement of
    Copernicus-Bench.
    """
    if (folder / "dfc").is_dir():
        return [folder]
    return [folder / name for name in _CONTEST_FOLDERS if (folder / name).is_dir()]


def _place(path: Path) -> str:
    """Return the path of a raster, with a nominal place if the file has none.

    All files of a patch share the place, and no other patch has it.
    """
    match = _PATCH.fullmatch(path.stem)
    try:
        with open_raster(str(path)) as raster:
            if match is None or placed.has_place(raster):
                return str(path)
    except DataError:
        # `items.item` opens the file again and refuses it under its own name.
        return str(path)
    row, col = divmod(int(match[2]), 50)
    member = placed.member_at(
        _ZONE_OF_PART[match[1]], 200_000.0 + col * _SPACING_M, (row + 1) * _SPACING_M, 10.0
    )
    return with_place(str(path), member)
