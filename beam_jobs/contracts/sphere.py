"""Points on a sphere and the distances between them.

Input: longitudes and latitudes in degrees. Output: unit vectors, or kilometres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EARTH_RADIUS_KM = 6371.0088
"""Mean radius R1 of the Earth.

Source: Moritz 2000, Geodetic Reference System 1980, Journal of Geodesy 74.
"""


def unit_vectors(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return points on the unit sphere, float64 [..., 3].

    Poles and the antimeridian need no special treatment in this form.

    Args:
        lon: longitudes in degrees [...].
        lat: latitudes in degrees [...].
    """
    lam, phi = np.radians(np.asarray(lon, np.float64)), np.radians(np.asarray(lat, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def distance_km(
    lon0: npt.ArrayLike, lat0: npt.ArrayLike, lon1: npt.ArrayLike, lat1: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the great-circle distances between places, in kilometres.

    All arguments are in degrees, and their shapes must broadcast.
    """
    # The chord is used because the cosine of a short distance rounds to 1.
    chord = np.linalg.norm(unit_vectors(lon0, lat0) - unit_vectors(lon1, lat1), axis=-1)
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(1.0, chord / 2))
