"""Checks of a build's labels: classes without a pixel, and vector files outside all scenes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from beam_jobs import config as c
from beam_jobs.build import label_checks
from beam_jobs.catalogs.catalog import read_items
from beam_jobs.errors import DataError
from beam_jobs.scenes.grids import lonlat_bounds
from beam_jobs.scenes.scene import from_item
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX, write_geotiff

SPLITS = ("train", "eval", "test")
ALL = {(split, label_id): 5 for split in SPLITS for label_id in (0, 1)}


def write_catalog(folder: Path, **label) -> Path:
    """Write one Sentinel-2 item of 40 x 40 pixels with a label asset."""
    ring = shapely.box(*lonlat_bounds(UTM, (XMIN, YMAX - 400, XMIN + 400, YMAX)))
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2_a",
        "geometry": shapely.geometry.mapping(ring),
        "bbox": list(ring.bounds),
        "properties": {
            "datetime": "2024-03-10T12:00:00Z",
            "constellation": "sentinel-2",
            "processing:level": "L2A",
        },
        "links": [],
        "assets": {
            "data": {"href": "s2.tif", "bands": [{"name": "B2"}]},
            "label": {"href": "label.tif", "terrapair:label_schema": "water", **label},
        },
    }
    path = folder / "items.ndjson"
    path.write_text(json.dumps(item) + "\n")
    return path


def write_polygons(path: Path, *, east: float = 0.0) -> Path:
    """Write one polygon of the scene's size, moved to the east by some metres."""
    box = shapely.box(XMIN + east, YMAX - 400, XMIN + 400 + east, YMAX)
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(box)], object),
        [np.array(["water"], object)],
        ["class"],
        geometry_type="Polygon",
        crs=UTM,
        driver="GPKG",
    )
    return path


def test_classes_with_pixels_in_train_and_test_pass_whatever_eval_has(tmp_path):
    config = c.LabelConfig(schema="water")
    catalog = write_catalog(tmp_path)
    write_geotiff(tmp_path / "label.tif", np.eye(40, dtype=np.uint8)[None])
    label_checks.check_classes(config, [catalog], ALL | {("eval", 1): 0}, SPLITS)


def test_a_mask_of_0_and_255_among_files_with_water_is_told(tmp_path, caplog):
    config = c.LabelConfig(schema="water")
    catalog = write_catalog(tmp_path)
    values = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (1, 40, 40))
    write_geotiff(tmp_path / "label.tif", values)
    label_checks.check_classes(config, [catalog], ALL, SPLITS)
    assert not caplog.messages
    write_geotiff(tmp_path / "label.tif", np.where(values == 1, 255, values))
    label_checks.check_classes(config, [catalog], ALL, SPLITS)
    (message,) = caplog.messages
    assert f"{tmp_path / 'label.tif'} holds 255 and no 1" in message
    assert "add terrapair:label_values: {0: dry, 255: water}" in message
    # Land cover that lacks its highest class is no mask.
    caplog.clear()
    catalog = write_catalog(tmp_path, **{"terrapair:label_schema": "dynamic_world"})
    label_checks.check_classes(config, [catalog], ALL, SPLITS)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("lacking", "splits", "where"),
    [
        ([("test", 1)], SPLITS, "has no pixel in test."),
        ([("train", 1)], SPLITS, "has no pixel in train."),
        ([("train", 1), ("test", 1)], SPLITS, "has no pixel in train and in test."),
        ([("train", 1), ("test", 1)], ("train",), "has no pixel in train."),
    ],
)
def test_a_mask_of_0_and_255_is_refused_with_its_values_and_the_cure(
    tmp_path, lacking, splits, where
):
    mask = np.full((40, 40), 255, np.uint8)
    mask[:, :30] = 0
    write_geotiff(tmp_path / "label.tif", mask[None])
    catalog = write_catalog(tmp_path)
    with pytest.raises(DataError) as error:
        label_checks.check_classes(
            c.LabelConfig(schema="water"), [catalog], ALL | dict.fromkeys(lacking, 0), splits
        )
    assert error.value.reason == "class_absent"
    message = str(error.value)
    assert "\n" not in message
    assert f"{catalog}: class 'water' (1) {where}" in message
    assert "The 1 label files hold 0 (1200 pixels), 255 (400 pixels)." in message
    assert f"{tmp_path / 'label.tif'} holds 255 and no 1" in message
    assert "terrapair:label_values: {0: dry, 255: water}" in message
    # A schema of two classes needs both, so no setting is offered.
    assert "required_classes" not in message


def test_a_mask_whose_values_are_declared_gets_no_such_hint(tmp_path):
    write_geotiff(tmp_path / "label.tif", np.eye(40, dtype=np.uint8)[None] * 255)
    catalog = write_catalog(tmp_path, **{"terrapair:label_values": {"0": "dry", "255": "water"}})
    with pytest.raises(DataError) as error:
        label_checks.check_classes(
            c.LabelConfig(schema="water"), [catalog], ALL | {("test", 1): 0}, SPLITS
        )
    assert "The 1 label files hold 0 (1560 pixels), 255 (40 pixels). Correct" in str(error.value)


