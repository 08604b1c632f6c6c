"""Patch files: the answer of Earth Engine -> GeoTIFFs of a unit, and what they say about its quality.

Input: bytes of a whole GeoTIFF. Output: `<stem>_s1.tif`, `<stem>_s2.tif`, `<stem>_cloud.tif`, `<stem>_label.tif`. A data
file that is visible is whole, and what goes with it was written before. Called by `fetch.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from beam_jobs import collecting
from beam_jobs.collecting import Pair, Unit
from beam_jobs.contracts.bands import S1_NODATA, S2_NODATA
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.requests import (
    CLOUD_SCORE_BAND,
    CLOUD_SCORE_NODATA,
    CLOUD_SCORE_SCALE,
    LABEL_BAND,
    PixelRequest,
)
from beam_jobs.earth_engine_config import CollectConfig
from beam_jobs.errors import DataError
from beam_jobs.grids import Grid

NAMES = ("s1", "s2", "cloud", "label")
CLOUD_UNKNOWN = 255
"""In a cloud mask: neither known to be cloud nor clear."""


@dataclass(frozen=True, kw_only=True)
class OpticalPatch:
    """Sentinel-2 of a unit, taken apart.

    Attributes:
        data: uint16 [C, H, W], DN, 0 = no data.
        cloud: uint8 [H, W], 1 cloud, 0 clear, 255 unknown; None when no score was asked for.
        label: uint8 [H, W], 255 = ignore; None when none was asked for.
    """

    data: npt.NDArray[np.uint16]
    cloud: npt.NDArray[np.uint8] | None
    label: npt.NDArray[np.uint8] | None

    @property
    def cloud_fraction(self) -> float | None:
        """Share of valid pixels not known to be clear, 0-1; None without a mask."""
        if self.cloud is None:
            return None
        valid = (self.data != S2_NODATA).any(axis=0)
        return float((self.cloud[valid] != 0).mean()) if valid.any() else 1.0


def decode_s1(answer: bytes) -> npt.NDArray[np.float32]:
    """float32 [C, H, W] dB, NaN = no data."""
    data = _read(answer).astype(np.float32)
    data[data == S1_NODATA] = np.nan
    return data


def decode_s2(answer: bytes, request: PixelRequest, config: CollectConfig) -> OpticalPatch:
    """Bands, cloud mask and label of the answer to `request`."""
    planes = dict(zip(request.answer_bands, _read(answer), strict=True))
    cloud = label = None
    if CLOUD_SCORE_BAND in planes:
        score = planes[CLOUD_SCORE_BAND]
        cloud = (score < config.earth_engine.min_clear_score * CLOUD_SCORE_SCALE).astype(np.uint8)
        cloud[score == CLOUD_SCORE_NODATA] = CLOUD_UNKNOWN
    if LABEL_BAND in planes:
        label = planes[LABEL_BAND].astype(np.uint8)
    return OpticalPatch(data=np.stack([planes[name] for name in request.bands]), cloud=cloud, label=label)


def check_s1(data: npt.NDArray[np.float32], config: CollectConfig) -> None:
    """Refuses a radar patch with too few measurements.

    Raises:
        DataError: reason s1_invalid.
    """
    _check_valid(float(np.isfinite(data).all(axis=0).mean()), "Sentinel-1", "s1_invalid", config)


def check_s2(patch: OpticalPatch, config: CollectConfig) -> None:
    """Refuses an optical patch with too few measurements or too much cloud.

    Raises:
        DataError: reason s2_invalid or too_cloudy.
    """
    _check_valid(float((patch.data != S2_NODATA).any(axis=0).mean()), "Sentinel-2", "s2_invalid", config)
    cloud = patch.cloud_fraction
    if cloud is not None and cloud > config.max_cloud_fraction:
        limit = f"max_cloud_fraction is {config.max_cloud_fraction:g}"
        raise DataError(f"Sentinel-2 is {100 * cloud:.0f} % cloud; {limit}", "too_cloudy")


def write_s1(stem: Path, data: npt.NDArray[np.float32], grid: Grid, config: CollectConfig) -> int:
    """Writes the radar file; returns its bytes."""
    return _write(path_of(stem, "s1"), data, grid, float("nan"), config.s1_bands)


def write_s2(stem: Path, patch: OpticalPatch, grid: Grid, config: CollectConfig) -> int:
    """Writes cloud mask, label and then the optical file; returns their bytes."""
    num_bytes = 0
    for name, plane in (("cloud", patch.cloud), ("label", patch.label)):
        if plane is not None:
            num_bytes += _write(path_of(stem, name), plane[None], grid, IGNORE, (name,))
    return num_bytes + _write(path_of(stem, "s2"), patch.data, grid, S2_NODATA, config.bands_of_s2)


def cloud_fraction_on_disk(stem: Path) -> float | None:
    """What `OpticalPatch.cloud_fraction` was before the files were written; None without a cloud file."""
    cloud = path_of(stem, "cloud")
    if not cloud.exists():
        return None
    with rasterio.open(cloud) as mask, rasterio.open(path_of(stem, "s2")) as data:
        return OpticalPatch(data=data.read(), cloud=mask.read(1), label=None).cloud_fraction


def path_of(stem: Path, name: str) -> Path:
    """File of a unit: name is one of NAMES."""
    return stem.with_name(f"{stem.name}_{name}.tif")


def stac_items(
    unit: Unit, pair: Pair, folder: Path, config: CollectConfig, cloud_fraction: float | None
) -> list[pystac.Item]:
    """The two items of a unit whose files lie in the folder; hrefs are relative to it."""
    found = {name: path_of(folder / unit.stem, name) for name in NAMES}
    hrefs = {name: f"./{path.relative_to(folder)}" for name, path in found.items() if path.exists()}
    names = {"data": "s2", "cloud_mask": "cloud", "label": "label"}
    of_s2 = {asset: hrefs[name] for asset, name in names.items() if name in hrefs}
    return [
        collecting.stac_item(pair.s1, unit, config, {"data": hrefs["s1"]}),
        collecting.stac_item(pair.s2, unit, config, of_s2, cloud_fraction),
    ]


def _check_valid(fraction: float, sensor: str, reason: str, config: CollectConfig) -> None:
    if fraction < config.min_valid_fraction:
        limit = f"min_valid_fraction is {config.min_valid_fraction:g}"
        raise DataError(f"{sensor} has measurements in {100 * fraction:.0f} % of the pixels; {limit}", reason)


def _read(answer: bytes) -> npt.NDArray[Any]:
    try:
        with MemoryFile(answer) as file, file.open() as dataset:
            return dataset.read()
    except RasterioError as error:
        raise EarthEngineError(f"the answer is no whole GeoTIFF: {error}", "truncated") from error


def _write(path: Path, data: npt.NDArray[Any], grid: Grid, nodata: float, band_names: tuple[str, ...]) -> int:
    """Writes a compressed GeoTIFF under its name only once it is whole; the same pixels give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with rasterio.open(
        partial,
        "w",
        driver="GTiff",
        count=len(data),
        height=grid.height,
        width=grid.width,
        dtype=data.dtype.name,
        crs=grid.crs,
        transform=grid.affine,
        nodata=nodata,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        interleave="band",
        compress="deflate",
        # Level 1 and a predictor: a third of the time of the default level, and files only a few percent larger.
        zlevel=1,
        predictor=3 if data.dtype == np.float32 else 2,
    ) as dataset:
        dataset.write(data)
        dataset.descriptions = band_names
    num_bytes = partial.stat().st_size
    os.replace(partial, path)
    return num_bytes
