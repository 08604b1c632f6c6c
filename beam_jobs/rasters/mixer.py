"""Mixer files: where the patches of an Earth Engine TFRecord export lie.

Input: the path of a `<name>-mixer.json` or `<name>.json`. Output: its Mixer and the
TFRecord files of the export.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from beam_jobs.errors import DataError
from beam_jobs.rasters.sources import parse_crs

MIXER_SUFFIX = ".json"
"""End of the name of a mixer file: `<name>-mixer.json`, or `<name>.json`.

Source: https://developers.google.com/earth-engine/guides/tfrecord (both names).
"""
_NAMED_MIXER = "mixer.json"
_MAX_MIXER_BYTES = 1 << 20
"""A mixer has about a kilobyte. Catalogs of the same ending may have gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """The content of a mixer file; patch sizes exclude the margin of the kernel."""

    crs: CRS
    transform: Affine
    patch_height: int
    patch_width: int
    patches_per_row: int
    num_patches: int


def read_mixer(path: Path) -> Mixer:
    """Return the mixer in a file.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field of a mixer.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        width, height = values["patchDimensions"]
        mixer = Mixer(
            crs=parse_crs(str(values["projection"]["crs"])),
            transform=Affine(*values["projection"]["affine"]["doubleMatrix"]),
            patch_height=int(height),
            patch_width=int(width),
            patches_per_row=int(values["patchesPerRow"]),
            num_patches=int(values["totalPatches"]),
        )
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: the mixer file is missing; without it the patches have no place",
            "missing_file",
        ) from error
    except (ValueError, KeyError, TypeError, CRSError) as error:
        detail = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path}: not a mixer file of Earth Engine: {detail}", "bad_mixer"
        ) from error
    sizes = (mixer.patch_height, mixer.patch_width, mixer.patches_per_row, mixer.num_patches)
    if min(sizes) < 1 or mixer.num_patches % mixer.patches_per_row:
        raise DataError(
            f"{path}: needs sizes above 0 and whole rows of patches, "
            f"got {mixer.num_patches} patches, "
            f"{mixer.patches_per_row} a row, of {mixer.patch_width} x {mixer.patch_height} px",
            "bad_mixer",
        )
    return mixer


def record_paths(mixer_path: Path) -> list[Path]:
    """Return the TFRecord files of a mixer in order.

    They are `<name>-00000.tfrecord.gz`, ..., or `<name>.tfrecord.gz` alone.

    Raises:
        DataError: a number is missing between them or comes twice.
    """
    pattern = re.compile(re.escape(stem(mixer_path)) + r"(?:-?(\d{5}))?\.tfrecord(?:\.gz)?")
    matches = [
        (pattern.fullmatch(path.name), path) for path in mixer_path.parent.glob("*.tfrecord*")
    ]
    numbered = sorted((int(match[1] or 0), path) for match, path in matches if match)
    numbers = [number for number, _ in numbered]
    if numbers != list(range(len(numbers))):
        raise DataError(
            f"{mixer_path}: the TFRecord files beside it must be numbered from 0 without gaps, "
            f"got {numbers}",
            "missing_file",
        )
    return [path for _, path in numbered]


def stem(mixer_path: Path) -> str:
    """Return the beginning of the names of an export's files."""
    name = mixer_path.name
    if name.endswith(_NAMED_MIXER):
        return name.removesuffix(_NAMED_MIXER).removesuffix("-")
    return name.removesuffix(MIXER_SUFFIX)


def is_mixer(path: Path) -> bool:
    """Return whether a file is a mixer: by its name, or by what it holds.

    Other files end with `.json` too, such as STAC items.
    """
    if path.name.endswith(_NAMED_MIXER):
        return True
    if not path.name.endswith(MIXER_SUFFIX):
        return False
    try:
        if path.stat().st_size > _MAX_MIXER_BYTES:
            return False
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"projection", "patchDimensions"} <= set(values)
