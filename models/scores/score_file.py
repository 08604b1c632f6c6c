"""The file of a split's scores: one small `.npz`.

Input: `PatchScores`. Output: NumPy arrays and a JSON header, as bytes, and the scores
read back from them.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib

import numpy as np

from beam_jobs.contracts.archives import Bounds, check_zip
from beam_jobs.contracts.locations import locate
from models.scores.patch_scores import PatchScores

SCORES_NAME = "eval_scores.npz"
"""File in assets.extra of a published segmenter: the scores on its eval split."""

FORMAT_VERSION = 1
_BOUNDS = Bounds(max_members=100, max_bytes=16 << 30)
_HEADER = "header"


def write_scores(path: str | os.PathLike[str], scores: PatchScores) -> None:
    """Write `scores` to `path`; equal scores give equal bytes."""
    header = {
        "format_version": FORMAT_VERSION,
        "class_names": scores.class_names,
        "threshold": scores.threshold,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_HEADER: np.array(json.dumps(header))}, **scores.arrays())
    locate(path).write_bytes(buffer.getvalue())


def read_scores(path: str | os.PathLike[str]) -> PatchScores:
    """Return the scores that `write_scores` wrote to `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, is no file of scores, or has another format
            version.
    """
    content = locate(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_zip(archive, _BOUNDS)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
    except (
        ValueError,
        KeyError,
        OSError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: must be a complete file of scores: {error}") from error
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version must be {FORMAT_VERSION}, got {header.get('format_version')}"
        )
    arrays.setdefault("probability_counts", None)
    # Early files have no `event`. Other missing arrays are reported below.
    arrays.setdefault("event", np.full(np.shape(arrays.get("patch_id", ())), ""))
    try:
        return PatchScores(
            class_names=tuple(header["class_names"]), threshold=header["threshold"], **arrays
        )
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: must hold all arrays of scores: {error}") from error
