"""Items of public catalogs as downloaded: every band, unit, mask and level by its value."""

import json
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes import make_stac_items
from tests.data.scenes.make_rasters import write_geotiff
from tests.data.scenes.make_stac_items import EARTH_SEARCH_NAMES, s2_bands

BANDS = ("B2", "B3", "B4", "B5", "B8", "B8A", "B11")


def scene_of(item, folder: Path):
    """The scene of an item whose JSON lies in `folder`."""
    return from_item(json.loads(json.dumps(item)), folder / "items.ndjson")


def check_pixels(scene, expected: dict[str, np.ndarray]) -> None:
    """Compare each band at its own pixel size with the written one, without the offset."""
    for name, plane in expected.items():
        alone = inspection.inspect(scene, (name,))
        got = readers.read_bands(alone, (name,), alone.grid)[..., 0]
        np.testing.assert_allclose(got, plane / 10_000, rtol=0, atol=1e-6, err_msg=name)


def check_clouds(scene) -> None:
    inspected = inspection.inspect(scene, ("B2",))
    mask = readers.read_cloud_mask(
        scene.cloud_mask, inspected.grid, scene.clear_values, scene.cloud_mask_index
    )
    expected = np.zeros((64, 64), bool)
    expected[2:, :16] = True
    assert np.array_equal(mask, expected)


def test_earth_search_as_downloaded(tmp_path):
    pixels = s2_bands(seed=1)
    scene = scene_of(make_stac_items.earth_search(tmp_path, pixels), tmp_path)
    assert (scene.sensor, scene.processing_level) == ("s2", "L2A")
    assert (scene.processing_baseline, scene.is_offset_applied) == ("05.09", True)
    assert scene.acquisition == "S2A_20230701T103631_33TVL"
    assert scene.declared_crs == "EPSG:32633"
    assert {name: Path(source.path).name for name, source in scene.bands.items()} == {
        band: f"{agency}.tif" for band, agency, _ in EARTH_SEARCH_NAMES.values()
    }
    check_pixels(scene, pixels)
    check_clouds(scene)


def test_planetary_computer_as_downloaded(tmp_path):
    pixels = s2_bands(seed=2)
    scene = scene_of(make_stac_items.planetary_computer(tmp_path, pixels), tmp_path)
    assert (scene.sensor, scene.processing_level) == ("s2", "L2A")
    assert (scene.processing_baseline, scene.is_offset_applied) == ("03.01", None)
    assert (scene.orbit_state, scene.relative_orbit) == ("descending", 8)
    assert tuple(sorted(scene.bands)) == tuple(sorted(BANDS))
    check_pixels(scene, pixels)
    check_clouds(scene)


def test_the_copernicus_data_space_as_downloaded(tmp_path):
    pixels = s2_bands(seed=3)
    scene = scene_of(make_stac_items.data_space(tmp_path, pixels), tmp_path)
    assert (scene.processing_level, scene.processing_baseline) == ("L2A", "03.01")
    assert scene.acquisition == "S2A_20210701T103631_33TVL"
    # The readers use the smallest pixel size of a band.
    assert {Path(source.path).parent.name for source in scene.bands.values()} == {"R10m", "R20m"}
    assert Path(scene.bands["B4"].path).name.endswith("B04_10m.tif")
    check_pixels(scene, pixels)
    check_clouds(scene)


def test_the_path_of_a_downloaded_file_counts_only_if_it_is_there(tmp_path):
    item = make_stac_items.data_space(tmp_path, s2_bands())
    for key, asset in item["assets"].items():
        asset["href"] = f"s3://eodata/Sentinel-2/{key}.jp2"
    asset = item["assets"]["B04_10m"]
    (tmp_path / asset["file:local_path"]).unlink()
    bands = scene_of(item, tmp_path).bands
    assert bands["B2"].path.endswith("_B02_10m.tif")
    # The coarser file is on this machine, the finer one is not.
    assert bands["B4"].path.endswith("_B04_20m.tif")
    del item["assets"]["B04_20m"]
    assert scene_of(item, tmp_path).bands["B4"].path == "s3://eodata/Sentinel-2/B04_10m.jp2"


