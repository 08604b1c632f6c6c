"""Golden answers: what the trained Keras model answered when it was exported.

Input: Keras models. Output: `assets.extra/golden.npz` with pixels and the outputs of
each signature. The canary compares a SavedModel with them in a process that holds no
Keras model, as a server does. The pixels have two sizes, a corner without data and one
patch without any data. They are rounded as records store them, so serialized examples
of them give the same answers.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.locations import content_of, locate
from beam_jobs.contracts.published import ASSETS_DIR, CURE

GOLDEN_NAME = "golden.npz"
SIZES_IN_STRIDES = ((2, 2), (3, 1))
"""Height and width of the golden patches: one square, one not."""
_DECIMALS: Mapping[Sensor, int] = {"s1": 2, "s2": 4}
"""Records hold backscatter in 0.01 dB and reflectance in 0.0001."""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One call of a signature.

    Attributes:
        signature: name.
        inputs: name -> float32 [B, H, W, C], physical values, NaN = no data.
        outputs: name -> answer of the Keras model.
    """

    signature: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def make_pixels(num_bands: Mapping[Sensor, int], stride: int) -> list[dict[Sensor, Array]]:
    """Return plausible pixels of each size, float32 [3, H, W, C] by sensor.

    A corner of the first two patches has no data; the third has none at all.
    """
    rng = np.random.default_rng(0)
    found: list[dict[Sensor, Array]] = []
    for rows, columns in SIZES_IN_STRIDES:
        height, width = rows * stride, columns * stride
        batch: dict[Sensor, Array] = {}
        for sensor, channels in num_bands.items():
            shape = (3, height, width, channels)
            drawn = (
                rng.normal(-14.0, 5.0, shape) if sensor == "s1" else rng.uniform(0.01, 0.6, shape)
            )
            pixels = np.round(drawn, _DECIMALS[sensor]).astype(np.float32)
            pixels[:, : height // 4, : width // 3] = np.nan
            pixels[2] = np.nan
            batch[sensor] = pixels
        found.append(batch)
    return found


def write(assets_dir: str, calls: Iterable[Golden]) -> None:
    """Write `golden.npz` into a model's `assets.extra`."""
    arrays: dict[str, Array] = {}
    for position, call in enumerate(calls):
        for kind, values in (("in", call.inputs), ("out", call.outputs)):
            for name, value in values.items():
                arrays[f"{position}|{call.signature}|{kind}|{name}"] = np.asarray(value)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (locate(assets_dir) / GOLDEN_NAME).write_bytes(buffer.getvalue())


def read(saved_model_dir: str | os.PathLike[str]) -> list[Golden]:
    """Return the golden answers of a model; empty for models of earlier releases.

    Raises:
        DamagedFileError: the file is not what was written.
    """
    path = locate(saved_model_dir) / ASSETS_DIR / GOLDEN_NAME
    if not path.exists():
        return []
    calls: dict[tuple[str, str], dict[str, dict[str, Array]]] = {}
    with content_of(path, CURE):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                for key in file.files:
                    position, signature, kind, name = key.split("|")
                    call = calls.setdefault((position, signature), {"in": {}, "out": {}})
                    call[kind][name] = file[key]
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(str(error)) from error
        return [
            Golden(signature=signature, inputs=call["in"], outputs=call["out"])
            for (_, signature), call in calls.items()
        ]
