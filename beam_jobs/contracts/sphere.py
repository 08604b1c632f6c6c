"""The sphere: points on it and distances between them.

Degrees -> unit vectors, kilometres. Called by the sampling of places, the loss's
negatives and the search for neighbours. NumPy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EARTH_RADIUS_KM = 6371.0088
"""Mean radius R1. Source: Moritz 2000, Geodetic Reference System 1980, Journal of Geodesy 74."""


def unit_vectors(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Degrees, shape [...] each -> [..., 3]; poles and the antimeridian are points like any other there."""
    lam, phi = np.radians(np.asarray(lon, np.float64)), np.radians(np.asarray(lat, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def distance_km(
    lon0: npt.ArrayLike, lat0: npt.ArrayLike, lon1: npt.ArrayLike, lat1: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Great-circle distances of places in degrees; shapes that broadcast."""
    # By the chord: the cosine of a short distance is 1 to the last digit.
    chord = np.linalg.norm(unit_vectors(lon0, lat0) - unit_vectors(lon1, lat1), axis=-1)
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(1.0, chord / 2))
