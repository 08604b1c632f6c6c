"""Pairing: the join finds what a comparison of every pair finds, in any order.

Also ties, several partners and the antimeridian.
"""

import itertools
import random

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, box, mapping

from beam_jobs.build.transforms import REJECTED, MakePairs
from beam_jobs.config import BuildConfig, PairingConfig
from beam_jobs.judging import pairing
from beam_jobs.runner import LOCAL_RUNNER
from beam_jobs.scenes import footprints
from beam_jobs.scenes.assets import BandSource
from beam_jobs.scenes.scene import Scene

NOON = 617 * pairing.MIN_BUCKET_SECONDS
"""Where one bucket of time ends and the next begins: scenes some hours apart lie in two."""


def scene(scene_id: str, hours: float = 0.0, bounds=(10.0, 45.0, 11.0, 46.0), **changes) -> Scene:
    values = {
        "scene_id": scene_id,
        "sensor": "s1" if scene_id.startswith("S1") else "s2",
        "acquired_at": NOON + int(hours * 3600),
        "footprint": mapping(box(*bounds)),
        "bands": {"VV": BandSource(path="x.tif", index=1)},
    }
    return Scene(**{**values, **changes})


def overlap(one: Scene, two: Scene) -> float:
    shapes = (np.array([footprints.on_globe(found.footprint)]) for found in (one, two))
    return float(footprints.overlap_fractions(*shapes)[0])


def by_hand(scenes, config: PairingConfig) -> dict[str, list[str]]:
    """Looks at every pair of scenes: Sentinel-1 id -> ids of its partners, best first."""
    found = {}
    for s1 in (one for one in scenes if one.sensor == "s1"):
        ranked = []
        for s2 in (one for one in scenes if one.sensor == "s2"):
            gap, share = abs(s2.acquired_at - s1.acquired_at), overlap(s1, s2)
            if gap <= config.max_time_gap_hours * 3600 and share >= config.min_overlap_fraction:
                ranked.append((gap, -round(share, 6), s2.scene_id))
        found[s1.scene_id] = [s2_id for *_, s2_id in sorted(ranked)][: config.max_s2_per_s1]
    return found


def by_join(scenes, config: PairingConfig) -> dict[str, list[str]]:
    """What the join gives, its groups and what is in them in any order."""
    groups, candidates = {}, {one.scene_id: [] for one in scenes if one.sensor == "s1"}
    for one in scenes:
        for key in pairing.keys(pairing.outline(one), config):
            groups.setdefault(key, []).append(pairing.outline(one))
    for key, group in groups.items():
        for s1_id, candidate in pairing.join(key, group, config):
            candidates[s1_id].append(candidate)
    return {
        s1_id: [c.s2_id for c in pairing.choose(found, config)[0]]
        for s1_id, found in candidates.items()
    }


@st.composite
def some_scenes(draw):
    """Up to 14 scenes on a coarse lattice of places and hours: ties are common."""
    west, south = draw(st.sampled_from([(9.0, 44.0), (178.0, -2.0), (-181.0, 79.0)]))
    quarter = st.integers(0, 12).map(lambda n: n / 4)
    side = st.integers(1, 6).map(lambda n: n / 4)
    found = []
    for number in range(draw(st.integers(0, 14))):
        x, y = west + draw(quarter), south + draw(quarter)
        bounds = (x, y, x + draw(side), y + draw(side))
        sensor = draw(st.sampled_from(["S1", "S2"]))
        found.append(scene(f"{sensor}_{number:02d}", draw(st.integers(-40, 40)), bounds))
    return found


