"""Polygons and points on any grid against masks drawn by hand; bad files are one-line errors."""

import contextlib
import json
import sqlite3

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely

from beam_jobs.contracts import labels
from beam_jobs.contracts.label_target import LabelTarget, VectorColumns
from beam_jobs.errors import DataError
from beam_jobs.scenes import label_vectors
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.label_assets import LabelSource
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX

TARGET = LabelTarget(schema=labels.DYNAMIC_WORLD)
NOON = 1710072000
"""2024-03-10, 12:00 UTC."""
GRID = Grid(crs=UTM, transform=(10.0, 0.0, XMIN, 0.0, -10.0, YMAX), height=8, width=12)


def box(row: int, col: int, height: int, width: int) -> shapely.Geometry:
    """Return the outline of some pixels of GRID, in its CRS."""
    left, top = XMIN + 10 * col, YMAX - 10 * row
    return shapely.box(left, top - 10 * height, left + 10 * width, top)


# Two polygons that overlap in columns 4 and 5 of rows 1 to 3, a point, and one of another day.
GEOMETRIES = [
    box(1, 1, 4, 5),
    box(0, 4, 4, 4),
    shapely.Point(XMIN + 105, YMAX - 65),
    box(6, 0, 2, 2),
]
CLASSES = ["water", "crops", "6", "trees"]
DAYS = ["2024-03-10", "NaT", "2024-03-10", "2024-03-12"]


def expected() -> np.ndarray:
    """Return the label of NOON: what GEOMETRIES say, drawn by hand."""
    label = np.full((8, 12), 255, np.uint8)
    label[1:5, 1:6] = 0
    label[0:4, 4:8] = 4
    label[1:4, 4:6] = 255
    label[6, 10] = 6
    return label


def write(
    path, geometries=None, classes=None, days=None, *, crs=UTM, driver="GPKG", kind="Unknown"
):
    geometries = GEOMETRIES if geometries is None else geometries
    classes = CLASSES if classes is None else classes
    days = DAYS if days is None else days
    if crs not in (None, UTM):
        move = pyproj.Transformer.from_crs(UTM, crs, always_xy=True).transform
        geometries = [
            one and shapely.transform(one, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))
            for one in geometries
        ]
    pyogrio.raw.write(
        path,
        np.array([None if one is None else shapely.to_wkb(one) for one in geometries], object),
        [np.array(classes, object), np.array(days, "datetime64[D]")],
        ["class", "day"],
        geometry_type=kind,
        crs=crs,
        driver=driver,
    )
    return source(path)


def source(path, **columns) -> LabelSource:
    columns = {"column": "class", "date_column": "day"} | columns
    return LabelSource(
        path=str(path), schema="dynamic_world", nodata=None, vector=VectorColumns(**columns)
    )


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035"])
def test_a_geopackage_in_any_crs_gives_each_pixel_the_class_drawn_there(tmp_path, crs):
    label = label_vectors.read(write(tmp_path / "a.gpkg", crs=crs), TARGET, GRID, NOON)
    assert label.dtype == np.uint8
    assert np.array_equal(label, expected())


def test_a_geojson_and_a_shapefile_give_the_same_whatever_their_name(tmp_path):
    geojson = write(tmp_path / "a.geojson", crs="EPSG:4326", driver="GeoJSON")
    assert np.array_equal(label_vectors.read(geojson, TARGET, GRID, NOON), expected())
    (tmp_path / "a.geojson").rename(tmp_path / "polygons.txt")
    renamed = source(tmp_path / "polygons.txt")
    assert np.array_equal(label_vectors.read(renamed, TARGET, GRID, NOON), expected())
    shp = write(
        tmp_path / "a.shp",
        [GEOMETRIES[i] for i in (0, 1, 3)],
        [CLASSES[i] for i in (0, 1, 3)],
        [DAYS[i] for i in (0, 1, 3)],
        driver="ESRI Shapefile",
        kind="Polygon",
    )
    without_point = np.where(expected() == 6, 255, expected())
    assert np.array_equal(label_vectors.read(shp, TARGET, GRID, NOON), without_point)
    assert {path.rsplit(".")[-1] for path in label_vectors.files_of(shp.path)} >= {
        "shp",
        "dbf",
        "shx",
        "prj",
    }


