"""Patch files: the GeoTIFFs of a unit, and checks of their quality.

Input: the GeoTIFF that Earth Engine answered, or its planes. Output: `<stem>_s1.tif`,
`<stem>_s2.tif`, `<stem>_cloud.tif` and `<stem>_label.tif`. A data file that exists is
complete, and the files that belong to it were written before. A stem is a path or a URI
of an object store without ending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pystac
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from beam_jobs.collect import collecting
from beam_jobs.collect.collecting import Pair, Unit
from beam_jobs.collect.config import CollectConfig
from beam_jobs.contracts.bands import S1_NODATA, S2_NODATA
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.requests import (
    CLOUD_SCORE_BAND,
    CLOUD_SCORE_NODATA,
    CLOUD_SCORE_SCALE,
    LABEL_BAND,
    PixelRequest,
)
from beam_jobs.errors import DataError
from beam_jobs.rasters import writing
from beam_jobs.rasters.geotiff import write_geotiff
from beam_jobs.scenes.grids import Grid
from beam_jobs.storage import files

FileKind = Literal["s1", "s2", "cloud", "label"]
KINDS: tuple[FileKind, ...] = ("s1", "s2", "cloud", "label")
CLOUD_UNKNOWN = 255
"""Value of a cloud mask where neither cloud nor clear sky is known."""


@dataclass(frozen=True, kw_only=True)
class OpticalPatch:
    """Sentinel-2 of a unit, split into bands, cloud and label.

    Attributes:
        data: uint16 [C, H, W], DN, 0 = no data.
        cloud: uint8 [H, W], 1 cloud, 0 clear, 255 unknown; None when no score was asked
            for.
        label: uint8 [H, W], 255 = ignore; None when none was asked for.
    """

    data: npt.NDArray[np.uint16]
    cloud: npt.NDArray[np.uint8] | None
    label: npt.NDArray[np.uint8] | None

    @property
    def cloud_fraction(self) -> float | None:
        """Share of valid pixels that are not clear, 0-1; None without a mask."""
        if self.cloud is None:
            return None
        valid = (self.data != S2_NODATA).any(axis=0)
        return float((self.cloud[valid] != 0).mean()) if valid.any() else 1.0


def decode_s1(answer: bytes) -> npt.NDArray[np.float32]:
    """Return `radar_of` the bytes of a GeoTIFF."""
    return radar_of(_read(answer))


def decode_s2(answer: bytes, request: PixelRequest, config: CollectConfig) -> OpticalPatch:
    """Return `optical_of` the bytes of a GeoTIFF."""
    return optical_of(_read(answer), request, config)


def radar_of(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return float32 [C, H, W] dB, NaN = no data, of planes from Earth Engine."""
    data = planes.astype(np.float32)
    data[data == S1_NODATA] = np.nan
    return data


def optical_of(
    stored: npt.NDArray[Any], request: PixelRequest, config: CollectConfig
) -> OpticalPatch:
    """Return bands, cloud mask and label of the planes [C, H, W] of a request."""
    planes = dict(zip(request.answer_bands, stored.astype(np.uint16, copy=False), strict=True))
    cloud = label = None
    if CLOUD_SCORE_BAND in planes:
        score = planes[CLOUD_SCORE_BAND]
        cloud = (score < config.earth_engine.min_clear_score * CLOUD_SCORE_SCALE).astype(np.uint8)
        cloud[score == CLOUD_SCORE_NODATA] = CLOUD_UNKNOWN
    if LABEL_BAND in planes:
        label = planes[LABEL_BAND].astype(np.uint8)
    return OpticalPatch(
        data=np.stack([planes[name] for name in request.bands]), cloud=cloud, label=label
    )


def check_s1(data: npt.NDArray[np.float32], config: CollectConfig) -> None:
    """Check that a radar patch has enough measurements.

    Raises:
        DataError: reason s1_invalid.
    """
    _check_valid(float(np.isfinite(data).all(axis=0).mean()), "Sentinel-1", "s1_invalid", config)


