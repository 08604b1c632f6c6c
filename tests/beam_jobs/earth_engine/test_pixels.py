"""Pixels: equal to the simulator's files, masked ones explicit, every fault has its reason."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
from rasterio.io import MemoryFile

from beam_jobs.contracts.labels import DYNAMIC_WORLD, WORLDCOVER, remap
from beam_jobs.earth_engine.connection import connect, from_environment
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.pixels import fetch_overview, fetch_pixels, fetch_profiled
from beam_jobs.emulator.faults import FaultsConfig


def read(data: bytes) -> np.ndarray:
    with MemoryFile(data) as file, file.open() as dataset:
        return dataset.read()


def reason_of(request) -> str | None:
    """Why the request failed; None when it did not."""
    try:
        fetch_pixels(request)
    except EarthEngineError as error:
        return error.reason
    return None


def with_missing(world, sensor):
    """A scene of which some pixels, but not all, are missing in the first window of 64 x 48."""
    for item in world.of_sensor(sensor):
        pixels = world.pixels(item)
        missing = np.isnan(pixels[0]) if sensor == "s1" else pixels[0] == 0
        if 0 < missing.mean() < 1:
            row, col = np.argwhere(missing)[0]
            row, col = min(row, 96), min(col, 112)
            if not missing[row : row + 64, col : col + 48].all():
                return item, int(row), int(col)
    raise ValueError(f"no {sensor} scene has an edge; choose another seed")


def test_backscatter_is_that_of_the_scene_and_masked_pixels_are_no_data(
    world, emulator, request_of
):
    item, row, col = with_missing(world, "s1")
    data = fetch_pixels(request_of(item, row, col))
    expected = world.pixels(item)[:, row : row + 64, col : col + 48]
    assert np.isnan(expected).any()
    got = read(data)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.where(np.isnan(expected), -32768.0, expected))
    with MemoryFile(data) as file, file.open() as dataset:
        assert dataset.descriptions == ("VV", "VH")
        assert dataset.crs.to_string() == item["properties"]["proj:code"]
        assert tuple(dataset.transform)[:6] == request_of(item, row, col).transform


def test_reflectance_comes_as_digital_numbers_in_the_order_asked_for(world, emulator, request_of):
    item, row, col = with_missing(world, "s2")
    got = read(fetch_pixels(request_of(item, row, col, bands=("B8", "B2", "B12"))))
    # L2A order: B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12.
    expected = world.pixels(item)[[7, 1, 11], row : row + 64, col : col + 48]
    assert got.dtype == np.uint16
    assert (expected == 0).any()
    assert (expected > 0).any()
    np.testing.assert_array_equal(got, expected)


def test_cloud_score_and_label_come_with_the_bands_in_one_request(
    world, emulator, request_of, new_requests
):
    item = next(i for i in world.of_sensor("s2") if 5 < i["properties"]["eo:cloud_cover"] < 35)
    request = request_of(
        item, height=160, width=160, bands=("B2",), cloud_score=True, label="dynamic_world"
    )
    blue, score, label = read(fetch_pixels(request))
    cloud = world.pixels(item, "cloud_mask")[0]
    assert {0, 1} <= set(np.unique(cloud))
    np.testing.assert_array_equal(score, np.choose(np.minimum(cloud, 2), [9500, 500, 65535]))
    np.testing.assert_array_equal(label, world.pixels(item, "label")[0])
    np.testing.assert_array_equal(blue, world.pixels(item)[1])
    assert len(new_requests()) == 1


def test_scores_and_labels_of_missing_pixels_are_marked(world, emulator, request_of):
    item, row, col = with_missing(world, "s2")
    request = request_of(item, row, col, bands=("B2",), cloud_score=True, label="dynamic_world")
    blue, score, label = read(fetch_pixels(request))
    missing = blue == 0
    assert missing.any()
    assert (score[missing] == 65535).all()
    assert (label[missing] == 255).all()
    assert (score[~missing] <= 10_000).all()


def test_a_scene_without_dynamic_world_has_no_label_instead_of_an_error(
    world, emulator, request_of
):
    cloudy = [item for item in world.of_sensor("s2") if item["properties"]["eo:cloud_cover"] > 35]
    other = world.of_sensor("s2")[0]
    request = request_of(cloudy[0] if cloudy else other, bands=("B2",), label="dynamic_world")
    if not cloudy:
        # No scene of this world is that cloudy. A scene of another collection has no
        # Dynamic World image either.
        score = emulator.service.images[
            "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED/" + request.image_id.split("/")[-1]
        ]
        assert score.names == ["cs_cdf"]
        request = dataclasses.replace(request, image_id="ESA/WorldCover/v200/2021", bands=("Map",))
    assert (read(fetch_pixels(request))[1] == 255).all()


def test_worldcover_is_the_label_in_its_own_schema(world, emulator, request_of):
    item = world.of_sensor("s2")[0]
    label = read(
        fetch_pixels(request_of(item, bands=("B2",), height=160, width=160, label="worldcover"))
    )[1]
    truth = world.pixels(item, "label")[0]
    known = truth != 255
    assert set(np.unique(label[known])) <= set(WORLDCOVER.classes)
    np.testing.assert_array_equal(
        remap(label.astype(np.uint8), WORLDCOVER, DYNAMIC_WORLD)[known], truth[known]
    )
    assert len(np.unique(label[known])) > 2


def test_pixels_outside_of_the_scene_are_no_data(world, emulator, request_of):
    item = next(i for i in world.of_sensor("s1") if not np.isnan(world.pixels(i)[:, :4, :4]).any())
    got = read(fetch_pixels(request_of(item, row=-10, col=-20, height=64, width=64)))
    assert (got[:, :10] == -32768).all()
    assert (got[:, :, :20] == -32768).all()
    np.testing.assert_array_equal(got[:, 10:14, 20:24], world.pixels(item)[:, :4, :4])


def test_another_grid_gets_the_nearest_pixels(world, emulator, request_of):
    item = world.of_sensor("s2")[0]
    west, south, east, north = item["bbox"]
    lon, lat = west + 0.4 * (east - west), south + 0.6 * (north - south)
    request = dataclasses.replace(
        request_of(item, bands=("B4",)),
        crs="EPSG:4326",
        transform=(0.0002, 0.0, lon, 0.0, -0.0003, lat),
    )
    got = read(fetch_pixels(dataclasses.replace(request, height=5, width=7)))[0]
    scene = world.pixels(item)[3]
    a, _, c, _, e, f = item["properties"]["proj:transform"][:6]
    to_scene = pyproj.Transformer.from_crs(4326, item["properties"]["proj:code"], always_xy=True)
    for row in range(5):
        for col in range(7):
            x, y = to_scene.transform(lon + (col + 0.5) * 0.0002, lat - (row + 0.5) * 0.0003)
            assert got[row, col] == scene[math.floor((y - f) / e), math.floor((x - c) / a)]


def test_half_of_the_pixels_can_be_missing_on_demand(world, emulator, request_of):
    item = world.of_sensor("s2")[0]
    request = request_of(item, bands=("B2",), cloud_score=True, height=40, width=40)
    whole = read(fetch_pixels(request))
    emulator.service.set_faults(FaultsConfig(masked=1.0))
    half = read(fetch_pixels(request))
    assert (half[0, :, :20] == 0).all()
    assert (half[1, :, :20] == 65535).all()
    np.testing.assert_array_equal(half[:, :, 20:], whole[:, :, 20:])


@pytest.mark.parametrize(
    ("faults", "reason", "status", "retriable"),
    [
        ({"too_many_requests": 1.0}, "quota_exceeded", 429, True),
        (
            {"server_error": 1.0},
            "server_error",
            503,
            True,
        ),
        ({"truncated": 1.0}, "truncated", None, True),
        ({"dropped": 1.0}, "truncated", None, True),
        ({"too_large": 1.0}, "too_large", 400, False),
        ({"quota_exhausted_after": 0}, "quota_exhausted", 429, False),
    ],
)
def test_every_fault_has_its_reason(
    world, emulator, request_of, new_requests, faults, reason, status, retriable
):
    emulator.service.set_faults(FaultsConfig(**faults))
    with pytest.raises(EarthEngineError) as caught:
        fetch_pixels(request_of(world.of_sensor("s2")[0]))
    assert (caught.value.reason, caught.value.status, caught.value.retriable) == (
        reason,
        status,
        retriable,
    )
    assert "COPERNICUS/S2_SR_HARMONIZED" in str(caught.value)
    # The client does not try again by itself.
    assert len(new_requests()) == 1


def test_an_answer_after_the_deadline_is_a_timeout(world, emulator, request_of):
    emulator.service.set_faults(FaultsConfig(slow=1.0, slow_s=1.0))
    connect(dataclasses.replace(from_environment(emulator.environment, "fetch"), deadline_s=0.3))
    with pytest.raises(EarthEngineError) as caught:
        fetch_pixels(request_of(world.of_sensor("s1")[0]))
    assert (caught.value.reason, caught.value.retriable) == ("timeout", True)


def test_passing_faults_pass(world, emulator, request_of, new_requests):
    emulator.service.set_faults(FaultsConfig(server_error=1.0, max_faults_per_request=2))
    request = request_of(world.of_sensor("s1")[0])
    for _ in range(2):
        with pytest.raises(EarthEngineError):
            fetch_pixels(request)
    assert fetch_pixels(request)
    assert [(line["status"], line["attempt"]) for line in new_requests()] == [
        (503, 0),
        (503, 1),
        (200, 2),
    ]


def test_bursts_of_refusals_come_and_go(world, emulator, request_of, new_requests):
    emulator.service.set_faults(FaultsConfig(burst_every=3, burst_length=2))
    item = world.of_sensor("s1")[0]
    reasons = [reason_of(request_of(item, col=col, height=8, width=8)) for col in range(10)]
    assert reasons == [None, None, None, "quota_exceeded", "quota_exceeded"] * 2
    assert [line["status"] for line in new_requests()] == [200, 200, 200, 429, 429] * 2


def test_more_requests_than_the_rate_are_refused(world, emulator, request_of, new_requests):
    emulator.service.set_faults(FaultsConfig(max_requests_per_second=5))
    item = world.of_sensor("s1")[0]
    reasons = [reason_of(request_of(item, col=col, height=8, width=8)) for col in range(8)]
    assert reasons == [None] * 5 + ["quota_exceeded"] * 3
    assert [line["status"] for line in new_requests()] == [200] * 5 + [429] * 3


def test_what_breaks_a_limit_is_not_sent(world, emulator, request_of, new_requests):
    request = request_of(world.of_sensor("s1")[0], height=40_000, width=1)
    with pytest.raises(EarthEngineError, match="32768 pixels a side"):
        fetch_pixels(request)
    assert new_requests() == []


def test_unknown_images_and_bands_are_not_tried_again(world, emulator, request_of):
    request = request_of(world.of_sensor("s1")[0])
    with pytest.raises(EarthEngineError, match="not found") as caught:
        fetch_pixels(dataclasses.replace(request, image_id="COPERNICUS/S1_GRD/none"))
    assert caught.value.reason == "not_found"
    with pytest.raises(EarthEngineError, match="'HH'") as caught:
        fetch_pixels(dataclasses.replace(request, bands=("HH",)))
    assert (caught.value.reason, caught.value.retriable) == ("refused", False)


def test_a_profile_tells_what_a_request_cost(world, emulator, request_of, new_requests):
    request = request_of(world.of_sensor("s2")[0], height=100, width=160)
    profiled = fetch_profiled(request)
    assert profiled.data == fetch_pixels(request)
    # The emulator's price: 0.03 s and 1e-7 s for each of 100 x 160 pixels of 3 bands,
    # printed to three places.
    assert profiled.eecu_seconds == pytest.approx(0.03 + 1e-7 * 100 * 160 * 3, abs=5e-4)
    assert [line["method"] for line in new_requests()] == [
        "computePixels",
        "compute",
        "computePixels",
    ]


def test_many_threads_share_one_connection(world, emulator, request_of, new_requests):
    item = world.of_sensor("s1")[0]
    corners = [(row, col) for row in range(0, 128, 16) for col in range(0, 128, 32)]
    requests = [request_of(item, row, col, height=32, width=32) for row, col in corners]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(fetch_pixels, requests))
    scene = np.nan_to_num(world.pixels(item), nan=-32768.0)
    for (row, col), answer in zip(corners, answers, strict=True):
        np.testing.assert_array_equal(read(answer), scene[:, row : row + 32, col : col + 32])
    assert len({line["key"] for line in new_requests()}) == len(requests)


def test_the_overview_covers_the_earth_in_worldcover_classes(emulator, new_requests):
    with MemoryFile(fetch_overview(5.0)) as file, file.open() as dataset:
        cover = dataset.read(1)
        assert (dataset.crs.to_string(), tuple(dataset.bounds)) == (
            "EPSG:4326",
            (-180.0, -90.0, 180.0, 90.0),
        )
    assert cover.shape == (36, 72)
    # WorldCover ends at 60 degrees south and 82.75 degrees north.
    assert (cover[30:] == 0).all()
    assert (cover[0] == 0).all()
    assert set(np.unique(cover[2:30])) <= set(WORLDCOVER.classes)
    assert len(new_requests()) == 1
    with pytest.raises(ValueError, match=r"divide 180, got 0\.7"):
        fetch_overview(0.7)
