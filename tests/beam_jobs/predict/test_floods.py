"""Flood maps and their areas; the oracle is NumPy on the same pixels."""

import csv
import json

import make_rasters
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from beam_jobs.errors import DataError
from beam_jobs.predict import floods
from beam_jobs.predict.floods import DRY, FLOODED, PERMANENT, RECEDED, Reference
from beam_jobs.predict.parts import NO_DATA
from beam_jobs.terminal import program

HEIGHT, WIDTH = 60, 80


def make_map(folder, ids, classes=("dry", "water")):
    """A folder as `predict` writes it: ids on the grid of the test rasters."""
    path = make_rasters.write_geotiff(
        folder / "class.tif", ids[np.newaxis].astype(np.uint8), nodata=NO_DATA
    )
    listed = [{"value": value, "name": name} for value, name in enumerate(classes)]
    item = {"assets": {"class": {"classification:classes": listed}}}
    (folder / "item.json").write_text(json.dumps(item))
    return path


@pytest.fixture
def now():
    ids = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH))
    ids[:5, :9] = NO_DATA
    return ids


@pytest.fixture
def dry():
    ids = (np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.3).astype(int)
    ids[50:, 70:] = NO_DATA
    return ids


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize("change", [False, True])
def test_water_that_is_not_in_the_reference_is_flooded(now, dry, tmp_path, monkeypatch, change):
    monkeypatch.setattr(floods, "_BLOCK_ROWS", 16)
    make_map(tmp_path / "now", now)
    make_map(tmp_path / "dry", dry)
    reference = floods.reference_of(str(tmp_path / "dry"), [9], "water")
    path = tmp_path / "flood.tif"
    floods.write_flood_map(tmp_path / "now/class.tif", 1, reference, path, change=change)
    found = read(path)
    for row, col in np.ndindex(HEIGHT, WIDTH):
        today, before = now[row, col], dry[row, col]
        if NO_DATA in (today, before):
            expected = NO_DATA
        elif before:
            expected = PERMANENT if today or not change else RECEDED
        else:
            expected = FLOODED if today else DRY
        assert found[row, col] == expected
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.colormap(1)[FLOODED] == (0xD7, 0x30, 0x1F, 255)
        assert tuple(file.transform) == tuple(make_rasters.north_up())
        names = file.tags()["TERRAPAIR_CLASSES"]
    assert ("3 receded" in names) == change
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dry", "flood.tif", "now"]


@pytest.mark.parametrize("nodata", [None, 0])
def test_a_reference_on_another_grid_is_read_at_the_nearest_pixel(now, tmp_path, nodata):
    class_file = make_map(tmp_path / "now", now)
    # Pixels of 20 m from 200 m to the west and north on; 80 means water.
    values = np.random.default_rng(2).choice([10, 80, 90], (60, 70)).astype(np.uint8)
    values[40:45] = 0
    transform = make_rasters.north_up(20.0, make_rasters.XMIN - 200, make_rasters.YMAX + 200)
    source = make_rasters.write_geotiff(
        tmp_path / "cover.tif", values[np.newaxis], transform=transform, nodata=nodata
    )
    path = tmp_path / "flood.tif"
    floods.write_flood_map(class_file, 1, Reference(path=str(source), water=(80,)), path)
    fine = values.repeat(2, 0).repeat(2, 1)[20 : 20 + HEIGHT, 20 : 20 + WIDTH]
    expected = np.where(fine == 80, PERMANENT, np.where(now == 1, FLOODED, DRY))
    unknown = (now == NO_DATA) | ((fine == 0) if nodata == 0 else False)
    expected[unknown] = NO_DATA
    np.testing.assert_array_equal(read(path), expected)


def test_pixels_beyond_the_reference_are_no_data_and_none_at_all_is_refused(now, tmp_path):
    class_file = make_map(tmp_path / "now", now)
    cover = np.full((1, HEIGHT, 10), 80, np.uint8)
    source = make_rasters.write_geotiff(tmp_path / "cover.tif", cover)
    path = tmp_path / "flood.tif"
    floods.write_flood_map(class_file, 1, Reference(path=str(source), water=(80,)), path)
    found = read(path)
    assert (found[:, 10:] == NO_DATA).all()
    assert set(np.unique(found[5:, :10])) == {PERMANENT}
    far = make_rasters.write_geotiff(
        tmp_path / "far.tif", cover, transform=make_rasters.north_up(x=make_rasters.XMIN + 1e5)
    )
    path.unlink()
    with pytest.raises(DataError, match=r"far\.tif: does not overlap"):
        floods.write_flood_map(class_file, 1, Reference(path=str(far), water=(80,)), path)
    assert not path.exists()


