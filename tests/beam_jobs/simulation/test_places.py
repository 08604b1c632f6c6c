"""Places: real UTM zones, the 10 m grid, no overlap."""

from itertools import pairwise

import pytest
from pyproj import Transformer

from beam_jobs.simulation.places import make_place


@pytest.mark.parametrize("index", [0, 4, 9, 500, 9_999])
def test_place_lies_in_its_own_utm_zone_on_the_grid(index: int) -> None:
    place = make_place(index, 3, 512)
    lon, lat = place.centre()
    zone = place.epsg % 100
    assert abs(lon - (6 * zone - 183)) < 3.6
    assert (lat < 0) == (place.epsg // 100 == 327)
    assert place.xmin % 10 == 0
    assert place.ymax % 10 == 0
    assert -80 < lat < 84


def test_footprint_is_a_counter_clockwise_ring_of_the_right_size() -> None:
    place = make_place(2, 0, 400)
    ring = place.footprint()
    assert ring[0] == ring[-1]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
    assert area > 0
    x, y = Transformer.from_crs(4326, place.epsg, always_xy=True).transform(
        *zip(*ring, strict=True)
    )
    assert max(x) - min(x) == pytest.approx(4_000, abs=0.1)
    assert max(y) == pytest.approx(place.ymax, abs=0.1)


def test_places_never_overlap() -> None:
    for size_px in (512, 3_000):
        squares = [make_place(i, 1, size_px) for i in range(120)]
        side = size_px * 10
        for i, a in enumerate(squares):
            for b in squares[i + 1 :]:
                apart = abs(a.xmin - b.xmin) >= side or abs(a.ymax - b.ymax) >= side
                assert a.epsg != b.epsg or apart


def test_more_places_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 10000 places"):
        make_place(10_000, 0, 64)
