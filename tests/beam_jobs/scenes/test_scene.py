"""Scenes from STAC items: every field by hand, every broken item named in one line."""

import copy
import math
import re
from pathlib import Path

import pytest

from beam_jobs.contracts import locations
from beam_jobs.contracts.label_target import VectorColumns
from beam_jobs.errors import DataError
from beam_jobs.scenes.assets import BandSource
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import from_item

CATALOG = Path("/data/exports/items.ndjson")
POLYGON = {
    "type": "Polygon",
    "coordinates": [[[10.0, 45.0], [11.0, 45.0], [11.0, 46.0], [10.0, 46.0], [10.0, 45.0]]],
}


def item(**changes):
    """A whole Sentinel-2 item; `changes` replace properties, or take them away when None."""
    properties = {
        "datetime": "2021-03-04T10:20:30Z",
        "constellation": "Sentinel-2",
        "processing:level": "L2A",
        "eo:cloud_cover": 12.5,
        "proj:code": "EPSG:32633",
        "terrapair:dn_offset": 1000,
    }
    properties.update(changes)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2_x",
        "geometry": copy.deepcopy(POLYGON),
        "bbox": [10.0, 45.0, 11.0, 46.0],
        "properties": {key: value for key, value in properties.items() if value is not None},
        "links": [],
        "assets": {
            "data": {"href": "s2/x.tif", "bands": [{"name": "B4"}, {"name": "B2"}]},
            "label": {
                "href": "/labels/x.tif",
                "terrapair:label_schema": "water",
                "terrapair:label_nodata": 9,
            },
            "cloud_mask": {"href": "s2/mask.tif"},
        },
    }


def s1_item(**changes):
    values = item(
        **{
            "constellation": "sentinel-1",
            "processing:level": None,
            "sat:orbit_state": "Ascending",
            **changes,
        }
    )
    values["assets"] = {"data": {"href": "s1.tif", "eo:bands": [{"name": "VV"}, {"name": "VH"}]}}
    return values


def test_a_sentinel_2_item_gives_its_scene():
    scene = from_item(item(), CATALOG)
    assert (scene.scene_id, scene.sensor, scene.processing_level) == ("S2_x", "s2", "L2A")
    assert scene.acquired_at == 1614853230
    assert (scene.cloud_fraction, scene.declared_crs, scene.dn_offset) == (
        0.125,
        "EPSG:32633",
        1000,
    )
    assert scene.orbit_state == "unknown"
    assert scene.bands == {
        "B4": BandSource(path="/data/exports/s2/x.tif", index=1),
        "B2": BandSource(path="/data/exports/s2/x.tif", index=2),
    }
    assert scene.label == LabelSource(path="/labels/x.tif", schema="water", nodata=9)
    assert scene.cloud_mask == "/data/exports/s2/mask.tif"
    assert scene.grid is None


def test_a_sentinel_1_item_gives_its_scene():
    scene = from_item(s1_item(), CATALOG)
    assert (scene.sensor, scene.processing_level, scene.orbit_state) == ("s1", "", "ascending")
    assert list(scene.bands) == ["VV", "VH"]
    assert scene.label is None
    assert scene.cloud_mask is None


def test_polarizations_are_unchecked_unless_the_item_says_so():
    values = s1_item()
    assert not from_item(values, CATALOG).polarizations_checked
    values["properties"]["terrapair:polarizations_checked"] = True
    assert from_item(values, CATALOG).polarizations_checked
    values["properties"]["terrapair:polarizations_checked"] = "yes"
    with pytest.raises(DataError, match="must be true or false, got 'yes'"):
        from_item(values, CATALOG)


def test_what_is_not_declared_is_unknown():
    without = {"eo:cloud_cover": None, "proj:code": None, "terrapair:dn_offset": None}
    scene = from_item(item(**without), CATALOG)
    assert math.isnan(scene.cloud_fraction)
    assert (scene.declared_crs, scene.dn_offset) == (None, None)


