"""Folders of items as downloaded: every file of an item, wherever its JSON lies."""

import json
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.catalogs import catalog, layouts, stac_items
from beam_jobs.config import CatalogConfig
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes import make_stac_items
from tests.data.scenes.make_stac_items import s2_bands


def write(path: Path, value: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def download(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write two scenes of Earth Search and one of radar, each in its own folder."""
    expected = {}
    for number in range(2):
        scene = folder / f"scene {number}"
        expected[f"S2_{number}"] = s2_bands(seed=number)
        item = make_stac_items.earth_search(scene, expected[f"S2_{number}"])
        write(scene / "item.json", item | {"id": f"S2_{number}"})
    item, db = make_stac_items.radar_rtc(folder / "radar")
    write(folder / "radar" / f"{item['id']}.json", item)
    expected[item["id"]] = {"VV": db[0], "VH": db[1]}
    return expected


def check(found: list[dict], where: Path, expected: dict[str, dict[str, np.ndarray]]) -> None:
    scenes = {item["id"]: from_item(item, where) for item in found}
    assert set(scenes) == set(expected)
    for name, planes in expected.items():
        for band, plane in planes.items():
            scene = inspection.inspect(scenes[name], (band,))
            got = readers.read_bands(scene, (band,), scene.grid)[..., 0]
            np.testing.assert_allclose(
                got, plane if scene.sensor == "s1" else plane / 10_000, rtol=0, atol=1e-4
            )


def test_hrefs_start_at_the_folder_of_each_item(tmp_path):
    expected = download(tmp_path / "data")
    assert layouts.detect(tmp_path / "data") == "stac_items"
    written = catalog.write_items(stac_items.read(tmp_path / "data"), tmp_path / "items.ndjson")
    check(list(catalog.read_items(written)), written, expected)
    # The folder itself is a catalog too.
    check(list(catalog.read_items(tmp_path / "data")), tmp_path / "data", expected)
    sources = {item["properties"]["terrapair:source"] for item in catalog.read_items(written)}
    assert sources == {"sentinel-2-l2a", "sentinel-1-rtc"}


def test_an_item_collection_and_a_static_catalog(tmp_path):
    expected = download(tmp_path)
    features = []
    for path in sorted(tmp_path.rglob("*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            if "://" not in asset["href"]:
                asset["href"] = f"./{path.parent.name.replace(' ', '%20')}/{asset['href']}"
        features.append(item)
        path.unlink()
    collection = {"type": "FeatureCollection", "features": features}
    path = write(tmp_path / "search.json", collection)
    check(list(catalog.read_items(path)), path, expected)
    write(tmp_path / "catalog.json", {"type": "Catalog", "id": "x", "links": []})
    check(list(catalog.read_items(tmp_path / "catalog.json")), tmp_path, expected)
    assert layouts.detect(tmp_path) == "stac_items"


def test_an_item_that_is_listed_again_is_read_once_and_other_files_are_left_aside(tmp_path):
    download(tmp_path)
    item = json.loads((tmp_path / "scene 0" / "item.json").read_text())
    write(tmp_path / "z" / "search.geojson", {"type": "FeatureCollection", "features": [item]})
    write(tmp_path / "notes.json", {"type": "Feature", "geometry": None, "properties": {}})
    (tmp_path / "broken.json").write_text("{")
    write(tmp_path / "made" / "item.json", item | {"id": "left out"})
    (tmp_path / "made" / "items.ndjson").write_text("{}")
    found = sorted(item.id[:4] for item in stac_items.read(tmp_path))
    assert found == ["S1A_", "S2_0", "S2_1"]


def test_discover_lists_each_item_once(tmp_path):
    download(tmp_path / "data" / "a")
    (tmp_path / "data" / "mesh" / "S1RTC").mkdir(parents=True)
    (tmp_path / "data" / "mesh" / "S2L2A").mkdir()
    assert catalog.discover(tmp_path / "data") == (
        CatalogConfig(layout="stac_items", path=str(tmp_path / "data")),
        CatalogConfig(layout="terramesh", path=str(tmp_path / "data" / "mesh")),
    )
    assert catalog.discover(tmp_path / "data" / "a") == (
        CatalogConfig(layout="stac_items", path=str(tmp_path / "data" / "a")),
    )


def test_a_bad_item_is_one_refused_scene(tmp_path):
    download(tmp_path)
    item = json.loads((tmp_path / "scene 0" / "item.json").read_text())
    del item["properties"]["s2:product_type"]
    del item["collection"]
    write(tmp_path / "scene 0" / "item.json", item)
    found = {item["id"]: item for item in catalog.read_items(tmp_path)}
    assert len(found) == 3
    refused = found["S2_0"]["properties"]["terrapair:refused"]
    assert refused["reason"] == "bad_item"
    assert "processing:level must be L1C or L2A" in refused["detail"]
    catalog.check_usable([tmp_path])


def test_a_catalog_of_refused_scenes_only_says_why(tmp_path):
    for number in range(2):
        item = make_stac_items.radar_grd(tmp_path / str(number))
        write(tmp_path / str(number) / "item.json", item | {"id": f"S1_{number}"})
    with pytest.raises(
        DataError, match=r"every scene is refused \(not_geocoded 2\); the first: "
    ) as (error):
        catalog.check_usable([tmp_path])
    assert error.value.reason == "not_geocoded"
    assert int(error.value.exit_code) == 3
    assert "is Sentinel-1 GRD in radar geometry" in str(error.value)


def test_a_folder_without_items_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="holds no STAC item; make a catalog of it"):
        list(catalog.read_items(tmp_path))
