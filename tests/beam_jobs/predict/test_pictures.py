"""Pictures of maps; the oracles are the pixels of the scenes and of the maps."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from beam_jobs.catalogs import catalog
from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict import parts, pictures
from beam_jobs.predict.graph import sensor_of
from beam_jobs.scenes import footprints, inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes import make_frames, make_rasters

CLASSES = (
    LabelClass(id=0, name="dry", color="#d9c9a3"),
    LabelClass(id=1, name="water", color="#1f5fbf"),
)
COUNTS = Path("/proc/self/io")
BANDS = {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B3", "B2")}


@pytest.fixture(scope="module")
def scenes(simulated):
    """The first inspected scene of each sensor."""
    found = {}
    for item in catalog.read_items(simulated):
        sensor = sensor_of(item)
        if sensor not in found:
            scene = from_item(item, locations.parse(simulated))
            found[sensor] = inspection.inspect(scene, BANDS[sensor])
    return found


@pytest.mark.parametrize(("sensor", "factor"), [("s1", 1), ("s1", 3), ("s1", 7), ("s2", 3)])
def test_a_pixel_of_the_picture_is_the_mean_of_pixels_of_the_scene(scenes, sensor, factor):
    scene, names = scenes[sensor], BANDS[sensor]
    pixels = readers.read_bands(scene, names, scene.grid).astype(np.float64)
    found = pictures._thinned(scene, names, scene.grid, factor)
    height, width = (side // factor for side in pixels.shape[:2])
    assert found.shape == (height, width, len(names))
    for row, col in itertools.product(range(0, height, 5), range(width)):
        rows = slice(row * factor, row * factor + min(factor, 4))
        block = pixels[rows, col * factor : (col + 1) * factor].reshape(-1, len(names))
        mean = 10 * np.log10((10 ** (block / 10)).mean(0)) if sensor == "s1" else block.mean(0)
        np.testing.assert_allclose(found[row, col], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not COUNTS.exists(), reason="only Linux counts the bytes that are read")
def test_each_block_of_a_scene_is_read_once_whatever_bands_it_has(tmp_path):
    frame = make_frames.Frame(name="tile", bands=S2_L2A_BANDS, height=512, width=1024)
    listed = make_frames.write(tmp_path, [frame])
    (item,) = catalog.read_items(listed)
    scene = inspection.inspect(from_item(item, locations.parse(listed)), S2_L2A_BANDS)
    task = parts.MapTask(map_id="one", scenes={"s2": scene}, grid=scene.grid, made_from="")
    before = num_bytes_read()
    picture = pictures._scene_rgb(task, "s2", 8)
    assert picture.shape == (64, 128, 3)
    assert num_bytes_read() - before < 1.2 * (tmp_path / "tile.tif").stat().st_size


def num_bytes_read():
    return int(COUNTS.read_text().split()[1])


def make_class_file(folder, ids, **place):
    path = make_rasters.write_geotiff(
        folder / "class.tif", ids[np.newaxis].astype(np.uint8), nodata=parts.NO_DATA, **place
    )
    with rasterio.open(path) as file:
        return footprints.of_bounds(file.crs.to_string(), tuple(file.bounds))


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share(picture, color):
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return (picture == wanted).all(-1).mean()


def test_a_picture_shows_each_scene_beside_the_map(scenes, tmp_path):
    grid = scenes["s1"].grid
    ids = np.zeros((grid.height, grid.width))
    ids[:, : grid.width // 2] = 1
    make_class_file(tmp_path, ids)
    both = parts.MapTask(map_id="both", scenes=scenes, grid=grid, made_from="")
    one = parts.MapTask(map_id="one", scenes={"s1": scenes["s1"]}, grid=grid, made_from="")
    shown = {}
    for task in (both, one):
        path = tmp_path / f"{task.map_id}.png"
        pictures.draw(tmp_path / "class.tif", task, CLASSES, path)
        again = tmp_path / "again.png"
        pictures.draw(tmp_path / "class.tif", task, CLASSES, again)
        assert again.read_bytes() == path.read_bytes()
        shown[task.map_id] = pixels_of(path)
    assert shown["both"].shape[1] / shown["one"].shape[1] == pytest.approx(3 / 2)
    # The map is the last panel: half of it is water.
    panel = shown["one"][:, shown["one"].shape[1] // 2 :]
    assert share(panel, "#1f5fbf") == pytest.approx(share(panel, "#d9c9a3"), rel=0.1)
    assert share(panel, "#1f5fbf") > 0.3
    # Radar is gray, and its left panel holds no color of the map.
    radar = shown["one"][60:-160, 10 : shown["one"].shape[1] // 2 - 10]
    assert (np.ptp(radar, axis=-1) == 0).all()
    assert len(np.unique(radar)) > 50


def test_the_overview_shows_maps_where_they_lie_and_the_page_by_date(tmp_path):
    west = make_rasters.XMIN
    places = {
        # Later maps lie above earlier ones: at the end, the east is water.
        "new": (np.ones((40, 20)), "2024-05-01", make_rasters.north_up(x=west + 200)),
        "old <1>": (np.zeros((40, 40)), "2023-05-01", make_rasters.north_up()),
    }
    items = {}
    for name, (ids, day, transform) in places.items():
        place = make_class_file(tmp_path / name, ids, transform=transform)
        items[f"{name}/item.json"] = {
            "properties": {"datetime": f"{day}T10:00:00Z"},
            "geometry": shapely.geometry.mapping(place),
        }
    shown = pictures.shown(items)
    assert [one.folder for one in shown] == ["old <1>", "new"]
    pictures.draw_overview(tmp_path, shown, CLASSES, tmp_path / "overview.png")
    picture = pixels_of(tmp_path / "overview.png")
    assert share(picture, "#1f5fbf") == pytest.approx(share(picture, "#d9c9a3"), rel=0.1)
    assert share(picture, "#1f5fbf") > 0.2
    middle = picture[picture.shape[0] // 2]
    is_water = (middle == [0x1F, 0x5F, 0xBF]).all(-1)
    is_dry = (middle == [0xD9, 0xC9, 0xA3]).all(-1)
    assert np.flatnonzero(is_dry).max() < np.flatnonzero(is_water).min()
    page = pictures.page("Maps", shown)
    assert page.index("2023-05-01") < page.index("2024-05-01")
    assert 'src="overview.png"' in page
    assert "old &lt;1&gt;/map.png" in page


def test_maps_on_both_sides_of_the_antimeridian_lie_side_by_side(tmp_path):
    # In UTM zone 60, 180 degrees east lies at x = 833,979 m on the equator.
    ids = np.ones((40, 40))
    transform = rasterio.Affine(10, 0, 833_779, 0, -10, 400)
    place = make_class_file(tmp_path / "map", ids, crs="EPSG:32660", transform=transform)
    assert place.geom_type == "MultiPolygon"
    moved = pictures._side_by_side([place])
    west, _, east, _ = shapely.total_bounds(moved)
    assert 179.9 < west < 180 < east < 180.1
    shown = [pictures.Shown(folder="map", acquired="2024-01-01T00:00:00Z", geometry=place)]
    pictures.draw_overview(tmp_path, shown, CLASSES, tmp_path / "overview.png")
    assert share(pixels_of(tmp_path / "overview.png"), "#1f5fbf") > 0.4
    apart = [shapely.box(-1, 0, 1, 1), shapely.box(20, 0, 21, 1)]
    assert shapely.equals(pictures._side_by_side(apart), apart).all()