def test_the_event_is_text_and_empty_where_none_is_told():
    assert from_item(item(**{"terrapair:event": "Sri-Lanka"}), CATALOG).event == "Sri-Lanka"
    assert from_item(item(**{"terrapair:event": 271}), CATALOG).event == "271"
    assert from_item(item(), CATALOG).event == ""


def test_a_label_is_drawn_by_hand_unless_it_says_otherwise():
    values = item()
    assert from_item(values, CATALOG).label.kind == "hand"
    values["assets"]["label"]["terrapair:label_kind"] = "weak"
    assert from_item(values, CATALOG).label.kind == "weak"
    values["assets"]["label"]["terrapair:label_kind"] = "Weak"
    with pytest.raises(
        DataError, match=r"item S2_x: terrapair:label_kind must be hand or weak, got 'Weak'"
    ):
        from_item(values, CATALOG)


def with_label(**fields):
    values = item()
    label = values["assets"]["label"]
    for name, value in fields.items():
        label[f"terrapair:{name}"] = value
    return from_item(values, CATALOG).label


def test_a_label_may_say_its_band_its_values_and_its_columns():
    label = with_label(index=3, label_values={"0": "dry", "255": 1})
    assert (label.index, label.values, label.vector) == (3, {"0": "dry", "255": 1}, None)
    label = with_label(label_column="class", label_date_column="day", label_max_days=2)
    assert label.vector == VectorColumns(column="class", date_column="day", max_days=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index": 0}, "terrapair:index of a label must be a whole number from 1, got 0"),
        ({"label_nodata": "9"}, "terrapair:label_nodata must be a number, got '9'"),
        ({"label_values": {"0.5": "dry"}}, "must map whole numbers"),
        ({"label_values": {"9": "dry"}}, "the value 9 is terrapair:label_nodata and has a class"),
        ({"label_date_column": "day"}, "a vector label needs terrapair:label_column"),
        ({"label_column": 3}, "names of columns as text, got column 3"),
        ({"label_column": "c", "label_max_days": "2"}, "got max_days '2'"),
        ({"label_column": "c", "label_max_days": 2}, "max_days goes with date_column"),
    ],
)
def test_a_label_with_a_wrong_field_is_refused(fields, message):
    with pytest.raises(DataError, match=f"item S2_x: .*{message}") as error:
        with_label(**fields)
    assert error.value.reason == "bad_item"


def test_the_older_proj_epsg_is_read_too():
    assert (
        from_item(item(**{"proj:code": None, "proj:epsg": 32719}), CATALOG).declared_crs
        == "EPSG:32719"
    )


def test_other_time_zones_become_utc():
    assert from_item(item(datetime="2021-03-04T12:20:30+02:00"), CATALOG).acquired_at == 1614853230


def test_one_asset_per_band_leaves_other_assets_aside():
    values = item()
    values["assets"] = {name: {"href": f"{name}.tif"} for name in ("B8A", "thumbnail", "B11", "VV")}
    assert from_item(values, CATALOG).bands == {
        "B8A": BandSource(path="/data/exports/B8A.tif", index=1),
        "B11": BandSource(path="/data/exports/B11.tif", index=1),
    }


def test_the_item_is_left_as_it_was():
    values = item()
    before = copy.deepcopy(values)
    from_item(values, CATALOG)
    assert values["properties"] == before["properties"]
    assert values["assets"] == before["assets"]


