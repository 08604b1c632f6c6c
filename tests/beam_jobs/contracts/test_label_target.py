"""What stored label values become in a build, and what is refused with its cure."""

import numpy as np
import pytest

from beam_jobs.contracts import labels
from beam_jobs.contracts.label_target import LabelTarget, VectorColumns, check_label_values
from beam_jobs.contracts.labels import LabelClass

WATER = LabelTarget(schema=labels.WATER)


def own(*names: str) -> labels.LabelSchema:
    return labels.own_schema(
        "shore",
        [LabelClass(id=i, name=name, color=f"#0000{i:02x}") for i, name in enumerate(names)],
    )


SHORE = own("land", "water", "crops")


def test_values_are_ids_of_the_source_and_255_is_no_label():
    assert WATER.ids([0, 3, 1, 255], "dynamic_world", {}) == [1, 255, 0, 255]


def test_a_mask_of_0_and_255_is_read_as_the_item_says():
    assert WATER.ids([0, 255], "water", {}) == [0, 255]
    assert WATER.ids([0, 255], "water", {"0": "dry", "255": "water"}) == [0, 1]
    # Names and ids are those of the source; the known remap still holds.
    assert WATER.ids([7, 9, 255], "worldcover", {"7": "permanent_water", "9": 10}) == [1, 0, 255]


def test_a_value_that_the_item_does_not_name_is_refused():
    with pytest.raises(ValueError, match=r"label values \[7\] are not among .*\[0, 255\]: add"):
        WATER.ids([0, 7], "water", {"0": "dry", "255": "water"})
    with pytest.raises(ValueError, match="classes \\[wet\\] are not in label schema 'water'"):
        WATER.ids([0], "water", {"0": "wet"})


def test_own_classes_are_reached_by_remaps_of_known_sources_by_name_and_by_id():
    target = LabelTarget(
        schema=SHORE,
        remap={"dynamic_world": {"water": 1, "4": "crops", "trees": "land"}, "worldcover": {80: 1}},
    )
    target.check()
    assert target.ids(range(9), "dynamic_world", {}) == [1, 0, 255, 255, 2, 255, 255, 255, 255]
    assert target.ids([10, 80], "worldcover", {}) == [255, 1]
    assert target.ids([2, 0], "shore", {}) == [2, 0]
    assert target.reachable("worldcover") == {1}
    assert target.why_not("igbp17") == "no remap from label schema 'igbp17' to 'shore' is defined"
    assert "unknown label schema 'corine'" in target.why_not("corine")


def test_a_plain_remap_holds_for_any_source_and_any_value():
    target = LabelTarget(
        schema=SHORE, remap={"111": "land", "-5": 1, "999": "ignore", "Lake": "water", "255": 2}
    )
    target.check()
    assert target.ids([111, -5, 999, 255], "corine", {}) == [0, 1, 255, 2]
    assert target.ids(["Lake", "111"], "anything", {}) == [1, 0]
    with pytest.raises(
        ValueError, match=r"\[112\] are not in label.remap, which has .*add them.*112: ignore"
    ):
        target.ids([111, 112], "corine", {})


@pytest.mark.parametrize(
    ("remap", "message"),
    [
        ({"1": "sea"}, "remap.1: no class 'sea' in label schema 'shore'; known: 0 land, 1 water"),
        ({"1": 3}, "remap.1: no class '3'"),
        ({"1": "land", "01": "water"}, "remap.01: the value 1 is given twice"),
        ({"1": ["land"]}, "remap.1: must be the name or the id of a class"),
        ({"1": True}, "remap.1: must be the name or the id of a class, got True"),
        ({"1": "land", "worldcover": {"80": 1}}, "got both: 1: 'land'"),
        ({"worldcover": {"80": 1, "permanent_water": 0}}, "the value 80 is given twice"),
        ({"worldcover": {"81": 1}}, "remap.worldcover.81: no class '81'"),
    ],
)
def test_a_wrong_remap_is_refused(remap, message):
    with pytest.raises(ValueError, match=message):
        LabelTarget(schema=SHORE, remap=remap).check()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([(0, "a", "#000000"), (0, "b", "#000001")], "its own id, got '0' twice"),
        ([(0, "a", "#000000"), (1, "a", "#000001")], "its own name, got 'a' twice"),
        ([(1, "a", "#000000"), (2, "b", "#000001")], r"without gaps, got \[1, 2\]"),
        ([(0, "a", "#000000")], "at least two"),
        ([(0, "a", "blue"), (1, "b", "#000001")], "color of class 'a' must be #rrggbb"),
        ([(0, "a", "#12345"), (1, "b", "#000001")], "got '#12345'"),
        ([(0, "a b", "#000000"), (1, "b", "#000001")], "got 'a b'"),
        ([(0, "a", "#000000"), (255, "b", "#000001")], "within 0-254, got 255"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        labels.own_schema("x", [LabelClass(id=i, name=n, color=k) for i, n, k in classes])


def test_the_name_of_a_known_schema_is_not_free():
    with pytest.raises(ValueError, match=r"must be a name of your own .* got 'water'"):
        labels.own_schema("water", SHORE.entries)
    # A manifest names a known schema together with its classes.
    assert labels.schema_of("water", labels.WATER.entries) is labels.WATER
    assert labels.schema_of("shore", SHORE.entries) == SHORE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must map stored values"),
        ([0, 1], "must map stored values"),
        ({"0.5": "dry"}, "must map whole numbers"),
        ({"0": True}, "must map whole numbers"),
        ({"1": "dry", "01": "water"}, "names the value 1 twice"),
    ],
)
def test_wrong_label_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_label_values(values)


def test_features_count_on_their_day_in_utc_and_always_without_one():
    # 2024-03-10, 23:30 UTC.
    at = 1710113400
    days = np.array(["2024-03-10", "2024-03-11", "2024-03-08", "NaT"], "datetime64[D]")
    columns = {"class": np.array(list("abcd"), object), "day": days}
    on_the_day = VectorColumns(column="class", date_column="day")
    assert on_the_day.is_valid(columns, at).tolist() == [True, False, False, True]
    near = VectorColumns(column="class", date_column="day", max_days=1)
    assert near.is_valid(columns, at).tolist() == [True, True, False, True]
    since = VectorColumns(column="class", start_column="day")
    assert since.is_valid(columns, at).tolist() == [True, False, True, True]
    until = VectorColumns(column="class", end_column="day")
    assert until.is_valid(columns, at).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"column": ""}, "column must name"),
        ({"column": "c", "date_column": "d", "end_column": "e"}, "either date_column or start"),
        ({"column": "c", "max_days": 2}, "max_days goes with date_column"),
    ],
)
def test_wrong_columns_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VectorColumns(**fields)