def test_radar_in_linear_power_with_its_no_data(tmp_path):
    item, db = make_stac_items.radar_rtc(tmp_path)
    scene = scene_of(item, tmp_path)
    assert (scene.sensor, scene.orbit_state, scene.relative_orbit) == ("s1", "descending", 22)
    scene = inspection.inspect(scene, ("VV", "VH"))
    got = readers.read_bands(scene, ("VV", "VH"), scene.grid)
    np.testing.assert_allclose(got, np.moveaxis(db, 0, -1), rtol=0, atol=1e-4)
    # The item of the same files without raster:bands reads the same.
    for key in ("vv", "vh"):
        del item["assets"][key]["raster:bands"]
    again = inspection.inspect(scene_of(item, tmp_path), ("VV", "VH"))
    assert np.array_equal(readers.read_bands(again, ("VV", "VH"), again.grid), got, equal_nan=True)


def test_radar_in_radar_geometry_is_refused_unless_its_unit_is_declared(tmp_path):
    item = make_stac_items.radar_grd(tmp_path)
    with pytest.raises(DataError, match="is Sentinel-1 GRD in radar geometry") as error:
        scene_of(item, tmp_path)
    assert error.value.reason == "not_geocoded"
    for key in ("vv", "vh"):
        item["assets"][key] |= {"terrapair:unit": "power", "nodata": 0, "raster:scale": 1e-4}
    assert scene_of(item, tmp_path).bands["VH"].scale == 1e-4


def test_a_file_on_this_machine_goes_before_the_catalogs_copy_and_the_original(tmp_path):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    for key in [*EARTH_SEARCH_NAMES]:
        copy, original = item["assets"][key], item["assets"][f"{key}-jp2"]
        copy["href"] = f"https://sentinel-cogs.s3.us-west-2.amazonaws.com/{key}.tif"
        original["href"] = f"R10m/{key}.jp2"
    scene = scene_of(item, tmp_path)
    assert scene.bands["B4"].path == str(tmp_path / "R10m/red.jp2")
    # The catalog removed the offset from its copies only.
    assert scene.is_offset_applied is None
    item["assets"]["red"]["href"] = "B04.tif"
    with pytest.raises(DataError, match="download all bands of one kind"):
        scene_of(item, tmp_path)


def test_an_item_that_is_not_downloaded_says_so(tmp_path):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    for asset in item["assets"].values():
        asset["href"] = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/x.tif"
    with pytest.raises(
        DataError, match=r"lies on a web server, https://sentinel-cogs.*download it"
    ):
        scene_of(item, tmp_path)
    # If an item is downloaded in part, the readers use the bands at hand.
    item["assets"]["red"]["href"] = "B04.tif"
    item["assets"]["scl"]["href"] = "SCL.tif"
    assert set(scene_of(item, tmp_path).bands) == {"B4"}


@pytest.mark.parametrize(
    ("fields", "bands"),
    [
        ({"eo:bands": [{"name": "B04"}, {"name": "B02"}]}, {"B4": 1, "B2": 2}),
        ({"bands": [{"name": "nir"}, {"name": "b8a"}]}, {"B8": 1, "B8A": 2}),
        (
            {"eo:bands": [{"common_name": "swir22"}, {"common_name": "coastal"}]},
            {"B12": 1, "B1": 2},
        ),
        (
            {"bands": [{"name": "x", "eo:common_name": "rededge075"}, {"name": "B09"}]},
            {"B6": 1, "B9": 2},
        ),
        # An unknown name keeps its place in the list.
        ({"bands": [{"name": "SCL"}, {"name": "B03"}, {"name": "dataMask"}]}, {"B3": 2}),
    ],
)
def test_bands_of_one_file_in_all_spellings(tmp_path, fields, bands):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    item["assets"] = {"data": {"href": "x.tif", **fields}}
    found = scene_of(item, tmp_path).bands
    assert {name: source.index for name, source in found.items()} == bands


def test_the_ambiguous_red_edge_is_known_by_its_asset_only(tmp_path):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    item["assets"] = {"data": {"href": "x.tif", "bands": [{"name": "rededge"}, {"name": "B05"}]}}
    assert {n: s.index for n, s in scene_of(item, tmp_path).bands.items()} == {"B5": 2}


