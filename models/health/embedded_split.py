"""What the encoders make of a split: features and embeddings of its patches, beside what the records tell of each.

Made by `embeddings.py`; read by all checks of this package and by the encoder's probe.
NumPy only.
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
    """N patches; row i of all arrays is the same patch. A patch without any valid pixel in one sensor is not among them.

    Attributes:
        features: pooled features float32 [N, D] by sensor: what downstream tasks start
            from.
        embeddings: float32 [N, E] by sensor, unit norm: what pairs are compared by.
        lon: of the patch centres, degrees [N].
        lat: of the patch centres, degrees [N].
        block: id of the spatial block, text [N].
        orbit_state: text [N].
        valid_fraction: share of pixels with data, 0-1, [N] by sensor.
        band_means: mean over the valid pixels, dB or reflectance, [N, C] by sensor.
        label: the most frequent label of each patch int64 [N], 255 where it has none;
            None for unlabelled shards.
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
    """The patches at `rows` (a mask or positions) of `split`."""
    taken: dict[str, Any] = {}
    for field in dataclasses.fields(split):
        value = getattr(split, field.name)
        if isinstance(value, dict):
            taken[field.name] = {sensor: array[rows] for sensor, array in value.items()}
        else:
            taken[field.name] = None if value is None else value[rows]
    return EmbeddedSplit(**taken)
