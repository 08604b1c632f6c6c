"""Catalogs: all three forms of items read the same; anything else is a one-line error."""

import json
import shutil
from datetime import datetime, timezone

import pystac
import pytest

from beam_jobs.catalogs import catalog
from beam_jobs.config import CatalogConfig, SimulateConfig
from beam_jobs.errors import DataError

POLYGON = {
    "type": "Polygon",
    "coordinates": [[[10.0, 45.0], [11.0, 45.0], [11.0, 46.0], [10.0, 45.0]]],
}


def items(count: int = 3) -> list[pystac.Item]:
    return [
        pystac.Item(
            id=f"S1_{i}",
            geometry=POLYGON,
            bbox=[10.0, 45.0, 11.0, 46.0],
            datetime=datetime(2021, 1, 1 + i, tzinfo=timezone.utc),
            properties={"constellation": "sentinel-1"},
        )
        for i in range(count)
    ]


def dicts(count: int = 3) -> list[dict]:
    return [item.to_dict(include_self_link=False) for item in items(count)]


def test_lines_and_collections_give_the_same_items(tmp_path):
    collection = {"type": "FeatureCollection", "features": dicts()}
    texts = {
        "lines": "".join(json.dumps(item) + "\n" for item in dicts()),
        "blank lines": "\n" + "\n\n".join(json.dumps(item) for item in dicts()) + "\n\n",
        "collection": json.dumps(collection),
        "pretty": json.dumps(collection, indent=2),
    }
    for name, text in texts.items():
        (tmp_path / "items.ndjson").write_text(text)
        assert list(catalog.read_items(tmp_path / "items.ndjson")) == dicts(), name


def test_one_item_alone_is_a_catalog_in_either_form(tmp_path):
    for indent in (None, 2):
        (tmp_path / "items.ndjson").write_text(json.dumps(dicts(1)[0], indent=indent))
        assert list(catalog.read_items(tmp_path / "items.ndjson")) == dicts(1)


def test_written_items_are_read_back(tmp_path):
    path = catalog.write_items(items(), tmp_path / "new" / "items.ndjson")
    assert list(catalog.read_items(path)) == dicts()
    assert len(path.read_text().splitlines()) == 3


def test_a_write_that_fails_leaves_the_old_catalog(tmp_path):
    path = catalog.write_items(items(), tmp_path / "items.ndjson")
    before = path.read_bytes()

    def broken():
        yield items()[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        catalog.write_items(broken(), path)
    assert path.read_bytes() == before
    with pytest.raises(RuntimeError, match="disk on fire"):
        catalog.write_items(broken(), tmp_path / "other.ndjson")
    assert not (tmp_path / "other.ndjson").exists()


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "empty_catalog", "the catalog is empty"),
        (b"\n \n", "empty_catalog", "the catalog is empty"),
        (b"id,date\n1,2\n", "bad_item", "not JSON"),
        (b'{"type": "Feature"}\n{"type": \n', "bad_item", "line 2 is not JSON"),
        (b'{"type": "Feature"}\n\n[1]\n', "bad_item", "line 3"),
        (b"[1, 2]\n", "bad_item", "not a STAC item"),
        (b"3\n", "bad_item", "not a STAC item"),
        (b'{"type": "FeatureCollection"}', "bad_item", "features"),
        (b'{"type": "FeatureCollection", "features": [1]}', "bad_item", "features"),
        (b"II*\x00\xff\xfe\x80", "bad_item", "not JSON"),
    ],
)
def test_what_is_no_catalog_is_named(tmp_path, content, reason, message):
    path = tmp_path / "items.ndjson"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(catalog.read_items(path))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert error.value.reason == reason
    assert "\n" not in str(error.value)


def test_an_absent_catalog_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"none\.ndjson: cannot read the catalog: No such file"
    ) as error:
        list(catalog.read_items(tmp_path / "none.ndjson"))
    assert error.value.reason == "missing_file"


def test_a_catalog_without_scenes_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"items.ndjson: not written, since no scene was found"):
        catalog.write_items([], tmp_path / "items.ndjson")
    assert list(tmp_path.iterdir()) == []


def test_discover_finds_layouts_and_catalogs_one_level_down(tmp_path):
    for name in ("mesh/S1RTC", "mesh/S2L1C", "ben/s1", "ben/s2", "exports", "notes", "half/S1RTC"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "exports" / "items.ndjson").touch()
    assert catalog.discover(tmp_path) == (
        CatalogConfig(layout="bigearthnet", path=str(tmp_path / "ben")),
        CatalogConfig(layout="stac", path=str(tmp_path / "exports" / "items.ndjson")),
        CatalogConfig(layout="terramesh", path=str(tmp_path / "mesh")),
    )
    assert catalog.discover(tmp_path / "mesh") == (
        CatalogConfig(layout="terramesh", path=str(tmp_path / "mesh")),
    )


def test_discover_takes_a_folder_that_a_catalog_lists_once(simulated, tmp_path):
    """Folders of exports look like a source of their own."""
    data = tmp_path / "data"
    shutil.copytree(simulated.parent, data)
    shutil.copytree(data / "place-0000", data / "unlisted")
    assert catalog.discover(data) == (
        CatalogConfig(layout="stac", path=str(data / simulated.name)),
        CatalogConfig(layout="ee_timeseries", path=str(data / "unlisted")),
    )


def test_discover_says_what_it_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        DataError, match=r"neither items\.ndjson nor a folder in a known layout"
    ) as error:
        catalog.discover(tmp_path)
    assert "terramesh, bigearthnet" in str(error.value)
    with pytest.raises(DataError, match="no such folder"):
        catalog.discover(tmp_path / "absent")


def test_a_stac_source_is_its_own_file(tmp_path):
    config = CatalogConfig(layout="stac", path=str(tmp_path / "x.ndjson"))
    assert catalog.resolve_catalog(config, tmp_path) == tmp_path / "x.ndjson"


def test_a_simulated_source_is_written_into_the_work_folder(tmp_path):
    config = CatalogConfig(
        layout="simulated", simulate=SimulateConfig(num_places=1, num_dates=1, size_px=64)
    )
    path = catalog.resolve_catalog(config, tmp_path)
    assert tmp_path in path.parents
    constellations = [item["properties"]["constellation"] for item in catalog.read_items(path)]
    assert sorted(constellations) == ["sentinel-1", "sentinel-2"]
