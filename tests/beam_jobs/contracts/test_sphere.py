"""Distances against the haversine formula, over the poles and across the antimeridian."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts.sphere import EARTH_RADIUS_KM, distance_km

LON, LAT = st.floats(-180, 180), st.floats(-90, 90)


def haversine_km(lon0: float, lat0: float, lon1: float, lat1: float) -> float:
    lam0, phi0, lam1, phi1 = map(math.radians, (lon0, lat0, lon1, lat1))
    h = (
        math.sin((phi1 - phi0) / 2) ** 2
        + math.cos(phi0) * math.cos(phi1) * math.sin((lam1 - lam0) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))


@given(LON, LAT, LON, LAT)
def test_distance_is_that_of_the_haversine_formula(lon0, lat0, lon1, lat1):
    assert distance_km(lon0, lat0, lon1, lat1) == pytest.approx(
        haversine_km(lon0, lat0, lon1, lat1), abs=1e-3
    )


def test_one_place_has_a_distance_to_each_of_many():
    lon, lat = np.array([10.0, -170.0, 11.0]), np.array([45.0, -45.0, 45.5])
    expected = [0.0, math.pi * EARTH_RADIUS_KM, haversine_km(10.0, 45.0, 11.0, 45.5)]
    np.testing.assert_allclose(distance_km(10.0, 45.0, lon, lat), expected, atol=1e-3)
