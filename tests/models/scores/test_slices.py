import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scores import slices
from tests.data.networks import make_scores


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(slices.DIMENSIONS), st.integers(1, 30), st.integers(2, 4))
def test_every_patch_is_in_one_slice_and_confusion_matrices_add_up(
    dimension, num_patches, num_classes
):
    scores = make_scores.make_scores(num_classes, num_patches)
    parts = slices.by_slice(scores, dimension)
    assert sorted(str(name) for part in parts.values() for name in part.patch_id) == sorted(
        map(str, scores.patch_id)
    )
    assert all(len(part) for part in parts.values())
    np.testing.assert_array_equal(
        sum(part.confusion.sum(axis=0) for part in parts.values()), sum(scores.confusion)
    )


def test_values_of_each_dimension():
    scores = make_scores.make_scores(num_patches=12)
    assert slices.slice_values(scores, "cloud_fraction")[:5].tolist() == [
        "0-10%",
        "10-30%",
        "30-60%",
        "60-100%",
        "unknown",
    ]
    assert slices.slice_values(scores, "latitude")[[0, 3, 5, 6, 11]].tolist() == [
        "90S-60S",
        "60S-30S",
        "30S-0",
        "0-30N",
        "60N-90N",
    ]
    assert slices.slice_values(scores, "majority_label")[:4].tolist() == [
        "class0",
        "class1",
        "class0",
        "unknown",
    ]
    assert list(slices.by_slice(scores, "orbit_state")) == [
        "orbit_state=ascending",
        "orbit_state=descending",
    ]
    assert list(slices.by_slice(scores, "event")) == [
        "event=flood-a",
        "event=flood-b",
        "event=unknown",
    ]
    assert slices.slice_values(scores, "event")[[0, 3, 4, 8, 11]].tolist() == [
        "flood-b",
        "flood-b",
        "unknown",
        "flood-a",
        "flood-a",
    ]
    assert slices.slice_values(scores, "scene")[[0, 4]].tolist() == ["s1-0", "s1-1"]


def test_holdouts_are_told_by_the_name_in_the_block_and_the_rest_together():
    scores = make_scores.make_scores()
    blocks = scores.block.astype(object)
    blocks[[1, 5]], blocks[2] = "2.56km_1_2@bolivia", "2.56km_1_2@asia@bolivia"
    found = slices.by_slice(dataclasses.replace(scores, block=blocks.astype(str)), "holdout")
    assert {name: len(part) for name, part in found.items()} == {
        "holdout=asia bolivia": 1,
        "holdout=bolivia": 2,
        "holdout=none": len(scores) - 3,
    }


def test_unknown_dimension_is_refused():
    with pytest.raises(ValueError, match=r"dimension must be event, .* or latitude, got 'season'"):
        slices.by_slice(make_scores.make_scores(), "season")
