"""SSL4EO-S12 v1.1 and sharded TerraMesh: zarr stores in batches or in tar shards.

Input: the folder that holds train and val, or one of them, with a folder for each
modality. Output: STAC items. `beam_jobs/rasters/zarr_store.py` reads the pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import zarr

from beam_jobs.catalogs import items
from beam_jobs.config import ProcessingLevel
from beam_jobs.contracts.bands import BANDS, S2_BASELINE_0400_DN_OFFSET
from beam_jobs.errors import DataError
from beam_jobs.rasters import zarr_store

PARTS = ("", "train", "val")
PIXELS, CLOUDS, LABELS = "bands", "cloud_mask", "LULC"
CLEAR_VALUES = [0, 1, 2]
"""Land, water and snow of `cloud_mask`.

3 is thin cloud, 4 thick cloud, 5 shadow, 6 no data.

Source: arXiv 2504.11172 (TerraMesh), cloud masks by SEnSeIv2.
"""

_LEVELS: dict[str, ProcessingLevel] = {"S2L1C": "L1C", "S2L2A": "L2A"}


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What differs between the data sets.

    Attributes:
        s1: radar modalities.
        dn_offsets: modality -> the 2022 offset; None if the pixels must show it.
        has_labels: whether the data set has land cover.
    """

    s1: tuple[str, ...]
    dn_offsets: Mapping[str, int | None]
    has_labels: bool = False