def test_rare_classes_are_not_needed_where_the_config_says_so(tmp_path):
    write_geotiff(tmp_path / "label.tif", (np.eye(40, dtype=np.uint8) * 4)[None])
    catalog = write_catalog(tmp_path, **{"terrapair:label_schema": "dynamic_world"})
    found = {(split, label_id): 9 for split in SPLITS for label_id in (0, 4)}

    def check(**label):
        config = c.LabelConfig(schema="dynamic_world", **label)
        label_checks.check_classes(config, [catalog], found, SPLITS)

    with pytest.raises(DataError, match=r"set label.required_classes to \[water, crops\]$"):
        check()
    check(required_classes=("water", "crops"))
    ignored = ("trees", "grass", "flooded_vegetation", "shrub_and_scrub")
    check(ignore=(*ignored, "built", "bare", "snow_and_ice"))
    with pytest.raises(DataError, match=r"class 'built' \(6\) has no pixel"):
        check(required_classes=("water", "built"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"required_classes": ("water",)}, "at least two classes"),
        ({"required_classes": ()}, "at least two classes"),
        ({"required_classes": ("water", "sea")}, "required_classes: no class 'sea'"),
        ({"required_classes": ("water", "bare"), "ignore": ("bare",)}, "'bare' is in ignore"),
    ],
)
def test_required_classes_that_judge_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        c.LabelConfig(schema="dynamic_world", **fields)


def vector_config(path: Path) -> c.LabelConfig:
    return c.LabelConfig(schema="water", vector=c.VectorConfig(path=str(path), column="class"))


def test_polygons_outside_all_scenes_are_refused_with_both_places(tmp_path):
    catalog = write_catalog(tmp_path)
    near = write_polygons(tmp_path / "near.gpkg", east=200)
    label_checks.check_vectors(vector_config(near), [catalog])
    far = write_polygons(tmp_path / "far.gpkg", east=100_000)
    with pytest.raises(DataError, match=r"far.gpkg: all polygons and points lie outside") as error:
        label_checks.check_vectors(vector_config(far), [catalog])
    assert error.value.reason == "label_elsewhere"


def test_the_file_of_an_item_is_checked_too(tmp_path):
    write_polygons(tmp_path / "far.gpkg", east=100_000)
    catalog = write_catalog(tmp_path, href="far.gpkg", **{"terrapair:label_column": "class"})
    with pytest.raises(DataError, match=r"far.gpkg: all polygons and points lie outside"):
        label_checks.check_vectors(c.LabelConfig(schema="water"), [catalog])


def test_a_changed_file_changes_the_config_and_stops_a_build(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg")
    config = label_checks.with_hash(vector_config(path))
    assert label_checks.with_hash(vector_config(path)) == config
    label_checks.check_unchanged(config)
    path.unlink()
    write_polygons(path, east=10.0)
    assert label_checks.with_hash(vector_config(path)) != config
    with pytest.raises(DataError, match="the polygons changed while they were used"):
        label_checks.check_unchanged(config)


def test_the_columns_of_a_shapefile_are_hashed(tmp_path):
    for name in ("a.shp", "a.dbf"):
        (tmp_path / name).write_bytes(b"same size")
    before = label_checks.with_hash(vector_config(tmp_path / "a.shp"))
    (tmp_path / "a.dbf").write_bytes(b"SAME SIZE")
    assert label_checks.with_hash(vector_config(tmp_path / "a.shp")) != before


def test_a_missing_file_is_named_with_the_folder(tmp_path):
    with pytest.raises(DataError, match=r"none.gpkg: cannot read .* starts at the folder of that"):
        label_checks.with_hash(vector_config(tmp_path / "none.gpkg"))


def scene_of(catalog: Path, config: c.LabelConfig):
    (item,) = read_items(catalog)
    scene = from_item(item, catalog)
    return dataclasses.replace(scene, label=label_checks.label_of(scene, config))


def test_a_scene_without_a_feature_on_its_day_has_no_label(tmp_path):
    catalog = write_catalog(tmp_path)
    near = vector_config(write_polygons(tmp_path / "near.gpkg", east=200))
    assert label_checks.check_scene(scene_of(catalog, near), near) is None
    far = vector_config(write_polygons(tmp_path / "far.gpkg", east=500))
    reason, detail = label_checks.check_scene(scene_of(catalog, far), far)
    assert (reason, detail) == (
        "no_label",
        f"{tmp_path / 'far.gpkg'}: no polygon or point lies in the scene",
    )


def test_polygons_without_a_column_are_told_apart_from_a_damaged_raster(tmp_path):
    config = c.LabelConfig(schema="water")
    write_polygons(tmp_path / "label.tif")
    catalog = write_catalog(tmp_path)
    with pytest.raises(DataError, match="holds polygons or points: name the column") as error:
        label_checks.check_scene(scene_of(catalog, config), config)
    assert error.value.reason == "bad_vector"
    (tmp_path / "label.tif").write_bytes(b"not a raster")
    with pytest.raises(DataError, match="cannot read the raster") as error:
        label_checks.check_scene(scene_of(catalog, config), config)
    assert error.value.reason == "unreadable_raster"
