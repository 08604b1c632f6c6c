"""Where a scene has no data: swath edges, or a margin that both sensors share.

Input: a random stream and the orbit. Output: valid masks, True = usable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beam_jobs.simulation.acquisitions import OrbitState

BoolArray = npt.NDArray[np.bool_]

TRACK_TILT_DEGREES = 12.0
"""Angle between ground track and north at middle latitudes. Source: inclination
98.2-98.6 degrees of both missions."""
MAX_SHARED_MARGIN_FRACTION = 0.1


def track_lean(orbit_state: OrbitState) -> float:
    """Return how many columns the ground track moves east per row towards south.

    The value is above 0 for ascending and below 0 for descending passes. Ascending
    passes drift west on their way north, descending ones on their way south.
    """
    lean = float(np.tan(np.radians(TRACK_TILT_DEGREES)))
    return lean if orbit_state == "ascending" else -lean


def swath_mask(
    rng: np.random.Generator,
    size_px: int,
    *,
    orbit_state: OrbitState,
    edge_probability: float,
    max_width_fraction: float = 0.25,
) -> BoolArray:
    """Return the valid mask bool [H, W] of a scene that may lie on a swath edge.

    The edge is in the west or in the east.

    Args:
        rng: stream of this scene's edge.
        size_px: height and width.
        orbit_state: direction in which the edge leans.
        edge_probability: 0-1, share of scenes with an edge.
        max_width_fraction: widest strip without data, as a share of the width, at
            mid-height.
    """
    has_edge, is_west = rng.random() < edge_probability, rng.random() < 0.5
    width_px = rng.uniform(0.03, max_width_fraction) * size_px
    if not has_edge:
        return np.ones((size_px, size_px), bool)
    rows, columns = np.indices((size_px, size_px), dtype=np.float32)
    shifted = columns - np.float32(track_lean(orbit_state)) * (rows - np.float32(size_px / 2))
    return shifted >= width_px if is_west else shifted <= size_px - 1 - width_px


def shared_margin_mask(rng: np.random.Generator, size_px: int) -> BoolArray:
    """Return a valid mask bool [H, W] with a random margin of 0-10 % on each side.

    Both scenes of a pair get the same mask.
    """
    north, south, west, east = (
        int(x)
        for x in np.rint(rng.uniform(0.0, MAX_SHARED_MARGIN_FRACTION, 4) * size_px).astype(int)
    )
    mask = np.zeros((size_px, size_px), bool)
    mask[north : size_px - south, west : size_px - east] = True
    return mask