def radar_item(tmp_path, **fields):
    item, _ = make_stac_items.radar_rtc(tmp_path)
    item["collection"] = "mine"
    for key in ("vv", "vh"):
        item["assets"][key]["raster:bands"] = [fields]
    return item


def test_the_scale_of_raster_bands_counts_beside_a_unit(tmp_path):
    db = make_stac_items.backscatter(64, 64, 5)
    stored = np.round(db * 100).astype(np.int16)
    stored[:, 0, 0] = -32768
    item = radar_item(tmp_path, unit="dB", scale=0.01, offset=0, nodata=-32768)
    for key, plane in zip(("vv", "vh"), stored, strict=True):
        write_geotiff(tmp_path / f"iw-{key}.rtc.tiff", plane[None])
    scene = inspection.inspect(scene_of(item, tmp_path), ("VV", "VH"))
    got = readers.read_bands(scene, ("VV", "VH"), scene.grid)
    expected = np.moveaxis(np.where(stored == -32768, np.nan, stored / 100.0), 0, -1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_decibels_of_the_archive_keep_their_fill_values(tmp_path):
    source = scene_of(radar_item(tmp_path, unit="dB", nodata="nan"), tmp_path).bands["VV"]
    assert source.unit == ""
    assert np.isnan(source.nodata)


def test_a_scale_without_a_unit_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"raster:scale 0.01 and raster:offset 0 without a unit are not those"
    ):
        scene_of(radar_item(tmp_path, scale=0.01), tmp_path)
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    item["assets"]["red"]["raster:bands"][0] |= {"scale": 2.75e-5, "offset": -0.2}
    with pytest.raises(DataError, match=r"raster:scale 2.75e-05 and raster:offset -0.2") as error:
        scene_of(item, tmp_path)
    assert error.value.reason == "bad_item"


def test_the_mask_may_be_a_band_of_a_larger_file(tmp_path):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    classes = make_stac_items.scene_classes()
    stack = np.stack([np.full_like(classes, 9), classes, np.full_like(classes, 3)])
    write_geotiff(tmp_path / "masks.tif", stack, transform=make_stac_items.north_up(20))
    item["assets"]["scl"] |= {"href": "masks.tif", "terrapair:index": 2}
    check_clouds(scene_of(item, tmp_path))
    item["assets"]["cloud_mask"] = {
        "href": "masks.tif",
        "terrapair:index": 2,
        "terrapair:clear_values": [4, 6],
    }
    check_clouds(scene_of(item, tmp_path))
    item["assets"]["cloud_mask"]["terrapair:index"] = 4
    scene = inspection.inspect(scene_of(item, tmp_path), ("B2",))
    with pytest.raises(DataError, match="the cloud mask at band 4, the file has 3 bands"):
        readers.read_cloud_mask(scene.cloud_mask, scene.grid, index=scene.cloud_mask_index)
    item["assets"]["cloud_mask"]["terrapair:index"] = "2"
    with pytest.raises(DataError, match="terrapair:index of cloud_mask must be a whole number"):
        scene_of(item, tmp_path)


def test_all_that_an_item_lacks_is_told_at_once(tmp_path):
    item = make_stac_items.earth_search(tmp_path, s2_bands())
    item["assets"] = {"label": {"href": "label.tif"}, "thumbnail": {"href": "x.png"}}
    item |= {"geometry": None, "bbox": None}
    item.pop("collection")
    item["properties"] = {
        "datetime": None,
        "start_datetime": "2023-07-01T00:00:00Z",
        "end_datetime": "2023-07-02T00:00:00Z",
        "platform": "sentinel-2a",
        "eo:cloud_cover": 101,
    }
    with pytest.raises(DataError) as error:
        scene_of(item, tmp_path)
    message = str(error.value)
    for part in (
        "needs a datetime with a time zone and a geometry",
        "eo:cloud_cover must be 0-100, got 101",
        "has neither an asset 'data' nor one per band of s2; its assets are label, thumbnail",
        "processing:level must be L1C or L2A, got 'none'",
        "asset 'label' lacks terrapair:label_schema",
    ):
        assert part in message
    assert message.count(item["id"]) == 1
    assert "\n" not in message
    with pytest.raises(DataError, match="item x: not a STAC item: lacks geometry, properties"):
        scene_of({"type": "Feature", "id": "x", "assets": {}}, tmp_path)
