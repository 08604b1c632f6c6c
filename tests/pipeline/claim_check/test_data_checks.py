"""Checks before a training: bad data is refused in one line with the cure."""

import dataclasses

import pytest

from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError
from pipeline.claim_check import data_checks
from pipeline.claim_check.config import Cell, ClaimConfig
from pipeline.claim_check.jobs import Version
from tests.data.shards import make_shards

CLAIM = ClaimConfig(primary=Cell(task="flood", inputs="s1", fraction=0.5), fractions=(0.5,))


def version_of(root, num_patches=60, **changes):
    """Labels whose test split has a third as many patches as train, four in a block."""
    path = make_shards.make_version(
        root, kind="labels", label_schema="water", num_patches=num_patches
    )
    found = dataclasses.replace(manifest.read(path), **changes)
    return Version(path=str(path), manifest=found)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return version_of(tmp_path_factory.mktemp("labels"))


def counting(version, **by_split):
    """The version with other numbers of pixels by class in some splits."""
    counts = version.manifest.num_pixels_per_class | by_split
    return dataclasses.replace(
        version, manifest=dataclasses.replace(version.manifest, num_pixels_per_class=counts)
    )


def test_sound_labels_pass(labels):
    data_checks.check_classes("flood", labels)
    data_checks.check_units(CLAIM, "flood", labels)
    data_checks.check_units(dataclasses.replace(CLAIM, unit="scene", draw="scene"), "flood", labels)


@pytest.mark.parametrize("split", ["eval", "test"])
def test_a_split_of_one_class_is_refused_with_the_class_that_it_lacks(labels, split):
    changed = counting(labels, **{split: {"0": 5, "1": 0}})
    with pytest.raises(
        DataError,
        match=rf"task 'flood': no {split} patch holds 'water', .* two classes: label more, or cho",
    ):
        data_checks.check_classes("flood", changed)


def test_classes_that_no_test_patch_holds_are_told(labels):
    schema = {"label_schema": "dynamic_world"}
    nine = dataclasses.replace(labels, manifest=dataclasses.replace(labels.manifest, **schema))
    counts = {str(number): 7 for number in range(9) if number not in (3, 8)}
    found = data_checks.absent_classes(counting(nine, test=counts), "test")
    assert found == ["flooded_vegetation", "snow_and_ice"]


def test_fewer_units_than_an_interval_needs_are_refused(tmp_path):
    few = version_of(tmp_path, num_patches=48)
    with pytest.raises(
        DataError,
        match=r"test patches of 'flood' are of 4 blocks, and an interval needs at least 5: label",
    ):
        data_checks.check_units(CLAIM, "flood", few)
    with pytest.raises(DataError, match=r"are of 4 scenes, .* or count by claim\.unit: block"):
        data_checks.check_units(dataclasses.replace(CLAIM, unit="scene"), "flood", few)


def test_events_that_items_do_not_have_are_refused(labels):
    with pytest.raises(
        DataError, match=r"claim\.unit is event, but 7 of 20 patches have no event: set terrapair:"
    ):
        data_checks.check_units(dataclasses.replace(CLAIM, unit="event"), "flood", labels)
    with pytest.raises(DataError, match=r"claim\.draw is event, but 20 of 60 train patches"):
        data_checks.check_units(dataclasses.replace(CLAIM, draw="event"), "flood", labels)


def test_a_draw_by_scene_from_one_scene_is_refused(tmp_path):
    one = version_of(tmp_path, num_patches=4)
    with pytest.raises(DataError, match=r"draw is scene, but all train patches are of one scene"):
        data_checks.check_units(dataclasses.replace(CLAIM, draw="scene"), "flood", one)
