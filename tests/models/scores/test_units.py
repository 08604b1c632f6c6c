import dataclasses

import numpy as np
import pytest

from models.scores.summary import interval
from models.scores.units import units_of
from tests.data.networks import make_scores


def with_events(events):
    scores = make_scores.make_scores(num_patches=24, num_blocks=12)
    return dataclasses.replace(scores, event=np.resize(np.array(events), 24))


def test_events_count_where_every_patch_has_one_and_they_are_enough():
    five = with_events(["a", "b", "c", "d", "e"])
    assert (units_of(five).name, units_of(five).count) == ("event", 5)
    four = with_events(["a", "b", "c", "d"])
    assert (units_of(four).name, units_of(four).count) == ("block", 12)
    gap = with_events(["a", "b", "c", "d", "e", ""])
    assert units_of(gap).of_patch.tolist() == gap.block.tolist()
    assert units_of(four, "event").of_patch.tolist() == four.event.tolist()


def test_a_scene_is_that_of_the_radar_or_else_of_the_optical_image():
    scores = with_events(["a"])
    alone = dataclasses.replace(scores, s1_scene_id=np.where(scores.event == "", scores.event, ""))
    assert units_of(scores, "scene").of_patch.tolist() == scores.s1_scene_id.tolist()
    assert units_of(alone, "scene").of_patch.tolist() == scores.s2_scene_id.tolist()


def test_events_that_are_asked_for_and_missing_are_refused():
    with pytest.raises(ValueError, match="4 of 24 patches have no event: set terrapair:event"):
        units_of(with_events(["a", "b", "c", "d", "e", ""]), "event")


def test_an_interval_counts_events_when_there_are_enough():
    scores = make_scores.make_scores(num_patches=24, num_blocks=12)
    # Twelve blocks in six events, and each block alone.
    events = np.array([f"event{int(name[5:]) // 2}" for name in scores.block])
    as_blocks = dataclasses.replace(scores, block=events, event=np.full(24, ""))
    by_event = dataclasses.replace(scores, event=events)
    assert interval(by_event, "mean_iou") == interval(as_blocks, "mean_iou")
    assert interval(by_event, "mean_iou") != interval(scores, "mean_iou")
