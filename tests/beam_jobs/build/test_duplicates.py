"""Duplicates: patches that share more than half of the ground by the same two passes.

The result equals a comparison of every two patches.
"""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.build import duplicates
from beam_jobs.build.spool import PatchRef
from beam_jobs.judging.overlaps import metres_per_degree

SIDE_M = 640.0
MIDNIGHT = 18_000 * 86_400


def ref(
    patch_id="a",
    pair="p",
    north_m=0.0,
    east_m=0.0,
    quality=0.9,
    s1_at=0,
    s2_at=0,
    lat=50.0,
    lon=180.0,
) -> PatchRef:
    north, east = metres_per_degree(lat)
    return PatchRef(
        patch_id=patch_id,
        split="train",
        path="x",
        offset=0,
        num_bytes=0,
        pair=pair,
        lat=lat + north_m / north,
        # Longitudes end at 180; patches on both sides of it are neighbours.
        lon=(lon + east_m / east + 180.0) % 360.0 - 180.0,
        s1_acquired_at=MIDNIGHT + s1_at,
        s2_acquired_at=MIDNIGHT + s2_at,
        quality=quality,
    )


def judged(refs) -> dict[str, str]:
    """Rejected id -> id of the better patch, each as its own group says."""
    groups: dict[tuple[int, int, int], list[PatchRef]] = {}
    for one in refs:
        for key in duplicates.keys(one, SIDE_M):
            groups.setdefault(key, []).append(one)
    found = {}
    for key, group in groups.items():
        worse = duplicates.worse_ones(group, SIDE_M)
        found |= {
            one.patch_id: worse[one.patch_id].patch_id
            for one in group
            if one.patch_id in worse and duplicates.home(one) == key
        }
    return found


def test_the_worse_of_two_goes_whichever_comes_first():
    one, two = ref("a", "p", quality=0.5), ref("b", "q", quality=0.9, north_m=100.0)
    assert judged([one, two]) == judged([two, one]) == {"a": "b"}


def test_scores_that_are_nearly_equal_leave_it_to_the_pair_so_that_one_tile_wins_as_a_whole():
    one, two = ref("z", "p", quality=0.88), ref("b", "q", quality=0.92)
    assert judged([one, two]) == {"b": "z"}


@pytest.mark.parametrize(
    ("changes", "is_duplicate"),
    [
        ({}, True),
        ({"north_m": 300.0}, True),
        ({"north_m": 340.0}, False),
        ({"north_m": 180.0, "east_m": 180.0}, True),
        ({"north_m": 200.0, "east_m": 200.0}, False),
        ({"north_m": -640.0}, False),
        # Over the antimeridian, and over midnight.
        ({"east_m": -250.0}, True),
        ({"s2_at": -40}, True),
        ({"s2_at": 40, "s1_at": 25}, True),
        # Another pass of either sensor, and another patch of the same pair.
        ({"s2_at": 6000}, False),
        ({"s1_at": -6000}, False),
        ({"pair": "p"}, False),
    ],
)
def test_what_is_a_duplicate(changes, is_duplicate):
    found = judged(
        [ref("a", "p", quality=0.9), ref("b", **{"pair": "q", "quality": 0.3, **changes})]
    )
    assert found == ({"b": "a"} if is_duplicate else {})


STEPS = st.integers(-40, 40)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            STEPS, STEPS, st.sampled_from("pqr"), st.integers(0, 10), st.sampled_from([-200, 0, 90])
        ),
        max_size=12,
    )
)
def test_groups_find_what_a_look_at_every_two_patches_finds(rows):
    # Steps of 73 m about a corner of cells: no shared area is within 1 % of a half.
    refs = [
        ref(f"{i:02d}", pair, 73.0 * north, 73.0 * east, quality / 10, s2_at=second)
        for i, (north, east, pair, quality, second) in enumerate(rows)
    ]
    expected = {}
    for i, j in itertools.permutations(range(len(rows)), 2):
        (one, two), (worse, better) = (rows[i], rows[j]), (refs[i], refs[j])
        shared = (
            math.prod(max(SIDE_M - 73.0 * abs(one[axis] - two[axis]), 0.0) for axis in (0, 1))
            / SIDE_M**2
        )
        ranks = [(-round(one[3] / 10, 1), one[2], f"{n:02d}") for n, one in ((i, one), (j, two))]
        is_same = one[2] != two[2] and abs(one[4] - two[4]) <= 300
        if shared > 0.5 and is_same and ranks[1] < ranks[0]:
            known = expected.get(worse.patch_id)
            if known is None or ranks[1] < known[0]:
                expected[worse.patch_id] = (ranks[1], better.patch_id)
    assert judged(refs) == {worse: better for worse, (_, better) in expected.items()}
