"""Which pair is chosen, what is asked for, and the items of what came."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, shape

from beam_jobs.collect import collecting
from beam_jobs.collect.collecting import Pair, Unit
from beam_jobs.collect.config import CollectConfig
from beam_jobs.config import EarthEngineConfig
from beam_jobs.earth_engine.listing import Acquisition
from beam_jobs.errors import DataError
from beam_jobs.places.place import Place, Window
from beam_jobs.scenes.scene import from_item

HOUR = 3600


def acquisition(sensor, hours, orbit="ascending", cloud=math.nan, name=None) -> Acquisition:
    name = name or f"{sensor.upper()}_{hours}"
    collection = {"s1": "COPERNICUS/S1_GRD", "s2": "COPERNICUS/S2_SR_HARMONIZED"}[sensor]
    return Acquisition(
        image_id=f"{collection}/{name}",
        sensor=sensor,
        acquired_at=1_600_000_000 + round(hours * HOUR),
        orbit_state=orbit,
        relative_orbit=22,
        cloud_fraction=cloud,
    )


def unit(lon=10.0, lat=50.0) -> Unit:
    window = Window(start="2021-03-01", end="2021-04-01")
    return Unit(
        place=Place(place_id="p", lon=lon, lat=lat, stratum="crops", windows=(window,)),
        window=window,
    )


def hours(pair: Pair) -> tuple[float, float]:
    return tuple((scene.acquired_at - 1_600_000_000) / HOUR for scene in (pair.s1, pair.s2))


def test_nearest_in_time_wins_whatever_the_order():
    scenes = [acquisition("s1", h) for h in (0, 30, 61)] + [
        acquisition("s2", h) for h in (-20, 33, 55)
    ]
    for seed in range(5):
        random.Random(seed).shuffle(scenes)
        assert hours(collecting.choose(scenes, CollectConfig())) == (30, 33)


def test_ties_go_to_less_cloud_then_to_the_smaller_id():
    s1 = acquisition("s1", 0)
    scenes = [
        acquisition("s2", 5, cloud=0.4, name="a"),
        acquisition("s2", -5, cloud=0.1, name="b"),
        s1,
    ]
    assert collecting.choose(scenes, CollectConfig()).s2.image_id.endswith("/b")
    scenes = [acquisition("s2", 5, name="z"), acquisition("s2", -5, name="y"), s1]
    assert collecting.choose(scenes, CollectConfig()).s2.image_id.endswith("/y")


def test_preferred_orbit_wins_within_the_limit_and_only_there():
    s2 = acquisition("s2", 0)
    scenes = [acquisition("s1", 1, "ascending"), acquisition("s1", 40, "descending"), s2]
    config = CollectConfig(orbit_preference="descending", max_time_gap_hours=48)
    assert collecting.choose(scenes, config).s1.orbit_state == "descending"
    config = CollectConfig(orbit_preference="descending", max_time_gap_hours=30)
    assert collecting.choose(scenes, config).s1.orbit_state == "ascending"


@pytest.mark.parametrize(
    ("scenes", "reason", "detail"),
    [
        ([acquisition("s2", 0)], "no_s1", "VV and VH"),
        ([acquisition("s1", 0)], "no_s2", "max_scene_cloud_fraction is 0.6"),
        (
            [acquisition("s1", 0), acquisition("s2", -73)],
            "time_gap",
            "73.0 h apart; max_time_gap_hours is 72",
        ),
    ],
)
def test_no_pair_says_why(scenes, reason, detail):
    with pytest.raises(DataError, match=detail) as error:
        collecting.choose(scenes, CollectConfig())
    assert error.value.reason == reason


def test_both_requests_share_the_grid_and_only_optical_has_side_bands():
    config = CollectConfig(size_px=64, earth_engine=EarthEngineConfig(label="worldcover"))
    grid = collecting.grid_of(unit(), config)
    pair = Pair(s1=acquisition("s1", 0), s2=acquisition("s2", 1))
    requests = collecting.pixel_requests(pair, grid, config)
    assert list(requests) == ["s2", "s1"]
    assert requests["s1"].grid == requests["s2"].grid == grid
    assert requests["s1"].answer_bands == ("VV", "VH")
    assert requests["s2"].answer_bands[-3:] == ("B12", "cs_cdf", "label")
    assert len(requests["s2"].answer_bands) == 14
    assert requests["s1"].image_id == pair.s1.image_id


def test_pair_survives_the_ledger():
    pair = Pair(s1=acquisition("s1", 0), s2=acquisition("s2", 1, cloud=0.25))
    values = pair.to_dict()
    assert values["s1"]["cloud_fraction"] is None
    found = Pair.from_dict(values)
    assert found.s2 == pair.s2
    assert math.isnan(found.s1.cloud_fraction)
    one = unit()
    entry = {"unit": one.unit_id, **collecting.place_fields(one)}
    assert collecting.unit_of(entry).unit_id == one.unit_id
    assert collecting.unit_of(entry).stem == one.stem


@given(st.floats(-180, 180), st.floats(-80, 84), st.sampled_from([16, 256, 1000]))
def test_footprint_holds_the_place_and_never_spans_the_earth(lon, lat, size_px):
    config = CollectConfig(size_px=size_px)
    grid = collecting.grid_of(unit(lon, lat), config)
    footprint = collecting.footprint(grid)
    west, _, east, _ = collecting.listing_bounds(grid)
    parts = list(getattr(footprint, "geoms", [footprint]))
    assert all(-180 <= part.bounds[0] <= part.bounds[2] <= 180 for part in parts)
    assert sum(part.bounds[2] - part.bounds[0] for part in parts) == pytest.approx(
        east - west, abs=1e-6
    )
    # 10 km are 10 degrees at most at 84 N.
    assert 0 < east - west < 10
    assert len(parts) == (2 if east > 180 else 1)
    centre = Point(lon if len(parts) == 1 or lon > 0 else lon + 360, lat)
    if len(parts) == 1:
        assert footprint.buffer(1e-3).contains(centre) or abs(lon) > 179.9


def test_patch_across_the_antimeridian_has_a_part_on_each_side():
    grid = collecting.grid_of(unit(179.999, 0.0), CollectConfig(size_px=256))
    west, east = sorted(part.bounds for part in collecting.footprint(grid).geoms)
    assert (west[0], east[2]) == (-180.0, 180.0)
    assert collecting.listing_bounds(grid)[2] > 180.0


def test_items_are_scenes_that_builds_read(tmp_path):
    config = CollectConfig(size_px=64, earth_engine=EarthEngineConfig(label="dynamic_world"))
    hrefs = {"data": "./a.tif", "cloud_mask": "./c.tif", "label": "./l.tif"}
    item = collecting.stac_item(
        acquisition("s2", 0), unit(), config=config, hrefs=hrefs, cloud_fraction=0.123
    )
    scene = from_item(item.to_dict(), tmp_path / "items.ndjson")
    assert scene.scene_id == "S2_0_p"
    assert (scene.dn_offset, scene.processing_level, scene.cloud_fraction) == (
        0,
        "L2A",
        pytest.approx(0.123),
    )
    assert tuple(scene.bands) == config.bands_of_s2
    assert (scene.label.schema, scene.label.nodata) == ("dynamic_world", 255)
    assert scene.cloud_mask == str(tmp_path / "c.tif")
    radar = collecting.stac_item(
        acquisition("s1", 0, name="S1A_IW_x"), unit(), config=config, hrefs={"data": "./b.tif"}
    )
    scene = from_item(radar.to_dict(), tmp_path / "items.ndjson")
    assert (scene.sensor, scene.orbit_state, tuple(scene.bands)) == (
        "s1",
        "ascending",
        ("VV", "VH"),
    )
    assert radar.properties["platform"] == "sentinel-1a"
    assert shape(scene.footprint).contains(Point(10.0, 50.0))


def test_place_without_windows_is_refused():
    with pytest.raises(DataError, match="no time windows"):
        list(collecting.units([Place(place_id="p", lon=0, lat=0)]))


def test_slices_are_even_and_the_same_in_every_run():
    numbers = [collecting.slice_of(f"place-{n}/x", 4) for n in range(4000)]
    assert numbers[:6] == [collecting.slice_of(f"place-{n}/x", 4) for n in range(6)]
    assert all(900 < numbers.count(number) < 1100 for number in range(4))
