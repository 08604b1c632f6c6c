"""Reflectance spectra of the simulated classes in the 13 bands of Sentinel-2.

Source: rounded means of the kind shown in the ECOSTRESS spectral library
(https://speclib.jpl.nasa.gov) for the vegetation, soil and manmade groups, and for
water of turbid inland waters. Atmospheric water absorption is not in them. They are
plausible, not fitted: the simulator is for running and testing.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.contracts.bands import S2_BANDS, S2_L1C_BANDS
from beam_jobs.simulation.landscape import BARE, BUILT, CROPS, GRASS, TREES, WATER

_CIRRUS = S2_L1C_BANDS.index("B10")


def _spectrum(*reflectance: float) -> np.ndarray:
    """Return a spectrum float32 [13] in L1C order from its 12 surface bands.

    B10 is 0, since water vapour absorbs it before it reaches the ground.
    """
    return np.insert(np.array(reflectance, np.float32), _CIRRUS, np.float32(0.0))


#   B1     B2     B3     B4     B5     B6     B7     B8     B8A    B9     B11    B12
CLEAR_WATER = _spectrum(
    0.040, 0.042, 0.045, 0.028, 0.022, 0.016, 0.015, 0.013, 0.012, 0.011, 0.008, 0.006
)
MUDDY_WATER = _spectrum(
    0.060, 0.075, 0.105, 0.110, 0.100, 0.065, 0.062, 0.052, 0.042, 0.035, 0.018, 0.012
)
BARE_SOIL = _spectrum(
    0.090, 0.105, 0.140, 0.185, 0.210, 0.225, 0.240, 0.255, 0.270, 0.280, 0.350, 0.310
)

LOW_SEASON: dict[int, np.ndarray] = {
    WATER: CLEAR_WATER,
    TREES: _spectrum(
        0.030, 0.038, 0.050, 0.050, 0.085, 0.130, 0.150, 0.165, 0.175, 0.180, 0.160, 0.095
    ),
    GRASS: _spectrum(
        0.050, 0.065, 0.095, 0.115, 0.150, 0.185, 0.205, 0.225, 0.240, 0.245, 0.300, 0.210
    ),
    CROPS: BARE_SOIL * np.float32(0.85),
    BUILT: _spectrum(
        0.110, 0.120, 0.135, 0.150, 0.160, 0.170, 0.180, 0.190, 0.195, 0.200, 0.220, 0.205
    ),
    BARE: BARE_SOIL,
}
"""Class id -> reflectance [13] in winter, or without a crop."""
HIGH_SEASON: dict[int, np.ndarray] = {
    WATER: MUDDY_WATER,
    TREES: _spectrum(
        0.022, 0.026, 0.042, 0.026, 0.068, 0.190, 0.245, 0.265, 0.280, 0.285, 0.145, 0.068
    ),
    GRASS: _spectrum(
        0.032, 0.040, 0.075, 0.050, 0.110, 0.240, 0.300, 0.325, 0.340, 0.345, 0.215, 0.115
    ),
    CROPS: _spectrum(
        0.026, 0.030, 0.065, 0.032, 0.095, 0.310, 0.410, 0.445, 0.465, 0.470, 0.190, 0.088
    ),
    BUILT: _spectrum(
        0.110, 0.120, 0.135, 0.150, 0.160, 0.170, 0.180, 0.190, 0.195, 0.200, 0.220, 0.205
    ),
    BARE: BARE_SOIL,
}
"""Class id -> reflectance [13] in summer, or under a closed crop; muddy for water."""
CLOUD = _spectrum(0.62, 0.60, 0.60, 0.61, 0.62, 0.63, 0.64, 0.64, 0.65, 0.60, 0.42, 0.32)
"""Reflectance [13] of thick cloud."""
CLOUD_CIRRUS_REFLECTANCE = 0.03
"""B10 of a high cloud top; the clear sky has 0.001-0.005."""

WAVELENGTH_NM = np.array([S2_BANDS[name].wavelength_nm for name in S2_L1C_BANDS], np.float32)
"""Centre wavelength of each band, float32 [13]."""
