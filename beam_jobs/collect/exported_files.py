"""Exported files: where batch tasks leave scenes, and the catalog over them.

Input: the ledger of an export. Output: STAC items. If the bucket is mounted or copied
(`export.local_dir`), the exported files are split into the files that a fetch writes.
Otherwise the items name the files in the bucket.
"""

from __future__ import annotations

import glob
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
    """Return the path of a scene in the bucket, without ending."""
    return f"{config.prefix}/{unit.stem}_{sensor}"


def items(
    entries: Path, folder: JobFolder, config: FetchConfig, num_left_out: Counter[str]
) -> Iterator[pystac.Item]:
    """Yield the items of all exported pairs, by unit.

    Args:
        entries: folder of the ledger, on this machine.
        folder: folder of the job.
        config: settings of the job.
        num_left_out: reason -> number; pairs whose pixels are too cloudy or empty are
            added to it.

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
    """Write the files that a fetch would have written, and return the two items."""
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
    """Yield items over the files in the bucket.

    The href of a TFRECORD is its mixer; `#label` after it means the band of the label.
    """
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
            # Cloud score and label follow the bands in the file.
            for index, band in enumerate(item.assets["data"].extra_fields["bands"], start=1):
                band["terrapair:index"] = index
        if not is_tiff:
            item.assets["data"].media_type = pystac.MediaType.JSON
        yield item


def _ending(config: ExportConfig) -> str:
    return ".tif" if config.file_format == "GEO_TIFF" else "-mixer.json"


def _planes(unit: Unit, request: PixelRequest, config: ExportConfig) -> npt.NDArray[Any]:
    """Return all bands of an exported image [C, H, W], in the order of the request.

    Raises:
        DataError: reason missing_file; the image or a part of it is missing.
    """
    whole = Path(config.local_dir) / f"{prefix_of(unit, request.sensor, config)}{_ending(config)}"
    if whole.exists():
        with open_raster(str(whole)) as raster:
            return _read(raster, request)
    planes: npt.NDArray[Any] = np.zeros(
        (len(request.answer_bands), request.height, request.width), request.dtype
    )
    is_there = np.zeros((request.height, request.width), bool)
    # A large image is split into several GeoTIFFs: <name>-<first row>-<first
    # column>.tif, ten digits each.
    for part in sorted(
        whole.parent.glob(f"{glob.escape(whole.stem)}-{'[0-9]' * 10}-{'[0-9]' * 10}{whole.suffix}")
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
            f"{whole}: exported, but not there yet; copy it (gcloud storage rsync -r "
            f"gs://{config.bucket} {config.local_dir}) and run the same command again",
            "missing_file",
        )
    return planes


def _read(raster: Raster, request: PixelRequest) -> npt.NDArray[Any]:
    """Read the bands by name, since TFRecords have no order of bands."""
    missing = [name for name in request.answer_bands if name not in raster.descriptions]
    if missing:
        raise DataError(
            f"{raster.name}: bands {missing} are missing, found {raster.descriptions}; "
            f"export the unit again",
            "missing_bands",
        )
    return raster.read([raster.descriptions.index(name) + 1 for name in request.answer_bands])
