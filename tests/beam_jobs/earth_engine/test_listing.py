"""Listing: what comes is what the simulator's catalog says, for both sensors, in one request."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from beam_jobs.config import EarthEngineConfig
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.listing import Acquisition, list_acquisitions
from beam_jobs.emulator.faults import FaultsConfig

ALL = EarthEngineConfig(max_scene_cloud_fraction=1.0)
START, END = datetime(2022, 1, 1), datetime(2026, 1, 1)


def around_centre(item, half=0.001):
    xmin, ymin, xmax, ymax = item["bbox"]
    lon, lat = (xmin + xmax) / 2, (ymin + ymax) / 2
    return lon - half, lat - half, lon + half, lat + half


def time_of(item) -> datetime:
    return datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00"))


def of_place(world, sensor, place):
    return [
        item for item in world.of_sensor(sensor) if item["properties"]["terrapair:place"] == place
    ]


@pytest.mark.parametrize("place", ["place-0000", "place-0001", "place-0002"])
def test_scenes_of_a_place_are_those_of_the_catalog(
    world, emulator, image_ids, new_requests, place
):
    expected = []
    for sensor in ("s1", "s2"):
        for item in sorted(of_place(world, sensor, place), key=time_of):
            properties = item["properties"]
            expected.append(
                Acquisition(
                    image_id=image_ids[item["id"]],
                    sensor=sensor,
                    acquired_at=int(time_of(item).timestamp()),
                    orbit_state=properties["sat:orbit_state"],
                    relative_orbit=properties["sat:relative_orbit"],
                    cloud_fraction=properties.get("eo:cloud_cover", math.nan) / 100,
                )
            )
    found = list_acquisitions(around_centre(of_place(world, "s1", place)[0]), START, END, ALL)
    assert len(found) == 4
    # NaN is not equal to itself, but its text is.
    assert [repr(scene) for scene in found] == [repr(scene) for scene in expected]
    assert [line["method"] for line in new_requests()] == ["compute"]


def test_the_start_belongs_to_the_interval_and_the_end_does_not(world, emulator):
    item = world.of_sensor("s2")[0]
    bounds, time = around_centre(item), time_of(item)
    at = int(time.timestamp())
    second = timedelta(seconds=1)
    assert at in {s.acquired_at for s in list_acquisitions(bounds, time, time + second, ALL)}
    assert at not in {s.acquired_at for s in list_acquisitions(bounds, time - second, time, ALL)}


def test_cloudier_scenes_are_left_out(world, emulator):
    place = world.of_sensor("s2")[0]["properties"]["terrapair:place"]
    clouds = sorted(item["properties"]["eo:cloud_cover"] for item in of_place(world, "s2", place))
    assert clouds[0] < clouds[1]
    config = EarthEngineConfig(max_scene_cloud_fraction=(clouds[0] + clouds[1]) / 200)
    found = list_acquisitions(around_centre(of_place(world, "s2", place)[0]), START, END, config)
    assert [s.sensor for s in found] == ["s1", "s1", "s2"]
    assert found[-1].cloud_fraction == pytest.approx(clouds[0] / 100)


def test_scenes_of_the_other_level_are_another_collection(world, emulator):
    config = EarthEngineConfig(s2_processing_level="L1C", max_scene_cloud_fraction=1.0)
    found = list_acquisitions(around_centre(world.items[0]), START, END, config)
    assert [scene.sensor for scene in found] == ["s1", "s1"]


def test_a_scene_that_holds_only_part_of_the_place_is_left_out(world, emulator):
    xmin, ymin, _, _ = world.items[0]["bbox"]
    assert (
        list_acquisitions((xmin - 0.01, ymin - 0.01, xmin + 0.01, ymin + 0.01), START, END, ALL)
        == []
    )


def test_nothing_lies_in_the_sea_nor_across_the_antimeridian(emulator):
    assert list_acquisitions((-30.01, 0.0, -30.0, 0.01), START, END, ALL) == []
    assert list_acquisitions((179.99, -17.0, 180.01, -16.99), START, END, ALL) == []


def test_times_with_a_zone_are_that_moment(world, emulator):
    item = world.of_sensor("s1")[0]
    time = time_of(item).astimezone(timezone(timedelta(hours=5)))
    found = list_acquisitions(around_centre(item), time, time + timedelta(seconds=1), ALL)
    assert [scene.acquired_at for scene in found] == [int(time.timestamp())]


@pytest.mark.parametrize("fault", ["truncated", "dropped"])
def test_an_answer_cut_short_is_no_listing(world, emulator, fault):
    emulator.service.set_faults(FaultsConfig(**{fault: 1.0}))
    with pytest.raises(EarthEngineError, match=r"listing scenes of .* incomplete") as caught:
        list_acquisitions(around_centre(world.items[0]), START, END, ALL)
    assert (caught.value.reason, caught.value.retriable) == ("truncated", True)
