"""Exported files: where batch tasks leave the scenes of a unit, and the catalog over them.

Input: the ledger of an export. Output: STAC items. Where the bucket is mounted or copied (`export.local_dir`), GeoTIFFs are
taken apart into the files that a fetch writes; else items name the files in the bucket as they are. Called by `export.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pystac

from beam_jobs import collecting, ledger, patch_files
from beam_jobs.collecting import Pair, Unit
from beam_jobs.contracts.bands import Sensor
from beam_jobs.earth_engine_config import ExportConfig, FetchConfig
from beam_jobs.errors import DataError
from beam_jobs.job_folder import JobFolder


def prefix_of(unit: Unit, sensor: Sensor, config: ExportConfig) -> str:
    """Path of a scene in the bucket, without ending."""
    return f"{config.prefix}/{unit.stem}_{sensor}"


def items(folder: JobFolder, config: FetchConfig, num_left_out: Counter[str]) -> Iterator[pystac.Item]:
    """Items of all exported pairs, by unit.

    Args:
        folder: of the job.
        config: of the job.
        num_left_out: reason -> number; pairs that the pixels show to be too cloudy or empty are added to it.

    Raises:
        DataError: a file is not in `export.local_dir`.
    """
    for entry in ledger.done_entries(folder.ledger_dir):
        unit, pair = collecting.unit_of(entry), Pair.from_dict(entry)
        if config.export.local_dir and config.export.file_format == "GEO_TIFF":
            try:
                yield from _taken_apart(unit, pair, folder, config)
            except DataError as error:
                if error.reason == "missing_file":
                    raise
                num_left_out[error.reason] += 1
        else:
            yield from _as_exported(unit, pair, config)


def _taken_apart(unit: Unit, pair: Pair, folder: JobFolder, config: FetchConfig) -> list[pystac.Item]:
    """Reads the two exported GeoTIFFs, checks them, and writes the files that a fetch would have written."""
    collect, grid = config.collect, collecting.grid_of(unit, config.collect)
    stem = folder.path / unit.stem
    if not patch_files.path_of(stem, "s1").exists() or not patch_files.path_of(stem, "s2").exists():
        request = collecting.pixel_requests(pair, grid, collect)["s2"]
        patch = patch_files.decode_s2(_read(unit, "s2", config.export), request, collect)
        data = patch_files.decode_s1(_read(unit, "s1", config.export))
        patch_files.check_s2(patch, collect)
        patch_files.check_s1(data, collect)
        patch_files.write_s2(stem, patch, grid, collect)
        patch_files.write_s1(stem, data, grid, collect)
    return patch_files.stac_items(unit, pair, folder.path, collect, patch_files.cloud_fraction_on_disk(stem))


def _as_exported(unit: Unit, pair: Pair, config: FetchConfig) -> Iterator[pystac.Item]:
    """Items over the files in the bucket. A TFRECORD is named by its mixer, of which `#label` is the label's band."""
    options = config.export
    root = options.local_dir or f"gs://{options.bucket}"
    is_tiff = options.file_format == "GEO_TIFF"
    for acquisition in (pair.s1, pair.s2):
        href = f"{root}/{prefix_of(unit, acquisition.sensor, options)}{'.tif' if is_tiff else '-mixer.json'}"
        hrefs = {"data": href}
        if acquisition.sensor == "s2" and config.collect.earth_engine.label != "none" and not is_tiff:
            hrefs["label"] = f"{href}#label"
        item = collecting.stac_item(acquisition, unit, config.collect, hrefs)
        if acquisition.sensor == "s2" and is_tiff:
            # The file has the cloud score and the label behind the bands.
            for index, band in enumerate(item.assets["data"].extra_fields["bands"], start=1):
                band["terrapair:index"] = index
        if not is_tiff:
            item.assets["data"].media_type = pystac.MediaType.JSON
        yield item


def _read(unit: Unit, sensor: Sensor, config: ExportConfig) -> bytes:
    path = Path(config.local_dir) / f"{prefix_of(unit, sensor, config)}.tif"
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: exported, but not there yet; copy it (gcloud storage rsync -r gs://{config.bucket} "
            f"{config.local_dir}) and run the same command again",
            "missing_file",
        ) from error
