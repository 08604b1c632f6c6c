"""Products: every spelling of today's catalogs gives the one that the project uses."""

import pytest

from beam_jobs.errors import DataError
from beam_jobs.scenes import products
from beam_jobs.scenes.scene import from_item


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"constellation": "Sentinel 2"}, "sentinel-2"),
        ({"constellation": "sentinel-2"}, "sentinel-2"),
        ({"constellation": "SENTINEL-1"}, "sentinel-1"),
        ({"constellation": "Sentinel_1"}, "sentinel-1"),
        ({"constellation": "sentinel2"}, "sentinel-2"),
        ({"constellation": "Sentinel-2A"}, "sentinel-2"),
        ({"constellation": "Copernicus Sentinel-2"}, "sentinel-2"),
        ({"platform": "Sentinel-2A"}, "sentinel-2"),
        ({"platform": "S2A"}, "sentinel-2"),
        ({"platform": "S1C"}, "sentinel-1"),
        ({"platform": "sentinel-2b"}, "sentinel-2"),
        ({"platform": "SENTINEL-1A"}, "sentinel-1"),
        ({"platform": "sentinel-1 b"}, "sentinel-1"),
        ({"constellation": "copernicus", "platform": "Sentinel-2C"}, "sentinel-2"),
        ({"constellation": None, "platform": "s2"}, "sentinel-2"),
        ({"constellation": "Sentinel-3"}, "sentinel-3"),
        ({"platform": "landsat-8"}, "landsat-8"),
        ({"platform": "sentinel-20"}, "sentinel-20"),
        ({}, ""),
    ],
)
def test_constellations_in_all_spellings(properties, expected):
    assert products.constellation_of(properties) == expected


def test_a_platform_of_the_other_sensor_is_refused(tmp_path):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "x",
        "geometry": {"type": "Point", "coordinates": [1, 2]},
        "properties": {
            "datetime": "2021-03-04T10:20:30Z",
            "constellation": "sentinel-1",
            "platform": "sentinel-2a",
        },
        "links": [],
        "assets": {"vv": {"href": "a.tif"}},
    }
    with pytest.raises(DataError, match="'sentinel-1' and platform 'sentinel-2a' contradict"):
        from_item(item, tmp_path / "items.ndjson")


@pytest.mark.parametrize(
    ("properties", "collection", "expected"),
    [
        ({"processing:level": "L2A"}, None, "L2A"),
        ({"processing:level": "l1c"}, None, "L1C"),
        ({"processing:level": "Level-2A"}, None, "L2A"),
        ({"processing:level": "2A"}, None, "L2A"),
        ({"processing:level": "L2", "product:type": "S2MSI2A"}, None, "L2A"),
        ({"processing:level": "L1", "product:type": "S2MSI1C"}, None, "L1C"),
        ({"s2:product_type": "S2MSI1C"}, "sentinel-2-l2a", "L1C"),
        ({}, "sentinel-2-l2a", "L2A"),
        ({}, "sentinel-s2-l2a-cogs", "L2A"),
        ({}, "sentinel-2-c1-l2a", "L2A"),
        ({}, "sentinel-2-l1c", "L1C"),
    ],
)
def test_levels_in_all_spellings(properties, collection, expected):
    assert products.processing_level(properties, collection, "x") == expected


@pytest.mark.parametrize(
    ("properties", "collection"),
    [
        ({}, None),
        ({}, "my-exports"),
        ({"processing:level": "L3"}, "sentinel-2-l2a"),
        ({"processing:level": "L1", "product:type": "S2MSI2A"}, None),
        ({"processing:level": "L2"}, None),
    ],
)
def test_a_level_that_is_not_told_is_refused(properties, collection):
    with pytest.raises(DataError, match=r"x: processing:level must be L1C or L2A, got '"):
        products.processing_level(properties, collection, "x")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"s2:processing_baseline": "05.09"}, "05.09"),
        ({"s2:processing_baseline": "N0400", "processing:version": "02.14"}, "04.00"),
        ({"processing:version": "05.11"}, "05.11"),
        ({"processing:version": "1.2.3"}, None),
        ({"s2:product_uri": "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_x.SAFE"}, "02.12"),
        ({"sentinel:product_id": "S2A_MSIL2A_20220105T101401_N0301_R022_T32TMT_x"}, "03.01"),
        ({}, None),
    ],
)
def test_baselines(properties, expected):
    assert products.processing_baseline(properties, "x") == expected


def test_a_baseline_that_is_none_is_refused():
    with pytest.raises(DataError, match=r"x: s2:processing_baseline must be as 05.09, got 'new'"):
        products.processing_baseline({"s2:processing_baseline": "new"}, "x")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"earthsearch:boa_offset_applied": True}, True),
        ({"earthsearch:boa_offset_applied": False}, False),
        ({"sentinel:boa_offset_applied": True}, True),
        ({"earthsearch:boa_offset_applied": "yes"}, None),
        ({}, None),
    ],
)
def test_whether_the_catalog_removed_the_offset(properties, expected):
    assert products.is_offset_applied(properties) is expected


NAME = "S2A_MSIL2A_20190212T192651_{}_T07HFE_20201007T160857"


@pytest.mark.parametrize(
    ("properties", "item_id"),
    [
        ({}, NAME.format("R013")),
        ({}, NAME.format("N0212_R013")),
        ({"s2:product_uri": NAME.format("N0500_R013") + ".SAFE"}, "S2A_7HFE_20190212_0_L2A"),
        (
            {"s2:datatake_id": "GS2A_20190212T192651_019029_N02.12", "grid:code": "MGRS-7HFE"},
            "S2A_7HFE_20190212_1_L2A",
        ),
        ({"s2:datatake_id": "GS2A_20190212T192651_019029_N05.00", "s2:mgrs_tile": "07HFE"}, "x"),
        ({"sentinel:product_id": NAME.format("N0212_R013")}, "S2A_7HFE_20190212_0_L2A"),
        (
            {
                "s2:datatake_id": "GS2A_20190212T192651_019029_N05.00",
                "s2:tile_id": "S2A_OPER_MSI_L2A_TL_ESRI_20201007T160858_A019029_T07HFE_N02.12",
            },
            "x",
        ),
    ],
)
def test_products_of_one_datatake_and_tile_have_one_acquisition(properties, item_id):
    assert products.acquisition(properties, item_id) == "S2A_20190212T192651_07HFE"


@pytest.mark.parametrize(
    ("properties", "item_id"),
    [
        ({}, "S2_x"),
        ({}, "20230105T101401_20230105T101356_T31UFS"),
        ({"s2:datatake_id": "GS2A_20190212T192651_019029_N02.12"}, "x"),
        ({"grid:code": "MGRS-7HFE"}, "x"),
    ],
)
def test_an_item_that_does_not_tell_both_has_no_acquisition(properties, item_id):
    assert products.acquisition(properties, item_id) == ""
