"""The plan: closed forms, tiers, refusals, and a pilot whose pairs are kept."""

import json

import pytest

from beam_jobs import config as c
from beam_jobs.__main__ import run
from beam_jobs.collect.config import CollectConfig, FetchConfig, QuotaConfig
from beam_jobs.collect.plan import Pilot, estimate, measure
from beam_jobs.emulator.server import running
from beam_jobs.places.place import Place, Window, write_places
from beam_jobs.simulation.simulate import simulate
from tests.data.scenes import make_places

SIZES = [14 * 2 * 256 * 256, 2 * 4 * 256 * 256]


def config(tier="community", **quota) -> FetchConfig:
    return FetchConfig(collect=CollectConfig(), quota=QuotaConfig(**quota), tier=tier)


def test_counts_and_times_follow_from_the_formulas():
    pilot = Pilot(
        num_units=50,
        pair_fraction=0.8,
        requests_per_unit=3.5,
        request_seconds=4.0,
        disk_bytes_per_pair=1_000_000.0,
        eecu_seconds_per_request=1.8,
        pixel_requests_per_unit=1.9,
    )
    plan = estimate(
        config(max_concurrency=20, max_requests_per_second=50.0),
        pilot,
        num_places=250_000,
        num_units=1_000_000,
        sizes=SIZES,
    )
    assert plan.num_pairs == 800_000
    assert plan.num_requests == 3_500_000
    # 20 at once, each of 4 s: 5 a second, below the rate of 50.
    assert plan.requests_per_second == 5.0
    assert plan.wall_hours == pytest.approx(3_500_000 / 5 / 3600, abs=1e-3)
    assert plan.disk_bytes == 800_000_000_000
    assert plan.raw_bytes == 1_900_000 * sum(SIZES) // 2
    assert plan.eecu_hours == pytest.approx(1_900_000 * 1.8 / 3600, abs=1e-3)
    # 14 bands as int16 of 256 px, compressed as much as the files: 1 MB of 2.36 MB.
    assert plan.num_shards == -(-800_000 * 2 * 14 * 256**2 * 1_000_000 // sum(SIZES) // 128_000_000)
    assert plan.request_bytes == max(SIZES)
    assert plan.warnings == ("950 EECU-hours are 6.3 months of tier community (150 a month)",)


def test_rate_caps_what_concurrency_would_allow():
    plan = estimate(
        config(max_requests_per_second=10.0),
        Pilot(request_seconds=0.1),
        num_places=10,
        num_units=10,
        sizes=SIZES,
    )
    assert plan.requests_per_second == 10.0


@pytest.mark.parametrize(
    ("tier", "months"),
    [("community", "6.7"), ("contributor", "1.0"), ("partner", None), ("commercial", None)],
)
def test_tiers(tier, months):
    pilot = Pilot(num_units=1, eecu_seconds_per_request=3.6, pixel_requests_per_unit=1.0)
    plan = estimate(config(tier), pilot, num_places=1, num_units=1_000_500, sizes=SIZES)
    assert plan.eecu_hours == pytest.approx(1000.5)
    assert [f"are {months} months" in warning for warning in plan.warnings] == (
        [True] if months else []
    )


def test_what_is_assumed_is_said():
    plan = estimate(config(), Pilot(), num_places=10, num_units=10, sizes=SIZES)
    assert plan.eecu_hours is None
    assert plan.measured["EECU"] == "unknown; run --pilot"
    assert plan.measured["seconds a request"].startswith("assumed")
    measured = estimate(
        config(),
        Pilot(num_units=5, request_seconds=2.0),
        num_places=10,
        num_units=3600,
        sizes=SIZES,
    )
    assert measured.eecu_hours == pytest.approx(3600 * 2 * 2.0 / 3600)
    assert measured.measured["EECU"] == (
        "assumed, 1 EECU-second for each second of a request; the server sent no profile"
    )


def test_limits_above_those_of_a_project_are_warned_of():
    plan = estimate(
        config(max_concurrency=60, max_requests_per_second=200.0),
        Pilot(),
        num_places=1,
        num_units=1,
        sizes=SIZES,
    )
    assert plan.warnings == (
        "max_concurrency is 60; a project gets 40 by default",
        "max_requests_per_second is 200; a project gets 100",
    )


@pytest.fixture
def places(tmp_path):
    window = Window(start="2021-01-01", end="2021-02-01")
    later = Window(start="2021-06-01", end="2021-07-01")
    found = [
        Place(place_id=f"p{n}", lon=10.0 + n, lat=50.0, windows=(window, later)) for n in range(5)
    ]
    write_places(found, tmp_path / "places.geojson", {})
    return tmp_path / "places.geojson"


def test_plan_without_a_pilot_asks_nobody(places, capsys):
    assert run(["plan", "--places", str(places), "--json", "--set", "collect.size_px=128"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["num_places"], plan["num_units"], plan["num_requests"]) == (5, 10, 30)
    # 12 optical bands and the cloud score, uint16.
    assert plan["request_bytes"] == 13 * 2 * 128 * 128
    assert run(["plan", "--places", str(places)]) == 0
    assert "places x windows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("collect.size_px=1400", "at most 50331648 bytes, got 50960000"),
        ("collect.size_px=33000", "at most 32768 pixels a side, got 33000 x 33000"),
    ],
)
def test_requests_that_could_not_succeed_are_refused_with_exit_code_2(
    places, capsys, setting, message
):
    assert run(["plan", "--places", str(places), "--set", setting]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_largest_square_that_fits_is_planned(places, capsys):
    assert run(["plan", "--places", str(places), "--json", "--set", "collect.size_px=1391"]) == 0
    assert json.loads(capsys.readouterr().out)["request_bytes"] <= 50_331_648


@pytest.mark.e2e
def test_pilot_measures_and_its_pairs_are_not_fetched_again(tmp_path, capsys, monkeypatch):
    scenes = simulate(c.SimulateConfig(num_places=1, num_dates=1, size_px=256), tmp_path / "scenes")
    places = make_places.make_places(scenes, tmp_path / "places.geojson", 12)
    options = ["--places", str(places), "--output", str(tmp_path / "out")]
    for name, value in {
        "collect.size_px": 32,
        "collect.max_cloud_fraction": 1.0,
        "collect.min_valid_fraction": 0.0,
        "collect.earth_engine.max_scene_cloud_fraction": 1.0,
        "quota.max_concurrency": 4,
    }.items():
        options += ["--set", f"{name}={value}"]
    with running(scenes.parent, tmp_path / "emulator") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert run(["plan", *options, "--pilot", "4", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert (plan["num_pilot_units"], plan["num_units"], plan["num_requests"]) == (4, 12, 36)
        pixels = [line for line in server.requests() if line["method"] == "computePixels"]
        assert len(pixels) == 8
        files = sum(path.stat().st_size for path in (tmp_path / "out" / "scenes").rglob("*.tif"))
        assert plan["disk_bytes"] == round(files / 4 * 12)
        assert plan["eecu_hours"] > 0
        assert (
            plan["measured"]["EECU"] == "Earth Engine's profiles of the pixel requests of 4 units"
        )
        assert run(["fetch", *options]) == 0
        pixels = [line["key"] for line in server.requests() if line["method"] == "computePixels"]
    assert len(pixels) == len(set(pixels)) == 24


def test_pilot_needs_a_folder(places, capsys):
    assert run(["plan", "--places", str(places), "--pilot", "3"]) == 2
    assert "--output" in capsys.readouterr().err


def test_folder_in_which_nothing_was_answered_measures_nothing(tmp_path):
    assert measure(tmp_path) == Pilot()