def changed(path, value):
    values = item()
    node = values
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "reason", "message"),
    [
        ({"type": "Feature", "id": "x"}, "bad_item", "not a STAC item"),
        (changed(["type"], "Collection"), "bad_item", "not a STAC item"),
        (changed(["assets"], ["a"]), "bad_item", "not a STAC item"),
        (changed(["properties", "datetime"], "yesterday"), "bad_item", "not a STAC item"),
        (changed(["properties", "constellation"], "landsat-8"), "bad_item", "got 'landsat-8'"),
        (changed(["properties", "constellation"], None), "bad_item", "constellation must be"),
        (
            changed(["properties", "processing:level"], "L3"),
            "bad_item",
            "processing:level must be L1C or L2A, got 'L3'",
        ),
        (
            changed(["properties", "eo:cloud_cover"], "few"),
            "bad_item",
            "eo:cloud_cover must be 0-100, got 'few'",
        ),
        (
            changed(["properties", "eo:cloud_cover"], 101),
            "bad_item",
            "eo:cloud_cover must be 0-100, got 101",
        ),
        (
            changed(["properties", "terrapair:dn_offset"], -1000),
            "bad_item",
            "dn_offset must be 0 or 1000, got -1000",
        ),
        (
            changed(["properties", "terrapair:dn_offset"], "1000"),
            "bad_item",
            "dn_offset must be 0 or 1000, got '1000'",
        ),
        (changed(["geometry"], {"type": "Polygon"}), "bad_item", "geometry"),
        (changed(["geometry"], {"type": "Polygon", "coordinates": []}), "bad_item", "geometry"),
        (
            changed(["geometry", "coordinates"], [[["a", 1], [2, 3], [4, 5], ["a", 1]]]),
            "bad_item",
            "geometry",
        ),
        (
            changed(["assets", "data", "bands"], None),
            "unknown_band_order",
            "does not name its bands in order",
        ),
        (
            changed(["assets", "data", "bands"], [{"name": "B2"}, {"name": "B02"}]),
            "unknown_band_order",
            "B02",
        ),
        (
            changed(["assets", "data", "bands"], [{"name": "B2"}, {"name": "B2"}]),
            "unknown_band_order",
            "distinct",
        ),
        (changed(["assets", "data", "bands"], [{"name": "VV"}]), "unknown_band_order", "VV"),
        (changed(["assets", "data", "bands"], ["B4", "B2"]), "unknown_band_order", "bands"),
        (
            changed(["assets", "data"], None),
            "missing_bands",
            "neither an asset 'data' nor one per band of s2",
        ),
        (
            changed(["assets", "label", "terrapair:label_schema"], None),
            "bad_item",
            "lacks terrapair:label_schema",
        ),
    ],
)
def test_a_broken_item_is_named_with_catalog_and_rule(values, reason, message):
    with pytest.raises(DataError) as error:
        from_item(values, CATALOG)
    assert str(error.value).startswith(f"{CATALOG}: ")
    assert message in str(error.value)
    assert error.value.reason == reason
    assert "\n" not in str(error.value)


def test_an_item_without_time_is_refused():
    values = item(
        datetime=None, start_datetime="2021-01-01T00:00:00Z", end_datetime="2021-01-02T00:00:00Z"
    )
    values["properties"]["datetime"] = None
    with pytest.raises(DataError, match="needs a datetime"):
        from_item(values, CATALOG)


@pytest.mark.parametrize("item_id", [True, 7, ""])
def test_an_id_that_is_no_text_is_refused(item_id):
    with pytest.raises(DataError, match="needs an id of text") as error:
        from_item({**item(), "id": item_id}, CATALOG)
    assert error.value.reason == "bad_item"


def test_an_item_without_geometry_is_refused():
    with pytest.raises(DataError, match="geometry"):
        from_item(item() | {"geometry": None, "bbox": None}, CATALOG)


def test_bands_may_say_where_they_are_in_a_larger_file():
    values = item()
    values["assets"]["data"]["bands"] = [
        {"name": "B4", "terrapair:index": 21},
        {"name": "B2", "terrapair:index": 19},
    ]
    assert {name: band.index for name, band in from_item(values, CATALOG).bands.items()} == {
        "B4": 21,
        "B2": 19,
    }


