"""Footprints: one scene over the antimeridian is the same however its catalog writes it."""

import numpy as np
import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from beam_jobs.scenes import footprints

SPLIT = MultiPolygon([box(179.0, -18.0, 180.0, -17.0), box(-180.0, -18.0, -179.0, -17.0)])
JUMPING = Polygon([(179.0, -18.0), (-179.0, -18.0), (-179.0, -17.0), (179.0, -17.0)])


@pytest.mark.parametrize(
    "written", [SPLIT, JUMPING, box(179, -18, 181, -17), box(-181, -18, -179, -17)]
)
def test_a_scene_over_the_antimeridian_becomes_its_two_parts(written):
    found = footprints.on_globe(mapping(written))
    assert shapely.equals(found, SPLIT)
    assert sorted(part.bounds for part in found.geoms) == [
        (-180, -18, -179, -17),
        (179, -18, 180, -17),
    ]


@pytest.mark.parametrize(
    "written", [box(10, 45, 11, 46), box(179, 0, 180, 1), box(-180, 0, -179.5, 1)]
)
def test_a_scene_elsewhere_stays_as_it_is(written):
    assert shapely.equals(footprints.on_globe(written), written)


def test_a_ring_that_crosses_itself_is_mended_and_what_has_no_area_is_empty():
    bow = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    assert footprints.on_globe(bow).area == pytest.approx(2.0)
    assert footprints.on_globe(shapely.Point(3, 4)).is_empty


def test_bounds_of_a_utm_zone_that_reach_over_the_antimeridian_give_two_boxes():
    bounds = (150_000.0, 8_000_000.0, 250_000.0, 8_100_000.0)
    found = footprints.of_bounds("EPSG:32701", bounds)
    to_lonlat = Transformer.from_crs("EPSG:32701", "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(np.linspace(150_001, 249_999, 9), np.linspace(8_000_001, 8_099_999, 9))
    lon, lat = to_lonlat.transform(x.ravel(), y.ravel())
    assert lon.min() < -179.3
    assert lon.max() > 179.6
    assert all(shapely.intersects_xy(found, lon, lat))
    # No wider than the scene, about 0.95 degrees.
    assert sum(part.bounds[2] - part.bounds[0] for part in found.geoms) == pytest.approx(
        0.96, abs=0.02
    )


def test_overlap_is_the_share_of_the_smaller_one_and_0_of_nothing():
    fixed = box(10, 45, 11, 46)
    others = [
        fixed,
        box(10.5, 45, 11.5, 46),
        box(10.4, 45.4, 10.5, 45.5),
        box(30, 45, 31, 46),
        Polygon(),
    ]
    found = footprints.overlap_fractions(np.array([fixed] * 5), np.array(others))
    assert found == pytest.approx([1.0, 0.5, 1.0, 0.0, 0.0])
