"""A coarse map of land and sea: the background of the map in the data card.

The cells are half a degree wide. The map is kept in `land.png` because the package it
was made from, global-land-mask, takes 1 GB of memory. A test makes it again.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import numpy as np
import numpy.typing as npt
from PIL import Image

NUM_ROWS, NUM_COLUMNS = 360, 720


@lru_cache(maxsize=1)
def land_mask() -> npt.NDArray[np.bool_]:
    """Return the map: True = at least half of the cell is land.

    Returns:
        bool [360, 720]. Row 0 begins at 90 degrees north, column 0 at 180 degrees west.

    Source: NOAA GLOBE 1 km elevation model (public domain), through global-land-mask
    1.0.0 (MIT).
    """
    with resources.files("beam_jobs.data_card").joinpath("land.png").open("rb") as file:
        return np.asarray(Image.open(file), dtype=bool)