@pytest.mark.parametrize("indexes", [(0, 1), (3, 3), ("2", 1), (1.5, 2), (None, 2), (True, 2)])
def test_band_indexes_must_be_distinct_whole_numbers_from_1(indexes):
    values = item()
    for band, index in zip(values["assets"]["data"]["bands"], indexes, strict=True):
        band["terrapair:index"] = index
    with pytest.raises(
        DataError, match="terrapair:index of bands must be distinct whole numbers from 1"
    ) as error:
        from_item(values, CATALOG)
    assert error.value.reason == "unknown_band_order"


def test_a_declared_split_is_read_and_another_word_refused():
    assert from_item(item(), CATALOG).split is None
    assert from_item(item(**{"terrapair:split": "eval"}), CATALOG).split == "eval"
    with pytest.raises(
        DataError, match="terrapair:split must be one of train, eval, test, got 'valid'"
    ):
        from_item(item(**{"terrapair:split": "valid"}), CATALOG)


def with_assets(**assets):
    values = item()
    del values["assets"]["cloud_mask"]
    values["assets"] |= assets
    return from_item(values, CATALOG)


def test_the_scene_classification_is_the_cloud_mask_where_there_is_no_other():
    scl, mask = {"href": "scl.tif"}, {"href": "mask.tif"}
    found = with_assets(scl=scl)
    assert (found.cloud_mask, found.clear_values) == (
        "/data/exports/scl.tif",
        (1, 2, 4, 5, 6, 7, 11),
    )
    found = with_assets(scl=scl, cloud_mask=mask)
    assert (found.cloud_mask, found.clear_values) == ("/data/exports/mask.tif", (0,))
    found = with_assets(scl={**scl, "terrapair:clear_values": [4, 5]})
    assert found.clear_values == (4, 5)
    assert with_assets().cloud_mask is None


@pytest.mark.parametrize("listed", [[], "8", [True]])
def test_clear_values_that_are_no_pixel_values_are_refused(listed):
    with pytest.raises(
        DataError, match="terrapair:clear_values must be a list of whole numbers, got"
    ):
        with_assets(scl={"href": "scl.tif", "terrapair:clear_values": listed})


def test_the_relative_orbit_is_read_and_must_be_a_number():
    assert from_item(s1_item(**{"sat:relative_orbit": 15}), CATALOG).relative_orbit == 15
    assert from_item(s1_item(), CATALOG).relative_orbit is None
    with pytest.raises(
        DataError, match="sat:relative_orbit must be a whole number from 1, got '15'"
    ):
        from_item(s1_item(**{"sat:relative_orbit": "15"}), CATALOG)


def test_a_band_may_be_known_by_the_files_own_name_and_have_its_own_no_data():
    values = item()
    values["assets"]["data"]["bands"] = [
        {"name": "B4", "terrapair:key": "0_B4", "nodata": -9999},
        {"name": "B2"},
    ]
    bands = from_item(values, CATALOG).bands
    assert (bands["B4"].key, bands["B4"].nodata) == ("0_B4", -9999.0)
    assert (bands["B2"].key, bands["B2"].index, bands["B2"].nodata) == ("", 2, None)


def test_bands_of_a_tfrecord_export_are_known_by_name_and_share_the_assets_no_data():
    values = item()
    values["assets"]["data"].update(href="x-mixer.json", nodata=0)
    bands = from_item(values, CATALOG).bands
    assert {name: (band.key, band.nodata) for name, band in bands.items()} == {
        "B4": ("B4", 0.0),
        "B2": ("B2", 0.0),
    }


@pytest.mark.parametrize(
    ("asset", "change", "message"),
    [
        ("data", {"nodata": "none"}, "nodata of a band must be a number, got 'none'"),
        ("data", {"terrapair:key": "x"}, "a terrapair:key name one band, got ['x', 'x']"),
        (
            "cloud_mask",
            {"terrapair:clear_values": 0},
            "clear_values must be a list of whole numbers, got 0",
        ),
    ],
)
def test_places_that_do_not_tell_are_refused(asset, change, message):
    values = item()
    values["assets"][asset].update(change)
    with pytest.raises(DataError, match=re.escape(message)):
        from_item(values, CATALOG)


