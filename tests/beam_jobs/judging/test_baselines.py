"""Baselines: the newest product of a datatake and tile is used, whatever the order."""

import dataclasses
import itertools

import pytest
from shapely.geometry import box, mapping

from beam_jobs.judging import baselines
from beam_jobs.scenes.scene import Scene


def scene(name: str, baseline: str | None, bounds=(10.0, 45.0, 11.0, 46.0), **changes) -> Scene:
    found = Scene(
        scene_id=name,
        sensor="s2",
        acquired_at=0,
        processing_level="L2A",
        footprint=mapping(box(*bounds)),
        processing_baseline=baseline,
        acquisition="S2A_20190212T192651_07HFE",
        bands={},
    )
    return dataclasses.replace(found, **changes)


def test_the_newest_of_all_orders_is_kept():
    scenes = [scene("a", "02.12"), scene("b", "05.00"), scene("c", "04.00")]
    for order in itertools.permutations(scenes):
        kept, replaced = baselines.newest(order)
        assert [one.scene_id for one in kept] == ["b"]
        assert {(one.older.scene_id, one.newer.scene_id) for one in replaced} == {
            ("a", "b"),
            ("c", "b"),
        }


def test_products_of_one_baseline_are_all_kept():
    scenes = [scene("b", "05.00"), scene("a", "05.00")]
    assert [one.scene_id for one in baselines.newest(scenes)[0]] == ["a", "b"]


@pytest.mark.parametrize(("share", "num_kept"), [(0.4, 2), (0.6, 1)])
def test_parts_of_a_tile_do_not_replace_each_other(share, num_kept):
    west = scene("west", "02.12", (10.0, 45.0, 11.0, 46.0))
    east = scene("east", "05.00", (11.0 - share, 45.0, 12.0 - share, 46.0))
    kept, replaced = baselines.newest([west, east])
    assert (len(kept), len(replaced)) == (num_kept, 2 - num_kept)
    assert kept[0] is east


def test_only_what_is_known_to_be_one_acquisition_has_a_key():
    assert baselines.key(scene("a", "02.12")) == "S2A_20190212T192651_07HFE L2A"
    assert baselines.key(scene("a", None)) == ""
    assert baselines.key(scene("a", "99.99")) == ""
    assert baselines.key(scene("a", "02.12", acquisition="")) == ""
    assert baselines.key(scene("a", "02.12", processing_level="L1C")) != baselines.key(
        scene("b", "05.00")
    )