def test_a_part_of_the_grid_gives_the_same_pixels(tmp_path):
    polygons = write(tmp_path / "a.gpkg")
    part = label_vectors.read(polygons, TARGET, GRID.window(2, 3, 5, 8), NOON)
    assert np.array_equal(part, expected()[2:7, 3:11])


def test_the_day_of_the_scene_chooses_the_features(tmp_path):
    polygons = write(tmp_path / "a.gpkg")
    later = label_vectors.read(polygons, TARGET, GRID, NOON + 2 * 86400)
    assert set(np.unique(later)) == {1, 4, 255}
    assert (later[6:8, 0:2] == 1).all()
    near = source(tmp_path / "a.gpkg", max_days=2)
    assert set(np.unique(label_vectors.read(near, TARGET, GRID, NOON))) == {0, 1, 4, 6, 255}
    always = LabelSource(
        path=str(tmp_path / "a.gpkg"),
        schema="dynamic_world",
        nodata=None,
        vector=VectorColumns(column="class"),
    )
    assert 1 in label_vectors.read(always, TARGET, GRID, NOON)


def test_times_of_a_geojson_count_in_utc(tmp_path):
    write(tmp_path / "a.geojson", crs="EPSG:4326", driver="GeoJSON")
    document = json.loads((tmp_path / "a.geojson").read_text())
    for feature in document["features"]:
        # 23:30 in New York is the next day in UTC.
        feature["properties"]["day"] = "2024-03-09T23:30:00-05:00"
    (tmp_path / "a.geojson").write_text(json.dumps(document))
    label = label_vectors.read(source(tmp_path / "a.geojson"), TARGET, GRID, NOON)
    assert set(np.unique(label)) == {0, 1, 4, 6, 255}


def test_ids_in_a_column_of_numbers_are_classes(tmp_path):
    write(tmp_path / "a.geojson", crs="EPSG:4326", driver="GeoJSON")
    document = json.loads((tmp_path / "a.geojson").read_text())
    for feature, label_id in zip(document["features"], (0, 4, 6, 1), strict=True):
        feature["properties"]["class"] = float(label_id)
    (tmp_path / "a.geojson").write_text(json.dumps(document))
    label = label_vectors.read(source(tmp_path / "a.geojson"), TARGET, GRID, NOON)
    assert np.array_equal(label, expected())


def test_an_area_that_the_remap_leaves_out_takes_the_pixels_under_it(tmp_path):
    remap = {"water": 1, "crops": 0, "6": "ignore", "trees": 0}
    target = LabelTarget(schema=labels.WATER, remap=remap)
    polygons = write(
        tmp_path / "a.gpkg",
        [box(0, 0, 8, 12), box(2, 2, 2, 2)],
        ["water", "6"],
        ["NaT", "NaT"],
    )
    label = label_vectors.read(polygons, target, GRID, NOON)
    assert (label[2:4, 2:4] == 255).all()
    assert (np.delete(label, (2, 3), axis=0) == 1).all()


BOW_TIE = shapely.Polygon(
    [(XMIN, YMAX), (XMIN + 50, YMAX - 50), (XMIN + 50, YMAX), (XMIN, YMAX - 50)]
)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"geometries": [BOW_TIE, *GEOMETRIES[1:]]}, "bad_vector", "feature 1 is not valid.*Self"),
        (
            {"geometries": [*GEOMETRIES[:3], shapely.Polygon()]},
            "bad_vector",
            "feature 4 has no geo",
        ),
        ({"geometries": [None, None, *GEOMETRIES[2:]]}, "bad_vector", r"1 \(and 1 more like it\)"),
        (
            {"geometries": [shapely.LineString([(0, 0), (9, 9)]), *GEOMETRIES[1:]]},
            "bad_vector",
            "feature 1 is neither polygon nor point",
        ),
        ({"classes": ["water", "", "6", "trees"]}, "bad_vector", "feature 2 has no class"),
        (
            {"classes": ["water", "sea", "6", "lake"]},
            "label_id_outside_schema",
            r"column 'class': classes \[lake, sea\] are not in .*which has water, trees",
        ),
        ({"crs": None}, "missing_crs", "has no coordinate system"),
        ({"geometries": [], "classes": [], "days": []}, "bad_vector", "holds no polygon"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_in_one_line(tmp_path, change, reason, message):
    polygons = write(tmp_path / "bad.gpkg", **change)
    with pytest.raises(DataError, match=message) as error:
        label_vectors.check_file(polygons, TARGET)
    assert error.value.reason == reason
    assert str(error.value).startswith(str(tmp_path / "bad.gpkg"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"column": "klass"}, "has no column 'klass'; it has class, day"),
        ({"date_column": "date"}, "has no column 'date'"),
        ({"layer": "other"}, "has no layer 'other'; it has a"),
        ({"date_column": "class"}, "column 'class': dates must be like 2024-01-31, got 'water'"),
    ],
)
def test_a_missing_column_or_layer_is_named_with_those_there_are(tmp_path, columns, message):
    write(tmp_path / "a.gpkg")
    with pytest.raises(DataError, match=message):
        label_vectors.check_file(source(tmp_path / "a.gpkg", **columns), TARGET)