def read_ssl4eo_v11(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of SSL4EO-S12 v1.1.

    There is one item per location, season and modality (S1GRD, S2L1C, S2L2A). Batches
    (`ssl4eos12_train_seasonal_data_000001.zarr.zip`, 64 locations each) carry the 2022
    offset in every optical image, whatever its date. The later tar shards
    (`ssl4eos12_shard_000001.tar`, one store per location) do not. Sensors of one season
    are up to weeks apart: set pairing.max_time_gap_hours to 720 to pair them all. No
    split is declared: `val` is not a published benchmark, so the place decides, as for
    any other data.

    Names of variables are those of the data set's description and loader. Neither shows
    x, y and crs in tar shards; they are assumed to be as in TerraMesh. A store with
    other names is refused with an error that lists them.

    Source: https://github.com/DLR-MF-DAS/SSL4EO-S12-v1.1; arXiv 2503.00168.
    """
    batches = dict.fromkeys(_LEVELS, S2_BASELINE_0400_DN_OFFSET)
    yield from _read(folder, zarr_store.STORE_SUFFIX, _Layout(s1=("S1GRD",), dn_offsets=batches))
    yield from _read(
        folder,
        zarr_store.SHARD_SUFFIX,
        _Layout(s1=("S1GRD",), dn_offsets=dict.fromkeys(_LEVELS, 0)),
    )


def read_terramesh_shards(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of TerraMesh as published, in tar shards.

    Each modality's folder has `majortom_shard_000001.tar`, .... Each sample has one
    radar modality, S1RTC (Major TOM) or S1GRD (SSL4EO-S12). Its land cover is in the
    shard of the same name in LULC, with 0 = no data. L2A carries no offset. The pixels
    of L1C must show whether it does (as in `terramesh.py`).

    Source: https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh; arXiv
    2504.11172.
    """
    layout = _Layout(s1=("S1RTC", "S1GRD"), dn_offsets={"S2L1C": None, "S2L2A": 0}, has_labels=True)
    yield from _read(folder, zarr_store.SHARD_SUFFIX, layout)


def modalities(folder: Path) -> set[str]:
    """Return the modalities below `folder` that have zarr batches or tar shards."""
    found = (
        path
        for part in PARTS
        for path in (folder / part).glob("*/*")
        if path.name.endswith(zarr_store.SUFFIXES)
    )
    return {path.parent.name for path in found}


def _read(folder: Path, end: str, layout: _Layout) -> Iterator[pystac.Item]:
    for part in PARTS:
        for modality in (*layout.s1, *_LEVELS):
            for path in sorted((folder / part / modality).glob(f"*{end}")):
                for store in _stores(path):
                    try:
                        yield from _scenes(path, store, modality, layout)
                    except DataError as error:
                        name = (store or path.name).removesuffix(zarr_store.STORE_SUFFIX)
                        yield items.refused(
                            f"{modality}_{name}", _properties(modality, layout), error
                        )


def _stores(path: Path) -> list[str]:
    """Return the stores in a file; a batch has one store without a name."""
    return (
        zarr_store.store_names(str(path)) if path.name.endswith(zarr_store.SHARD_SUFFIX) else [""]
    )


def _scenes(path: Path, store: str, modality: str, layout: _Layout) -> Iterator[pystac.Item]:
    """Yield the scenes of one store: its seasons, in batches times its locations."""
    where = f"{path}#{store}/{PIXELS}" if store else f"{path}#{PIXELS}"
    group = zarr_store.open_group(str(path), store)
    bands = _bands(group, where)
    # Batches have times in `time_`, since `time` counts seasons there.
    time_name = "time_" if "time_" in group else "time"
    times = zarr_store.times(group, time_name, where)
    time_dimensions = zarr_store.dimensions(group[time_name], where)
    for at in _indexes(group, PIXELS, where):
        href = "/".join((where, *map(str, at.values())))
        assets = {"data": items.asset(href, bands)}
        if modality in _LEVELS:
            assets |= _cloud_mask(group, where, at) | (
                _label(path, store) if layout.has_labels else {}
            )
        acquired_at = (
            times[tuple(at[dimension] for dimension in time_dimensions)]
            .astype(datetime)
            .replace(tzinfo=timezone.utc)
        )
        yield items.item(
            _item_id(group, store, modality, at, where),
            href,
            acquired_at,
            _properties(modality, layout),
            assets,
        )


def _properties(modality: str, layout: _Layout) -> dict[str, Any]:
    return (
        items.optical(_LEVELS[modality], layout.dn_offsets[modality])
        if modality in _LEVELS
        else items.radar()
    )


def _bands(group: zarr.Group, where: str) -> dict[str, int | str]:
    """Return band -> the store's name of it: vv and B01 for VV and B1."""
    spelled = {
        re.sub(r"^B0", "B", name.upper()): name for name in zarr_store.band_names(group, where)
    }
    return {
        name: raw for name, raw in spelled.items() if name in BANDS["s1"] or name in BANDS["s2"]
    }


def _indexes(group: zarr.Group, array_name: str, where: str) -> Iterator[dict[str, int]]:
    """Yield the index of each raster in an array: one number per other dimension.

    The other dimensions are all but band, y and x.
    """
    array = zarr_store.array_of(group, array_name, where)
    sizes = dict(zip(zarr_store.dimensions(array, where), array.shape, strict=True))
    others = {
        dimension: size for dimension, size in sizes.items() if dimension not in ("band", "y", "x")
    }
    for index in np.ndindex(*others.values()):
        yield dict(zip(others, map(int, index), strict=True))


def _item_id(group: zarr.Group, store: str, modality: str, at: dict[str, int], where: str) -> str:
    """Return the id of a scene from modality, location and season: S2L2A_0080717_1."""
    if store:
        name = store.removesuffix(zarr_store.STORE_SUFFIX)
    else:
        name = str(zarr_store.array_of(group, "sample", where)[at["sample"]])
    return "_".join(
        (modality, name, *(str(index) for dimension, index in at.items() if dimension != "sample"))
    )


def _cloud_mask(group: zarr.Group, where: str, at: dict[str, int]) -> dict[str, pystac.Asset]:
    if CLOUDS not in group:
        return {}
    dimensions = zarr_store.dimensions(group[CLOUDS], where)
    base = where.removesuffix(PIXELS) + CLOUDS
    asset = items.asset(
        "/".join(
            (base, *(str(index) for dimension, index in at.items() if dimension in dimensions))
        )
    )
    asset.extra_fields["terrapair:clear_values"] = CLEAR_VALUES
    return {CLOUDS: asset}


def _label(path: Path, store: str) -> dict[str, pystac.Asset]:
    """Return the land cover of the same store in the shard of the same name."""
    labels = path.parents[1] / LABELS / path.name
    if not labels.exists() or store not in zarr_store.store_names(str(labels)):
        return {}
    where = f"{labels}#{store}/{PIXELS}"
    at = next(_indexes(zarr_store.open_group(str(labels), store), PIXELS, where))
    return {"label": items.label("/".join((where, *map(str, at.values()))), "terramesh_lulc", 0)}
