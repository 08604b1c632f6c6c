"""Outlines of random rasters; the oracles are their pixels, and GDAL on the whole raster."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio import features

from beam_jobs.predict import outlines
from beam_jobs.predict.outlines import Strip

NO_DATA = 255


def strips_of(ids, num_rows):
    for first in range(0, len(ids), num_rows):
        part = ids[first : first + num_rows]
        yield Strip(first=first, ids=part, is_last=first + len(part) == len(ids))


def canonical(polygons):
    """The polygons as a set: without needless points, from a fixed start."""
    return {shapely.normalize(one).wkb for one in shapely.simplify(polygons, 0.0)}


# Few values in few pixels: holes, islands in holes, and corners that touch are frequent.
rasters = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 1, 2, NO_DATA]),
)


@settings(max_examples=40, deadline=None)
@given(rasters, st.integers(1, 15))
def test_polygons_are_the_pixels_and_whole_across_strips(ids, num_rows):
    found, values = outlines.trace(strips_of(ids, num_rows), [1, 2], 0.0)
    assert shapely.is_valid(found).all()
    for value in (1, 2):
        chosen = found[values == value]
        assert shapely.area(chosen).sum() == (ids == value).sum()
        drawn = features.rasterize(chosen, ids.shape, default_value=1) if len(chosen) else 0 * ids
        np.testing.assert_array_equal(drawn == 1, ids == value)
        whole = features.shapes(ids, ids == value, connectivity=4)
        assert canonical(chosen) == canonical([shapely.geometry.shape(one) for one, _ in whole])


@settings(max_examples=40, deadline=None)
@given(rasters, st.floats(0.3, 1.0))
def test_simpler_outlines_stay_within_the_tolerance_and_leave_no_gap(ids, tolerance):
    found, _ = outlines.trace(strips_of(ids, 99), [0, 1, 2, NO_DATA], 0.0)
    simple = outlines.simplified(found, tolerance)
    assert shapely.is_valid(simple).all()
    moved = shapely.hausdorff_distance(shapely.boundary(found), shapely.boundary(simple))
    assert moved.max() <= tolerance + 1e-9
    # All classes cover the raster once, but for what the tolerance allows at its border.
    together = shapely.union_all(simple)
    assert shapely.area(simple).sum() == pytest.approx(together.area)
    assert together.area <= ids.size
    inner = shapely.box(0, 0, ids.shape[1], ids.shape[0]).buffer(-tolerance)
    assert inner.difference(together.buffer(1e-9)).is_empty
    assert not len(together.interiors)


def test_smooth_areas_need_far_fewer_points():
    y, x = np.mgrid[:200, :200]
    ids = (np.hypot(x - 100, y - 90) < 70).astype(np.uint8)
    ids[np.hypot(x - 100, y - 90) < 30] = 2
    found, values = outlines.trace(strips_of(ids, 64), [1, 2], 0.0)
    assert values.tolist() == [1, 2]
    assert len(found[0].interiors) == 1
    simple = outlines.simplified(found, 1.0)
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(found).sum() / 5
    # The island fills the hole, point by point.
    assert shapely.equals(shapely.polygons(simple[0].interiors[0]), simple[1])


def test_small_areas_are_left_out_after_they_are_joined():
    ids = np.zeros((30, 8), np.uint8)
    ids[5:25, 3] = 1  # 20 pixels in three strips of 10 rows, and one of 5.
    ids[1, 1:6] = 1
    found, _ = outlines.trace(strips_of(ids, 10), [1], 20.0)
    assert shapely.area(found).tolist() == [20.0]
    expected = shapely.box(3, 5, 4, 25)
    assert shapely.equals(found[0], expected)
