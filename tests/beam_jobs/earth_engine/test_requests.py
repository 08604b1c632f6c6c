"""Sizes, limits and names of requests."""

import dataclasses

import pytest

from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.requests import PixelRequest, check_limits, request_bytes

S1 = PixelRequest(
    sensor="s1",
    image_id="COPERNICUS/S1_GRD/S1A",
    bands=("VV", "VH"),
    crs="EPSG:32631",
    transform=(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_700_000.0),
    height=100,
    width=50,
)
S2 = dataclasses.replace(
    S1, sensor="s2", bands=("B2", "B3", "B4"), cloud_score=True, label="worldcover"
)


def test_bytes_count_every_band_of_the_answer():
    assert request_bytes(S1) == 2 * 100 * 50 * 4
    assert S2.answer_bands == ("B2", "B3", "B4", "cs_cdf", "label")
    assert request_bytes(S2) == 5 * 100 * 50 * 2
    assert (
        request_bytes(dataclasses.replace(S2, cloud_score=False, label="none")) == 3 * 100 * 50 * 2
    )


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        (dataclasses.replace(S1, height=32_769, width=1), "32768 pixels a side, got 1 x 32769"),
        (
            dataclasses.replace(S1, bands=tuple(f"b{i}" for i in range(1025)), height=1),
            "1024 bands, got 1025",
        ),
        # 50,331,648 bytes are 6,291,456 pixels of two float32 bands: 2048 x 3072.
        (dataclasses.replace(S1, height=2048, width=3073), "50331648 bytes, got 50348032"),
    ],
)
def test_what_earth_engine_would_refuse_is_refused_with_the_rule(request_, rule):
    with pytest.raises(EarthEngineError, match=rule) as caught:
        check_limits(request_)
    assert (caught.value.reason, caught.value.retriable) == ("too_large", False)


def test_the_largest_request_is_let_through():
    check_limits(dataclasses.replace(S1, height=2048, width=3072))
    check_limits(dataclasses.replace(S1, height=32_768, width=1))


def test_the_key_names_what_decides_the_pixels():
    changes = {
        "image_id": "COPERNICUS/S1_GRD/S1B",
        "bands": ("VH", "VV"),
        "crs": "EPSG:32632",
        "transform": (10.0, 0.0, 600_010.0, 0.0, -10.0, 5_700_000.0),
        "height": 101,
        "width": 51,
        "cloud_score": True,
        "label": "worldcover",
    }
    keys = {dataclasses.replace(S1, **{name: value}).key for name, value in changes.items()} | {
        S1.key
    }
    assert len(keys) == len(changes) + 1
    # Keys must stay the same, because ledgers outlive processes.
    assert S1.key == "a11b767e8c7471160668c7e0e1b336d1"
