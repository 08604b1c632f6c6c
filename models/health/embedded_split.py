"""EmbeddedSplit: what the encoders compute for a split, with metadata of each patch.

`embeddings.py` makes it; the health checks and the encoder probe read it. NumPy only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EmbeddedSplit:
    """Features, embeddings and metadata of N patches; row i of all arrays is patch i.

    A patch without any valid pixel in one of the sensors is left out.

    Attributes:
        features: pooled features float32 [N, D] by sensor, the input of downstream
            tasks.
        embeddings: embeddings float32 [N, E] by sensor, unit norm. Pairs are compared
            by these.
        lon: longitude of the patch centres, degrees [N].
        lat: latitude of the patch centres, degrees [N].
        block: id of the spatial block, text [N].
        orbit_state: "ascending", "descending" or "unknown", text [N].
        valid_fraction: share of pixels with data, 0-1, [N] by sensor.
        band_means: mean over the valid pixels, in dB or reflectance, [N, C] by sensor.
        label: most frequent label of each patch, int64 [N]; 255 where no pixel has a
            label. None for unlabelled shards.
    """

    features: dict[Sensor, FloatArray]
    embeddings: dict[Sensor, FloatArray]
    lon: FloatArray
    lat: FloatArray
    block: npt.NDArray[np.str_]
    orbit_state: npt.NDArray[np.str_]
    valid_fraction: dict[Sensor, FloatArray]
    band_means: dict[Sensor, FloatArray]
    label: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.lat)


def select(split: EmbeddedSplit, rows: npt.NDArray[Any]) -> EmbeddedSplit:
    """Return the patches of `split` at `rows`, a boolean mask [N] or positions."""
    taken: dict[str, Any] = {}
    for field in dataclasses.fields(split):
        value = getattr(split, field.name)
        if isinstance(value, dict):
            taken[field.name] = {sensor: array[rows] for sensor, array in value.items()}
        else:
            taken[field.name] = None if value is None else value[rows]
    return EmbeddedSplit(**taken)
