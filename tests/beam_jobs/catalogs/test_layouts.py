"""Layouts: each folder is recognized as what it is."""

import numpy as np
import pytest

from beam_jobs.catalogs import layouts
from beam_jobs.catalogs.catalog import discover
from beam_jobs.config import CatalogConfig
from tests.data.scenes.make_datasets import (
    make_bigearthnet,
    make_dfc2020,
    make_ee_timeseries,
    make_sen1floods11,
    make_sen12ms,
    make_ssl4eo,
    make_terramesh,
)
from tests.data.scenes.make_exports import make_ee_tfrecord, make_ssl4eo_v11, make_terramesh_shards
from tests.data.scenes.make_rasters import write_geotiff
from tests.data.scenes.make_stac_items import make_stac_folder

MAKERS = {
    "terramesh": make_terramesh,
    "bigearthnet": make_bigearthnet,
    "sen1floods11": make_sen1floods11,
    "sen12ms": make_sen12ms,
    "dfc2020": make_dfc2020,
    "ssl4eo": make_ssl4eo,
    "ssl4eo_v11": make_ssl4eo_v11,
    "terramesh_shards": make_terramesh_shards,
    "ee_timeseries": make_ee_timeseries,
    "ee_tfrecord": make_ee_tfrecord,
    "stac_items": make_stac_folder,
}


@pytest.mark.parametrize("name", MAKERS)
def test_layouts_are_told_apart(tmp_path, name):
    assert layouts.detect(MAKERS[name](tmp_path)) == name
    assert CatalogConfig(layout=name, path="x").layout == name


def test_every_layout_has_a_reader_and_a_miniature():
    assert set(layouts.READERS) == set(MAKERS)


def test_folders_of_something_else_have_no_layout(tmp_path):
    assert layouts.detect(tmp_path) is None
    # One step only is a scene, not a series; and a text file is no raster.
    write_geotiff(tmp_path / "one" / "a.tif", np.eye(4)[None], descriptions=("VV",))
    assert layouts.detect(tmp_path / "one") is None
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.tif").write_text("not a raster")
    assert layouts.detect(tmp_path / "two") is None


def test_exports_that_are_parted_by_sensor_are_found_one_level_down(tmp_path):
    for sensor, names in (("s1", ("VV", "VH")), ("s2", ("B2", "B3"))):
        write_geotiff(
            tmp_path / sensor / "flood_2021-03-04.tif", np.ones((2, 4, 4)), descriptions=names
        )
    assert discover(tmp_path) == (
        CatalogConfig(layout="ee_timeseries", path=str(tmp_path / "s1")),
        CatalogConfig(layout="ee_timeseries", path=str(tmp_path / "s2")),
    )


def test_files_of_one_band_each_are_exports_by_their_names(tmp_path):
    for name in ("VV", "VH"):
        write_geotiff(tmp_path / f"flood_2021-03-04.{name}.tif", np.eye(4)[None])
    assert layouts.detect(tmp_path) == "ee_timeseries"


def test_only_the_layout_that_has_split_lists_takes_them():
    with pytest.raises(
        ValueError,
        match="split_lists go with layouts sen12ms and dfc2020 only, got layout 'ssl4eo'",
    ):
        CatalogConfig(layout="ssl4eo", path="x", split_lists=("a.txt",))


def test_a_folder_of_scenes_on_a_store_is_refused():
    with pytest.raises(ValueError, match=r"'ssl4eo' must be a folder on a disk, got 's3://b/x': w"):
        CatalogConfig(layout="ssl4eo", path="s3://b/x")
    CatalogConfig(layout="stac", path="s3://b/items.ndjson")


@pytest.mark.parametrize("name", MAKERS)
def test_items_tell_source_and_licence(tmp_path, name):
    found = list(layouts.READERS[name](MAKERS[name](tmp_path)))
    assert found
    told = {(item.properties["terrapair:source"], item.properties["license"]) for item in found}
    assert told == {layouts.SOURCES[name]}
