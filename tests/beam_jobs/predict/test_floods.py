"""Flood maps and their areas; the oracle is NumPy on the same pixels."""

import csv
import json

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from rio_cogeo.cogeo import cog_validate

from beam_jobs.errors import DataError
from beam_jobs.predict import floods
from beam_jobs.predict.floods import DRY, FLOODED, PERMANENT, RECEDED, Mask, Reference
from beam_jobs.predict.parts import NO_DATA
from beam_jobs.scenes import footprints, grids
from beam_jobs.terminal import program
from tests.data.scenes import make_rasters

HEIGHT, WIDTH = 60, 80


def make_map(folder, ids, day="2024-03-01", cols=0):
    """A folder as `predict` writes it: ids from a column of the test rasters' grid on."""
    transform = make_rasters.north_up(x=make_rasters.XMIN + 10 * cols)
    path = make_rasters.write_geotiff(
        folder / "class.tif",
        ids[np.newaxis].astype(np.uint8),
        transform=transform,
        nodata=NO_DATA,
    )
    listed = [{"value": value, "name": name} for value, name in enumerate(("dry", "water"))]
    with rasterio.open(path) as file:
        place = footprints.of_bounds(file.crs.to_string(), tuple(file.bounds))
    item = {
        "geometry": shapely.geometry.mapping(place),
        "properties": {"datetime": f"{day}T10:00:00Z"},
        "assets": {"class": {"classification:classes": listed}},
    }
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
    reference = floods.reference_of(str(tmp_path / "dry"), Mask(water=(9,)), "water")
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
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as file:
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
    floods.write_flood_map(
        class_file, 1, Reference(paths=(str(source),), mask=Mask(water=(80,))), path
    )
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
    floods.write_flood_map(
        class_file, 1, Reference(paths=(str(source),), mask=Mask(water=(80,))), path
    )
    found = read(path)
    assert (found[:, 10:] == NO_DATA).all()
    assert set(np.unique(found[5:, :10])) == {PERMANENT}
    far = make_rasters.write_geotiff(
        tmp_path / "far.tif", cover, transform=make_rasters.north_up(x=make_rasters.XMIN + 1e5)
    )
    path.unlink()
    with pytest.raises(DataError, match=r"far\.tif: does not overlap"):
        floods.write_flood_map(
            class_file, 1, Reference(paths=(str(far),), mask=Mask(water=(80,))), path
        )
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
    reference = floods.reference_of(str(tmp_path / "dry"), Mask(water=()), "water")
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
        class_file, 1, floods.reference_of(str(tmp_path / "dry"), Mask(water=()), "water"), path
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
        ([*dates, "--reference-values", "wet"], 2, "or one of worldcover, jrc-occurrence"),
        (command, 2, "name either --reference or --dry-date"),
        ([*dates, "--dry-date", "2022-06-01"], 2, "name either --reference or --dry-date"),
        ([*command, "--dry-date", "June"], 2, "must be YYYY-MM-DD or earliest, got 'June'"),
        (
            [*command, "--dry-date", "2022-06-01"],
            3,
            "no other map of 2022-06-01 beside it covers its place; there are maps of 2024-03-01",
        ),
        (["flood", "--map", str(tmp_path), *dates[3:]], 3, "holds no map (item.json is missing)"),
    ):
        assert program.run(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert message in lines[-1]


def test_known_masks_count_what_files_hide(now, tmp_path):
    class_file = make_map(tmp_path / "now", now)
    occurrence = np.random.default_rng(3).choice([0, 40, 74, 75, 100, 255], (HEIGHT, WIDTH))
    # Earth Engine hides land without water: the file declares it no data.
    source = make_rasters.write_geotiff(
        tmp_path / "jrc.tif", occurrence[np.newaxis].astype(np.uint8), nodata=0
    )
    path = tmp_path / "flood.tif"
    reference = Reference(paths=(str(source),), mask=floods.mask_of("jrc-occurrence"))
    floods.write_flood_map(class_file, 1, reference, path)
    before = (occurrence >= 75) & (occurrence <= 100)
    expected = np.where(before, PERMANENT, np.where(now == 1, FLOODED, DRY))
    expected[(now == NO_DATA) | (occurrence == 255)] = NO_DATA
    np.testing.assert_array_equal(read(path), expected)
    assert floods.mask_of("worldcover") == Mask(water=(80,), no_data=(0,))
    assert floods.mask_of("1, 75-77") == Mask(water=(1, 75, 76, 77))


@pytest.mark.parametrize("num_bands", [1, 2])
def test_a_reference_in_degrees_is_looked_up_where_each_pixel_lies(now, tmp_path, num_bands):
    class_file = make_map(tmp_path / "now", now)
    with rasterio.open(class_file) as file:
        cols, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        x, y = file.transform * (cols, rows)
        lon, lat = grids.to_lonlat(file.crs.to_string(), x, y)
    # It covers the western part only, and has a second band that does not count.
    step = 0.00021
    values = np.random.default_rng(4).choice([10, 80], (num_bands, 40, 30)).astype(np.uint8)
    transform = rasterio.Affine(step, 0, lon.min() - step, 0, -step, lat.max() + step)
    source = tmp_path / "cover.tif"
    make_rasters.write_geotiff(source, values, crs="EPSG:4326", transform=transform)
    path = tmp_path / "flood.tif"
    floods.write_flood_map(
        class_file, 1, Reference(paths=(str(source),), mask=Mask(water=(80,))), path
    )
    col, row = (np.floor(one).astype(int) for one in ~transform * (lon, lat))
    is_inside = (col >= 0) & (col < 30) & (row >= 0) & (row < 40)
    before = values[0][np.clip(row, 0, 39), np.clip(col, 0, 29)] == 80
    expected = np.where(before, PERMANENT, np.where(now == 1, FLOODED, DRY))
    expected[~is_inside | (now == NO_DATA)] = NO_DATA
    assert 0.2 < is_inside.mean() < 0.9
    # GDAL's transformer may be off by an eighth of a pixel at borders of pixels.
    off = np.stack(~transform * (lon, lat))
    sure = (np.abs(off - np.rint(off)) > 0.1).all(0)
    np.testing.assert_array_equal(read(path)[sure], expected[sure])


def test_the_dry_date_is_found_beside_the_map_and_its_maps_are_joined(now, tmp_path):
    now[:, :] = 1
    make_map(tmp_path / "now", now, "2024-03-01")
    # Two maps of the dry day overlap; the one that covers more comes first.
    west, east = np.full((HEIGHT, 30), 1), np.full((HEIGHT, 60), 0)
    west[:2, :] = NO_DATA
    east[-2:, :] = NO_DATA
    make_map(tmp_path / "west", west, "2023-07-01")
    make_map(tmp_path / "east", east, "2023-07-01", cols=25)
    make_map(tmp_path / "later", now, "2023-09-01")
    make_map(tmp_path / "elsewhere", now, "2022-01-01", cols=9999)
    for date in ("2023-07-01", "earliest"):
        reference = floods.of_date(tmp_path / "now", date, "water")
        assert [path.rsplit("/", 2)[1] for path in reference.paths] == ["east", "west"]
    with pytest.raises(DataError, match=r"no other map of an earlier day .* 2023-09-01, 2024"):
        floods.of_date(tmp_path / "west", "earliest", "water")
    path = tmp_path / "flood.tif"
    floods.write_flood_map(tmp_path / "now/class.tif", 1, reference, path)
    expected = np.full((HEIGHT, WIDTH), FLOODED)
    expected[:, :25] = PERMANENT
    expected[-2:, 25:30] = PERMANENT  # East has no data there.
    expected[:2, :25] = expected[-2:, 30:] = NO_DATA
    np.testing.assert_array_equal(read(path), expected)


def test_areas_in_degrees_far_and_empty_ones_are_counted_right(now, dry, tmp_path):
    class_file = make_map(tmp_path / "now", now)
    make_map(tmp_path / "dry", dry)
    path = tmp_path / "flood.tif"
    reference = floods.reference_of(str(tmp_path / "dry"), Mask(water=()), "water")
    floods.write_flood_map(class_file, 1, reference, path)
    with rasterio.open(class_file) as file:
        to_pixel, crs = ~file.transform, file.crs.to_string()
        west, south, east, north = file.bounds
    lon, lat = grids.to_lonlat(crs, np.array([west, east]), np.array([south, north]))
    # A continent in four corners, half of the map, nothing, and a far triangle.
    outlines = [
        shapely.box(-40, 0, 80, 80),
        shapely.box(lon[0] - 1, lat[0] - 1, lon.mean(), lat[1] + 1),
        shapely.Polygon(),
        shapely.Polygon([(-60, -10), (-50, -10), (-55, 0)]),
    ]
    vector = polygons(tmp_path, outlines, "EPSG:4326")
    assert floods.write_areas(path, vector, "district", tmp_path / "areas.csv") == 4
    with (tmp_path / "areas.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found = read(path)
    cols, lines = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixel_lon, _ = grids.to_lonlat(crs, *(~to_pixel * (cols, lines)))
    geod = pyproj.Geod(ellps="WGS84")
    for row, inside, outline in zip(
        rows,
        (np.ones_like(found, bool), pixel_lon < lon.mean(), found < 0, found < 0),
        outlines,
        strict=True,
    ):
        counts = np.bincount(found[inside], minlength=256) * 100
        names = ("dry_m2", "permanent_m2", "flooded_m2", "receded_m2")
        assert [int(row[name]) for name in names] == counts[:4].tolist()
        assert int(row["no_data_m2"]) == counts[NO_DATA]
        whole = abs(geod.geometry_area_perimeter(shapely.segmentize(outline, 0.01))[0])
        # In UTM, areas are up to 0.1 % off.
        assert int(row["outside_m2"]) == pytest.approx(whole - counts.sum(), abs=0.01 * 4.8e5)