@settings(max_examples=60, deadline=None)
@given(
    some_scenes(),
    st.sampled_from([0.5, 7.0, 12.0, 100.0]),
    st.sampled_from([0.05, 0.2, 0.5, 1.0]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_the_join_finds_what_a_look_at_every_pair_finds_in_any_order(
    scenes, gap, share, num, order
):
    config = PairingConfig(max_time_gap_hours=gap, min_overlap_fraction=share, max_s2_per_s1=num)
    expected = by_hand(scenes, config)
    order.shuffle(scenes)
    assert by_join(scenes, config) == expected


def run(
    scenes: list[Scene],
    config: PairingConfig,
    pairs: list[tuple[str, str]],
    rejected: list[tuple[str, str]],
):
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        outputs = pipeline | beam.Create(scenes) | MakePairs(BuildConfig(pairing=config))
        found = outputs["pairs"] | "Ids" >> beam.Map(
            lambda pair: (pair[0].scene_id, pair[1].scene_id)
        )
        reasons = outputs[REJECTED] | "Reasons" >> beam.Map(
            lambda rejection: (rejection.id, rejection.reason)
        )
        assert_that(found, equal_to(pairs), "pairs")
        assert_that(reasons, equal_to(rejected), "rejected")


def test_the_whole_transform_finds_what_a_look_at_every_pair_finds():
    rng = random.Random(4)
    scenes = []
    for number in range(120):
        x, y = rng.uniform(178.0, 181.0), rng.uniform(-1.0, 1.0)
        bounds = (x, y, x + rng.uniform(0.1, 1.5), y + rng.uniform(0.1, 1.5))
        scenes.append(
            scene(f"{rng.choice(['S1', 'S2'])}_{number:03d}", rng.randrange(0, 1000, 5), bounds)
        )
    config = PairingConfig(max_time_gap_hours=48.0, max_s2_per_s1=2)
    expected = by_hand(scenes, config)
    pairs = [(s1_id, s2_id) for s1_id, s2_ids in expected.items() for s2_id in s2_ids]
    assert 30 < len(pairs) < 120
    rejected = [(s1_id, "no_s2_partner") for s1_id, s2_ids in expected.items() if not s2_ids]
    unused = {one.scene_id for one in scenes if one.sensor == "s2"} - {s2_id for _, s2_id in pairs}
    run(scenes, config, pairs, rejected + [(s2_id, "no_s1_partner") for s2_id in unused])


def test_the_gap_is_sentinel_2_minus_sentinel_1():
    assert pairing.time_gap_hours(scene("S1", 2), scene("S2", 5.5)) == 3.5
    assert pairing.time_gap_hours(scene("S1", 2), scene("S2", -1)) == -3.0


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        # Nearest in time, before or after.
        ([("S2_a", 30), ("S2_b", 20), ("S2_c", -40)], "S2_b"),
        ([("S2_a", 30), ("S2_b", -20), ("S2_c", -40)], "S2_b"),
        # A tie in everything goes to the smaller id.
        ([("S2_b", 10), ("S2_a", -10), ("S2_c", 10)], "S2_a"),
        # Patches of a data set that overlap by half, all with its nominal time: each
        # must find its own partner.
        (
            [("S2_a", 0, (9.5, 45, 10.5, 46)), ("S2_b", 0), ("S2_c", 0, (10.5, 45, 11.5, 46))],
            "S2_b",
        ),
        # Time goes before overlap.
        ([("S2_a", 3), ("S2_b", 2, (10.0, 45.0, 10.5, 46.0))], "S2_b"),
        # A scene that hardly overlaps is not chosen.
        ([("S2_a", 1, (10.9, 45.0, 11.9, 46.0)), ("S2_b", 40)], "S2_b"),
    ],
)
def test_the_rank_of_candidates(candidates, expected):
    for order in itertools.permutations(candidates):
        assert by_join([scene("S1"), *(scene(*one) for one in order)], PairingConfig()) == {
            "S1": [expected]
        }


@pytest.mark.parametrize(
    ("gap", "paired"), [(72.0, True), (-72.0, True), (72.1, False), (-72.1, False)]
)
def test_the_largest_gap_is_included(gap, paired):
    assert by_join([scene("S1"), scene("S2", gap)], PairingConfig()) == {
        "S1": ["S2"] if paired else []
    }


def why_not(*others: Scene) -> str:
    config = PairingConfig()
    outlines = [pairing.outline(one) for one in (scene("S1"), *others)]
    groups = {key: outlines for one in outlines for key in pairing.keys(one, config)}
    found = [
        candidate
        for key, group in groups.items()
        for _, candidate in pairing.join(key, group, config)
    ]
    chosen, why = pairing.choose(found, config)
    assert chosen == []
    return why


