"""Spacing on the sphere, over the poles and across the antimeridian."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts.sphere import distance_km, unit_vectors
from beam_jobs.places.spacing import Spacing


def kept(places: list[tuple[float, float]], min_distance_km: float) -> list[int]:
    spacing, numbers = Spacing(min_distance_km), []
    vectors = unit_vectors([lon for lon, _ in places], [lat for _, lat in places])
    points = vectors.tolist()
    for number, cube in enumerate(spacing.cubes(vectors)):
        if spacing.nearest_conflict(points[number], cube) is None:
            spacing.add(points[number], cube)
            numbers.append(number)
    return numbers


@given(st.data(), st.sampled_from([0.01, 4.0, 300.0, 15_000.0]))
def test_keeps_what_comparing_all_with_all_keeps(data, min_distance_km):
    # Places within some distances of each other, anywhere on Earth: the antimeridian
    # and the poles among them.
    lon = data.draw(st.sampled_from([0.0, 179.999, -180.0, 90.0]))
    lat = data.draw(st.sampled_from([0.0, 89.9999, -90.0, 45.0]))
    spread = min(60.0, 3 * min_distance_km / 111.0)
    steps = data.draw(
        st.lists(st.tuples(*(st.floats(-spread, spread),) * 2), min_size=2, max_size=25)
    )
    places = [
        ((lon + east + 180) % 360 - 180, min(90.0, max(-90.0, lat + north)))
        for east, north in steps
    ]
    expected: list[int] = []
    for number, place in enumerate(places):
        gaps = [distance_km(*place, *places[other]) for other in expected]
        if any(abs(gap - min_distance_km) < 1e-6 for gap in gaps):
            return
        if all(gap > min_distance_km for gap in gaps):
            expected.append(number)
    assert kept(places, min_distance_km) == expected


def test_distance_zero_refuses_only_the_very_same_place():
    assert kept([(10.0, 50.0), (10.00001, 50.0), (10.0, 50.0), (180.0, 0.0), (-180.0, 0.0)], 0.0)[
        :2
    ] == [0, 1]
    assert 2 not in kept([(10.0, 50.0), (10.00001, 50.0), (10.0, 50.0)], 0.0)


def test_all_longitudes_at_a_pole_are_one_place():
    assert kept([(0.0, 90.0), (90.0, 90.0), (-180.0, 90.0), (0.0, -90.0)], 1.0) == [0, 3]


def test_dense_cubes_remember_every_point():
    rng = np.random.default_rng(0)
    places = [(float(x), float(y)) for x, y in rng.uniform(0, 0.2, (200, 2))]
    numbers = kept(places, 2.0)
    gaps = [distance_km(*places[i], *places[j]) for i in numbers for j in numbers if i < j]
    assert min(gaps) >= 2.0
    # Each place left out is near one that was kept.
    assert all(
        min(distance_km(*places[i], *places[j]) for j in numbers) < 2.0
        for i in set(range(200)) - set(numbers)
    )