def test_values_of_a_cloud_mask_that_mean_clear():
    values = item()
    assert from_item(values, CATALOG).clear_values == (0,)
    values["assets"]["cloud_mask"]["terrapair:clear_values"] = [0, 1, 2]
    assert from_item(values, CATALOG).clear_values == (0, 1, 2)


def test_assets_may_lie_on_an_object_store():
    values = item()
    values["assets"]["label"]["href"] = "gs://labels/x.tif"
    scene = from_item(values, locations.parse("s3://bucket/exports/items.ndjson"))
    assert scene.paths == {
        "s3://bucket/exports/s2/x.tif",
        "gs://labels/x.tif",
        "s3://bucket/exports/s2/mask.tif",
    }
    values["assets"]["label"]["href"] = "https://example.org/x.tif"
    with pytest.raises(DataError, match=r"its asset lies on a web server, .* set allow_http"):
        from_item(values, CATALOG)
    assert "https://example.org/x.tif" in from_item(values, CATALOG, allow_http=True).paths


def units(**changes):
    return {
        "terrapair:unit": "reflectance",
        "nodata": 0,
        "raster:scale": 0.002,
        "raster:offset": -0.01,
    } | changes


def test_units_that_an_item_declares_are_those_of_its_bands():
    values = item(**{"terrapair:dn_offset": None})
    values["assets"]["data"].update(units())
    values["assets"]["data"]["bands"] = [
        {"name": "B4"},
        {"name": "B2", "raster:scale": 0.004, "nodata": None},
    ]
    scene = from_item(values, CATALOG)
    assert scene.declares_units
    red, blue = scene.bands["B4"], scene.bands["B2"]
    assert (red.unit, red.scale, red.offset, red.nodata) == ("reflectance", 0.002, -0.01, 0.0)
    assert (blue.unit, blue.scale, blue.offset, blue.nodata) == ("reflectance", 0.004, -0.01, None)


def test_scale_and_offset_without_a_unit_are_not_applied():
    # Catalogs of Sentinel-2 say offset -0.1 for pixels that have it and for pixels that
    # have not.
    values = item()
    values["assets"]["data"].update({"raster:scale": 0.0001, "raster:offset": -0.1})
    scene = from_item(values, CATALOG)
    assert not scene.declares_units
    assert (scene.bands["B4"].scale, scene.bands["B4"].offset) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            units(**{"terrapair:unit": "power"}),
            "terrapair:unit of s2 must be reflectance, got 'power'",
        ),
        (
            units(**{"raster:scale": 0}),
            "raster:scale of a band must be a number, scale not 0, got 0",
        ),
        (
            units(**{"raster:offset": "1"}),
            "raster:offset of a band must be a number, scale not 0, got '1'",
        ),
        (
            {"terrapair:unit": "reflectance"},
            "needs nodata: the stored value, or null when all are measurements, got none",
        ),
    ],
)
def test_units_that_cannot_be_are_refused(fields, message):
    values = item(**{"terrapair:dn_offset": None})
    values["assets"]["data"].update(fields)
    with pytest.raises(DataError, match=re.escape(message)):
        from_item(values, CATALOG)


def test_a_scene_in_two_units_or_with_the_archives_offset_too_is_refused():
    values = item(**{"terrapair:dn_offset": None})
    values["assets"]["data"]["bands"] = [{"name": "B4", **units()}, {"name": "B2"}]
    with pytest.raises(
        DataError, match=r"one terrapair:unit, or none of them, got \['', 'reflectance'\]"
    ):
        from_item(values, CATALOG)
    values = item()
    values["assets"]["data"].update(units())
    with pytest.raises(
        DataError, match="terrapair:dn_offset must be absent beside terrapair:unit, got 1000"
    ):
        from_item(values, CATALOG)