def test_several_layers_need_a_name(tmp_path):
    write(tmp_path / "a.gpkg")
    pyogrio.raw.write(
        tmp_path / "a.gpkg",
        np.array([shapely.to_wkb(box(0, 0, 8, 12))], object),
        [np.array(["built"], object)],
        ["class"],
        layer="other",
        geometry_type="Polygon",
        crs=UTM,
        driver="GPKG",
        append=True,
    )
    with pytest.raises(DataError, match=r"has 2 layers \(a, other\): name one"):
        label_vectors.check_file(source(tmp_path / "a.gpkg"), TARGET)
    other = LabelSource(
        path=str(tmp_path / "a.gpkg"),
        schema="dynamic_world",
        nodata=None,
        vector=VectorColumns(column="class", layer="other"),
    )
    assert (label_vectors.read(other, TARGET, GRID, NOON) == 6).all()


@pytest.mark.parametrize("content", [b"", b"<kml></kml>", b"II*\x00rest of a TIFF"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.gpkg").write_bytes(content)
    with pytest.raises(DataError, match="is neither a GeoPackage, a GeoJSON nor a shapefile"):
        label_vectors.check_file(source(tmp_path / "a.gpkg"), TARGET)


@pytest.mark.parametrize("scheme", ["s3", "https"])
def test_a_file_on_a_store_or_server_is_refused(scheme):
    with pytest.raises(DataError, match="vector labels are read from local files only") as error:
        label_vectors.check_file(source(f"{scheme}://example.com/a.gpkg"), TARGET)
    assert error.value.reason == "bad_vector"


def test_a_shapefile_whose_columns_changed_is_checked_again(tmp_path):
    squares = [box(1, 1, 4, 5)]
    for folder, name in (("good", "water"), ("bad", "sea")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.shp", squares, [name], ["NaT"], driver="ESRI Shapefile")
    label_vectors.check_file(source(tmp_path / "good/a.shp"), TARGET)
    (tmp_path / "bad/a.dbf").replace(tmp_path / "good/a.dbf")
    with pytest.raises(DataError, match=r"classes \[sea\] are not in"):
        label_vectors.check_file(source(tmp_path / "good/a.shp"), TARGET)


def test_a_damaged_or_missing_file_is_one_line(tmp_path):
    (tmp_path / "cut.gpkg").write_bytes(b"SQLite format 3\x00" + bytes(200))
    (tmp_path / "cut.geojson").write_bytes(b'{"type": "FeatureCollection", "features": [{"ty')
    for name in ("cut.gpkg", "cut.geojson"):
        with pytest.raises(DataError, match=f"{name}: cannot read the label's polygons") as error:
            label_vectors.check_file(source(tmp_path / name), TARGET)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"none.gpkg: cannot read .*No such file"):
        label_vectors.check_file(source(tmp_path / "none.gpkg"), TARGET)


def test_a_changed_file_is_checked_again(tmp_path):
    polygons = write(tmp_path / "a.gpkg")
    label_vectors.check_file(polygons, TARGET)
    (tmp_path / "a.gpkg").unlink()
    write(tmp_path / "a.gpkg", classes=["sea", "crops", "6", "trees"])
    with pytest.raises(DataError, match="sea"):
        label_vectors.check_file(polygons, TARGET)


def test_a_database_that_is_no_geopackage_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.gpkg")) as database:
        database.execute("create table t (class text)")
        database.commit()
    with pytest.raises(DataError, match=r"a.gpkg: ") as error:
        label_vectors.check_file(source(tmp_path / "a.gpkg"), TARGET)
    assert error.value.reason == "bad_vector"
