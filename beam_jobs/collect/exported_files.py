"""Exported files: where batch tasks leave the scenes of a unit, and the catalog over them.

Input: the ledger of an export. Output: STAC items. Where the bucket is mounted or
copied (`export.local_dir`), GeoTIFFs and TFRecords are taken apart into the files that
a fetch writes; else items name the files in the bucket as they are. Called by
`export.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac

from beam_jobs.collect import collecting, ledger, patch_files
from beam_jobs.collect.collecting import Pair, Unit
from beam_jobs.collect.config import ExportConfig, FetchConfig
from beam_jobs.collect.job_folder import JobFolder
from beam_jobs.contracts.bands import Sensor
from beam_jobs.earth_engine.requests import PixelRequest
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Raster
from beam_jobs.storage import files


def prefix_of(unit: Unit, sensor: Sensor, config: ExportConfig) -> str:
    """Path of a scene in the bucket, without ending."""
    return f"{config.prefix}/{unit.stem}_{sensor}"


def items(
    entries: Path, folder: JobFolder, config: FetchConfig, num_left_out: Counter[str]
) -> Iterator[pystac.Item]:
    """Items of all exported pairs, by unit.

    Args:
        entries: folder of the ledger, on this machine.
        folder: of the job.
        config: of the job.
        num_left_out: reason -> number; pairs that the pixels show to be too cloudy or
            empty are added to it.

    Raises:
        DataError: a file is not in `export.local_dir`.
    """
    for entry in ledger.done_entries(entries):
        unit, pair = collecting.unit_of(entry), Pair.from_dict(entry)
        if not config.export.local_dir:
            yield from _as_exported(unit, pair, config)
            continue
        try:
            yield from _taken_apart(unit, pair, folder, config)
        except DataError as error:
            if error.reason == "missing_file":
                raise
            num_left_out[error.reason] += 1


def _taken_apart(
    unit: Unit, pair: Pair, folder: JobFolder, config: FetchConfig
) -> list[pystac.Item]:
    """Reads the two exported images, checks them, and writes the files that a fetch would have written."""
    collect, grid = config.collect, collecting.grid_of(unit, config.collect)
    stem = f"{folder.path}/{unit.stem}"
    s1_path, s2_path = patch_files.path_of(stem, "s1"), patch_files.path_of(stem, "s2")
    if not (files.exists(s1_path) and files.exists(s2_path)):
        requests = collecting.pixel_requests(pair, grid, collect)
        patch = patch_files.optical_of(
            _planes(unit, requests["s2"], config.export), requests["s2"], collect
        )
        data = patch_files.radar_of(_planes(unit, requests["s1"], config.export))
        patch_files.check_s2(patch, collect)
        patch_files.check_s1(data, collect)
        patch_files.write_s2(stem, patch, grid, collect)
        patch_files.write_s1(stem, data, grid, collect)
    return patch_files.stac_items(unit, pair, collect, patch_files.stored_cloud_fraction(stem))


def _as_exported(unit: Unit, pair: Pair, config: FetchConfig) -> Iterator[pystac.Item]:
    """Items over the files in the bucket. A TFRECORD is named by its mixer, of which `#label` is the label's band."""
    options = config.export
    is_tiff = options.file_format == "GEO_TIFF"
    for acquisition in (pair.s1, pair.s2):
        stem = f"gs://{options.bucket}/{prefix_of(unit, acquisition.sensor, options)}"
        href = f"{stem}{_ending(options)}"
        hrefs = {"data": href}
        if (
            acquisition.sensor == "s2"
            and config.collect.earth_engine.label != "none"
            and not is_tiff
        ):
            hrefs["label"] = f"{href}#label"
        item = collecting.stac_item(acquisition, unit, config=config.collect, hrefs=hrefs)
        if acquisition.sensor == "s2" and is_tiff:
            # The file has the cloud score and the label behind the bands.
            for index, band in enumerate(item.assets["data"].extra_fields["bands"], start=1):
                band["terrapair:index"] = index
        if not is_tiff:
            item.assets["data"].media_type = pystac.MediaType.JSON
        yield item


def _ending(config: ExportConfig) -> str:
    return ".tif" if config.file_format == "GEO_TIFF" else "-mixer.json"


def _planes(unit: Unit, request: PixelRequest, config: ExportConfig) -> npt.NDArray[Any]:
    """All bands of an exported image [C, H, W], in the order of the request.

    Raises:
        DataError: reason missing_file; it is not there, or not all of it.
    """
    whole = Path(config.local_dir) / f"{prefix_of(unit, request.sensor, config)}{_ending(config)}"
    if whole.exists():
        with open_raster(str(whole)) as raster:
            return _read(raster, request)
    planes: npt.NDArray[Any] = np.zeros(
        (len(request.answer_bands), request.height, request.width), request.dtype
    )
    is_there = np.zeros((request.height, request.width), bool)
    # What is too large for one GeoTIFF lies in several: <name>-<first row>-<first
    # column>.tif, ten digits each.
    for part in sorted(
        whole.parent.glob(f"{whole.stem}-{'[0-9]' * 10}-{'[0-9]' * 10}{whole.suffix}")
    ):
        with open_raster(str(part)) as raster:
            col, row = (
                round(value)
                for value in ~request.grid.affine * (raster.transform.c, raster.transform.f)
            )
            rows, cols = slice(row, row + raster.height), slice(col, col + raster.width)
            planes[:, rows, cols] = _read(raster, request)
        is_there[rows, cols] = True
    if not is_there.all():
        raise DataError(
            f"{whole}: exported, but not there yet; copy it (gcloud storage rsync -r gs://{config.bucket} "
            f"{config.local_dir}) and run the same command again",
            "missing_file",
        )
    return planes


def _read(raster: Raster, request: PixelRequest) -> npt.NDArray[Any]:
    """The bands by their names, since TFRecords have no order."""
    missing = [name for name in request.answer_bands if name not in raster.descriptions]
    if missing:
        raise DataError(
            f"{raster.name}: bands {missing} are missing; it has {raster.descriptions}",
            "missing_bands",
        )
    return raster.read([raster.descriptions.index(name) + 1 for name in request.answer_bands])