def test_without_a_partner_the_reason_names_the_limit_or_who_is_too_far_in_time():
    nowhere = (
        "no Sentinel-2 scene near it in time (max_time_gap_hours is 72) covers at least 0.2 of it"
    )
    assert why_not() == nowhere
    assert why_not(scene("S2_a", 0, (20, 20, 21, 21))) == nowhere
    too_far = "the Sentinel-2 scene S2_a is +80.0 h away; max_time_gap_hours is 72"
    assert why_not(scene("S2_a", 80), scene("S2_b", 100)) == too_far


def test_several_partners_are_the_nearest_ones():
    scenes = [scene("S1"), *(scene(f"S2_{hours}", hours) for hours in (30, -20, 10, 80))]
    assert by_join(scenes, PairingConfig(max_s2_per_s1=2)) == {"S1": ["S2_10", "S2_-20"]}
    assert by_join(scenes, PairingConfig(max_s2_per_s1=9)) == {"S1": ["S2_10", "S2_-20", "S2_30"]}


@pytest.mark.parametrize(
    ("preference", "kept"),
    [("ascending", "S1_late"), ("descending", "S1_early"), ("any", "S1_late")],
)
def test_of_two_passes_equally_near_the_preferred_orbit_wins_then_the_smaller_track(
    preference, kept
):
    early = scene("S1_early", -5, orbit_state="descending", relative_orbit=80)
    late = scene("S1_late", 5, orbit_state="ascending", relative_orbit=15)
    config = PairingConfig(max_s1_per_s2=1, orbit_preference=preference)
    (left_out,) = {"S1_early", "S1_late"} - {kept}
    run([early, late, scene("S2")], config, [(kept, "S2")], [(left_out, "s2_taken")])
    # A nearer pass goes before a preferred one.
    nearer = scene("S1_near", 4, orbit_state="unknown")
    assert [
        s1.scene_id for s1 in pairing.nearest_passes(scene("S2"), [early, late, nearer], config)[0]
    ] == ["S1_near"]


def test_frames_of_one_pass_count_as_one():
    frames = [
        scene(f"S1_{n}", 5 + n * 25 / 3600, (10.0 + n, 45.0, 11.0 + n, 46.0)) for n in range(3)
    ]
    kept, left_out = pairing.nearest_passes(
        scene("S2"), [*frames, scene("S1_x", -6)], PairingConfig(max_s1_per_s2=1)
    )
    assert [s1.scene_id for s1 in kept] == ["S1_0", "S1_1", "S1_2"]
    assert [s1.scene_id for s1 in left_out] == ["S1_x"]
    assert pairing.nearest_passes(scene("S2"), frames, PairingConfig()) == (frames, [])


def test_a_preference_without_a_limit_has_no_effect_and_is_refused():
    with pytest.raises(ValueError, match="orbit_preference 'ascending' needs max_s1_per_s2"):
        PairingConfig(orbit_preference="ascending")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((10.2, 45.2, 10.8, 45.8), {(10, 45)}),
        ((10.8, 45.8, 11.2, 46.2), {(10, 45), (11, 45), (10, 46), (11, 46)}),
        ((-0.1, -0.1, 0.1, 0.1), {(-1, -1), (0, -1), (-1, 0), (0, 0)}),
        ((-70.5, -33.5, -68.5, -33.2), {(-71, -34), (-70, -34), (-69, -34)}),
    ],
)
def test_cells_are_those_the_footprint_touches(bounds, expected):
    assert set(pairing.cells(box(*bounds))) == expected


def test_scenes_over_the_antimeridian_meet_whichever_way_their_footprints_are_written():
    split = MultiPolygon([box(179.2, -18.0, 180.0, -17.0), box(-180.0, -18.0, -179.8, -17.0)])
    jumping = {
        "type": "Polygon",
        "coordinates": [[(179.2, -18), (-179.8, -18), (-179.8, -17), (179.2, -17), (179.2, -18)]],
    }
    s1 = scene("S1", footprint=mapping(split))
    s2 = scene("S2", 1, footprint=jumping)
    assert overlap(s1, s2) == pytest.approx(1.0)
    # Not the whole circle of latitude.
    assert set(pairing.cells(footprints.on_globe(jumping))) == {
        (x, y) for x in (179, 180, -180) for y in (-18, -17)
    }
    assert by_join([s1, s2, scene("S2_far", 0, (0.0, -18.0, 1.0, -17.0))], PairingConfig()) == {
        "S1": ["S2"]
    }