def check_s2(patch: OpticalPatch, config: CollectConfig) -> None:
    """Check that an optical patch has enough measurements and little cloud.

    Raises:
        DataError: reason s2_invalid or too_cloudy.
    """
    _check_valid(
        float((patch.data != S2_NODATA).any(axis=0).mean()), "Sentinel-2", "s2_invalid", config
    )
    cloud = patch.cloud_fraction
    if cloud is not None and cloud > config.max_cloud_fraction:
        limit = f"max_cloud_fraction is {config.max_cloud_fraction:g}"
        raise DataError(f"Sentinel-2 is {100 * cloud:.0f} % cloud; {limit}", "too_cloudy")


def write_s1(stem: str, data: npt.NDArray[np.float32], grid: Grid, config: CollectConfig) -> None:
    """Write the radar file."""
    path = path_of(stem, "s1")
    _write(path, data, grid, nodata=float("nan"), band_names=config.s1_bands)


def write_s2(stem: str, patch: OpticalPatch, grid: Grid, config: CollectConfig) -> None:
    """Write the cloud mask, the label and last the optical file."""
    planes: dict[FileKind, npt.NDArray[np.uint8] | None] = {
        "cloud": patch.cloud,
        "label": patch.label,
    }
    for kind, plane in planes.items():
        if plane is not None:
            _write(path_of(stem, kind), plane[None], grid, nodata=IGNORE, band_names=(kind,))
    path = path_of(stem, "s2")
    _write(path, patch.data, grid, nodata=S2_NODATA, band_names=config.bands_of_s2)


def stored_cloud_fraction(stem: str) -> float | None:
    """Return `OpticalPatch.cloud_fraction` of files that are written already.

    Returns None if there is no cloud file.
    """
    if not files.exists(path_of(stem, "cloud")):
        return None
    cloud = _read(files.read_bytes(path_of(stem, "cloud")))
    data = _read(files.read_bytes(path_of(stem, "s2")))
    return OpticalPatch(data=data, cloud=cloud[0], label=None).cloud_fraction


def path_of(stem: str, kind: FileKind) -> str:
    """Return the path or URI of one file of a unit."""
    return f"{stem}_{kind}.tif"


def stac_items(
    unit: Unit, pair: Pair, config: CollectConfig, cloud_fraction: float | None
) -> list[pystac.Item]:
    """Return the two items of a unit whose files lie below the catalog's folder.

    The hrefs are relative to that folder.
    """
    assets: dict[str, FileKind] = {"data": "s2"}
    if config.earth_engine.cloud_score:
        assets["cloud_mask"] = "cloud"
    if config.earth_engine.label != "none":
        assets["label"] = "label"
    of_s2 = {asset: _href(unit, kind) for asset, kind in assets.items()}
    return [
        collecting.stac_item(pair.s1, unit, config=config, hrefs={"data": _href(unit, "s1")}),
        collecting.stac_item(
            pair.s2, unit, config=config, hrefs=of_s2, cloud_fraction=cloud_fraction
        ),
    ]


def _href(unit: Unit, kind: FileKind) -> str:
    return f"./{path_of(unit.stem, kind)}"


def _check_valid(fraction: float, sensor: str, reason: Reason, config: CollectConfig) -> None:
    if fraction < config.min_valid_fraction:
        limit = f"min_valid_fraction is {config.min_valid_fraction:g}"
        raise DataError(
            f"{sensor} has measurements in {100 * fraction:.0f} % of the pixels; {limit}", reason
        )


def _read(answer: bytes) -> npt.NDArray[Any]:
    try:
        with MemoryFile(answer) as file, file.open() as dataset:
            return dataset.read()
    except RasterioError as error:
        raise EarthEngineError(
            f"the answer is not a complete GeoTIFF: {error}", "truncated"
        ) from error


def _write(
    path: str, data: npt.NDArray[Any], grid: Grid, *, nodata: float, band_names: tuple[str, ...]
) -> None:
    """Write a compressed GeoTIFF; it gets its name only once it is complete.

    The same pixels give the same bytes.
    """
    if is_remote(path):
        with MemoryFile() as file:
            write_geotiff(file.name, data, grid.crs, grid.affine, nodata, band_names)
            content = file.read()
        files.write_bytes(path, content)
        return
    with files.local_target(path) as partial, writing.whole(partial):
        write_geotiff(partial, data, grid.crs, grid.affine, nodata, band_names)
