"""Label schemas and remaps against values written by hand from the sources' class tables."""

import numpy as np
import pytest

from beam_jobs.contracts import labels

# source name, target name, {source id: expected target id} for every id of the source.
EXPECTED = [
    ("dynamic_world", "water", {0: 1, 1: 0, 2: 0, 3: 255, 4: 0, 5: 0, 6: 0, 7: 0, 8: 255}),
    (
        "worldcover",
        "dynamic_world",
        dict(
            zip(
                [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100],
                [1, 5, 2, 4, 6, 7, 8, 0, 3, 3, 7],
                strict=True,
            )
        ),
    ),
    (
        "worldcover",
        "water",
        {10: 0, 20: 0, 30: 0, 40: 0, 50: 0, 60: 0, 70: 255, 80: 1, 90: 255, 95: 255, 100: 0},
    ),
    (
        "worldcover",
        "worldcover_dense",
        {10: 0, 20: 1, 30: 2, 40: 3, 50: 4, 60: 5, 70: 6, 80: 7, 90: 8, 95: 9, 100: 10},
    ),
    ("terramesh_lulc", "dynamic_world", {1: 0, 2: 1, 3: 3, 4: 4, 5: 6, 6: 7, 7: 8, 8: 255, 9: 2}),
    ("terramesh_lulc", "water", {1: 1, 2: 0, 3: 255, 4: 0, 5: 0, 6: 0, 7: 255, 8: 255, 9: 0}),
    (
        "igbp17",
        "igbp10",
        {
            **{1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 3, 9: 3},
            **{10: 4, 11: 5, 12: 6, 13: 7, 14: 6, 15: 8, 16: 9, 17: 10},
        },
    ),
    (
        "igbp17",
        "igbp10_dense",
        {
            **{1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 1, 7: 1, 8: 2, 9: 2},
            **{10: 3, 11: 4, 12: 5, 13: 6, 14: 5, 15: 7, 16: 8, 17: 9},
        },
    ),
    (
        "igbp17",
        "igbp8",
        {
            **{1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 1, 7: 1, 8: 255, 9: 255},
            **{10: 2, 11: 3, 12: 4, 13: 5, 14: 4, 15: 255, 16: 6, 17: 7},
        },
    ),
    ("igbp17", "water", {**dict.fromkeys(range(1, 17), 0), 11: 255, 15: 255, 17: 1}),
    ("igbp10", "water", {1: 0, 2: 0, 3: 0, 4: 0, 5: 255, 6: 0, 7: 0, 8: 255, 9: 0, 10: 1}),
    ("igbp10", "igbp10_dense", {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 9: 8, 10: 9}),
    # Savanna and snow are dropped, what is left moves up.
    ("igbp10", "igbp8", {1: 0, 2: 1, 3: 255, 4: 2, 5: 3, 6: 4, 7: 5, 8: 255, 9: 6, 10: 7}),
]
IDS = [f"{source}-{target}" for source, target, _ in EXPECTED]


@pytest.mark.parametrize(("source", "target", "table"), EXPECTED, ids=IDS)
def test_remap_gives_the_ids_of_the_source_table(source, target, table):
    ids = np.array([[*table, 255]], np.uint8)
    got = labels.remap(ids, labels.get_schema(source), labels.get_schema(target))
    assert got.dtype == np.uint8
    assert got.tolist() == [[*table.values(), 255]]


@pytest.mark.parametrize(("source", "target", "table"), EXPECTED, ids=IDS)
def test_remap_keeps_the_meaning_of_classes_with_the_same_name(source, target, table):
    one, two = labels.get_schema(source), labels.get_schema(target)
    ids_of_name = {name: i for i, name in two.classes.items()}
    for from_id, name in one.classes.items():
        if name in ids_of_name:
            assert table[from_id] == ids_of_name[name]


@pytest.mark.parametrize(
    ("source", "dense"),
    [("worldcover", "worldcover_dense"), ("igbp10", "igbp10_dense")],
    ids=["worldcover", "igbp10"],
)
def test_a_dense_variant_renumbers_its_source_and_changes_neither_names_nor_colours(source, dense):
    one, two = labels.get_schema(source), labels.get_schema(dense)
    ids = np.array(sorted(one.classes), np.uint8)[None]
    renumbered = labels.remap(ids, one, two)[0].tolist()
    assert renumbered == list(range(one.num_classes))
    assert [two.classes[i] for i in renumbered] == list(one.class_names)
    assert [two.colors[i] for i in renumbered] == [one.colors[i] for i in sorted(one.classes)]


def test_the_tested_remaps_are_all_there_are():
    defined = []
    for one in labels.SCHEMAS.values():
        for two in labels.SCHEMAS.values():
            try:
                table = labels.remap_table(one, two)
            except ValueError:
                continue
            assert set(table.tolist()) <= {*two.classes, 255}
            if one is not two:
                defined.append((one.name, two.name))
    assert sorted(defined) == sorted((source, target) for source, target, _ in EXPECTED)


def test_a_remap_to_the_same_schema_changes_nothing():
    ids = np.array([[0, 8, 255, 3]], np.uint8)
    assert np.array_equal(labels.remap(ids, labels.DYNAMIC_WORLD, labels.DYNAMIC_WORLD), ids)


def test_ids_outside_the_schema_are_named():
    ids = np.array([[10, 11, 255, 12]], np.uint8)
    with pytest.raises(ValueError, match=r"label ids \[11, 12\] are not in schema 'worldcover'"):
        labels.remap(ids, labels.WORLDCOVER, labels.DYNAMIC_WORLD)


def test_ids_of_one_schema_are_never_read_as_another():
    # 1 is trees in Dynamic World, water in the water schema, forest in IGBP: without a
    # remap there is no answer.
    with pytest.raises(
        ValueError, match="no remap from label schema 'igbp10' to 'dynamic_world' is defined"
    ):
        labels.remap(np.ones((1, 1), np.uint8), labels.IGBP10, labels.DYNAMIC_WORLD)


def test_an_unknown_schema_is_named_with_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown label schema 'corine'; known: water, dynamic_world"
    ):
        labels.get_schema("corine")


def test_schemas_that_models_output_are_dense_and_sources_with_gaps_are_not():
    dense = {name for name, schema in labels.SCHEMAS.items() if schema.is_dense}
    assert dense == {"water", "dynamic_world", "worldcover_dense", "igbp10_dense", "igbp8"}
    assert labels.WORLDCOVER.num_classes == 11
    assert labels.DYNAMIC_WORLD.class_names[:3] == ("water", "trees", "grass")
    assert labels.WORLDCOVER.class_names[-1] == "moss_and_lichen"


def test_each_schema_has_one_distinct_colour_a_class():
    for schema in labels.SCHEMAS.values():
        assert set(schema.colors) == set(schema.classes)
        assert len(set(schema.colors.values())) == schema.num_classes
        assert 255 not in schema.classes


def test_majority_leaves_out_ignored_pixels():
    label = np.array(
        [[[255, 255, 255], [1, 2, 2]], [[255, 255, 255], [255, 255, 255]], [[3, 3, 0], [0, 9, 255]]]
    )
    assert labels.majority_label(label.astype(np.uint8)).tolist() == [2, 255, 0]