def polygons(tmp_path, outlines, crs="EPSG:32633"):
    path = tmp_path / "areas.gpkg"
    names = np.array([f"area {number}" for number in range(len(outlines))], dtype=object)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array(outlines, dtype=object)),
        field_data=[names],
        fields=["district"],
        geometry_type="Polygon",
        crs=crs,
    )
    return str(path)


def test_areas_are_those_of_the_pixels_in_each_polygon(now, dry, tmp_path, monkeypatch):
    monkeypatch.setattr(floods, "_BLOCK_ROWS", 16)
    class_file = make_map(tmp_path / "now", now)
    make_map(tmp_path / "dry", dry)
    path = tmp_path / "flood.tif"
    reference = floods.reference_of(str(tmp_path / "dry"), [], "water")
    floods.write_flood_map(class_file, 1, reference, path)

    def box(row0, row1, col0, col1):
        left, top = make_rasters.XMIN, make_rasters.YMAX
        return shapely.box(left + 10 * col0, top - 10 * row1, left + 10 * col1, top - 10 * row0)

    # The second overlaps the first, the third reaches beyond the map, the fourth is far.
    corners = [(0, 40, 0, 30), (10, 50, 20, 75), (-20, 90, 60, 200), (0, 10, 900, 990)]
    areas = polygons(tmp_path, [box(*corner) for corner in corners])
    assert floods.write_areas(path, areas, "district", tmp_path / "areas.csv") == 4
    with (tmp_path / "areas.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["district"] for row in rows] == [f"area {number}" for number in range(4)]
    found = read(path)
    for row, (top, bottom, left, right) in zip(rows, corners, strict=True):
        inside = found[max(top, 0) : bottom, left:right]
        for name, value in (
            ("dry", DRY),
            ("permanent", PERMANENT),
            ("flooded", FLOODED),
            ("receded", RECEDED),
            ("no_data", NO_DATA),
        ):
            assert int(row[f"{name}_m2"]) == 100 * int((inside == value).sum())


def test_polygons_in_degrees_are_moved_to_the_map(now, dry, tmp_path):
    class_file = make_map(tmp_path / "now", now)
    make_map(tmp_path / "dry", dry)
    path = tmp_path / "flood.tif"
    floods.write_flood_map(
        class_file, 1, floods.reference_of(str(tmp_path / "dry"), [], "water"), path
    )
    whole = shapely.geometry.shape(make_rasters.footprint(class_file)).buffer(0.01)
    areas = polygons(tmp_path, [whole], "EPSG:4326")
    floods.write_areas(path, areas, "district", tmp_path / "areas.csv")
    with (tmp_path / "areas.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert int(row["flooded_m2"]) == 100 * int((read(path) == FLOODED).sum())
    with pytest.raises(DataError, match="no column 'name'; it has district"):
        floods.write_areas(path, areas, "name", tmp_path / "areas.csv")
    (tmp_path / "broken.gpkg").write_bytes(b"no polygons")
    with pytest.raises(DataError, match=r"broken\.gpkg: cannot be read as polygons"):
        floods.write_areas(path, str(tmp_path / "broken.gpkg"), "name", tmp_path / "a.csv")


def test_the_verb_writes_map_and_areas_or_says_what_is_wrong(now, dry, tmp_path, capsys):
    make_map(tmp_path / "now", now)
    make_map(tmp_path / "dry", dry)
    areas = polygons(tmp_path, [shapely.box(make_rasters.XMIN, 0, 1e6, 1e7)])
    command = ["flood", "--map", str(tmp_path / "now"), "--output", str(tmp_path / "out")]
    dates = [*command, "--reference", str(tmp_path / "dry")]
    assert program.run([*dates, "--areas", areas, "--name-column", "district", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [name.rpartition("/")[2] for name in files] == ["flood.tif", "areas.csv"]
    for arguments, code, message in (
        ([*dates, "--water", "ice"], 3, "the map has no class 'ice'; it has dry, water"),
        ([*command, "--reference", "none.tif"], 3, "none.tif: "),
        ([*dates, "--reference-values", "wet"], 2, "must be whole numbers, got 'wet'"),
        (["flood", "--map", str(tmp_path), *dates[3:]], 3, "holds no map (item.json is missing)"),
    ):
        assert program.run(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert message in lines[-1]
