"""Months of places at Earth Engine, against the emulator through the real client."""

import dataclasses
import datetime
import json
import re
import sys
from contextlib import nullcontext

import pytest

from beam_jobs import config as c
from beam_jobs.collect.config import WatchConfig
from beam_jobs.collect.watching import windows_between
from beam_jobs.contracts import layout, settings
from beam_jobs.earth_engine.connection import from_environment
from beam_jobs.emulator.server import TOKEN, running
from beam_jobs.errors import DataError, NothingNewError
from beam_jobs.simulation.simulate import simulate
from beam_jobs.terminal import program
from pipeline.config import RunConfig
from pipeline.data_build import build_data, sources
from pipeline.service import attempts, new_scenes
from tests.data.faults.killed_fetch import answered
from tests.data.scenes import make_places

DAY = datetime.date.fromisoformat


def days(newest, today, **values):
    config = WatchConfig(**{"places": "x", "start": "2026-01-01", "window_days": 10, **values})
    found = windows_between(config, None if newest is None else DAY(newest), DAY(today))
    return [(one.start[5:], one.end[5:]) for one in found]


@pytest.mark.parametrize(
    ("newest", "today", "expected"),
    [
        (None, "2026-01-13", []),
        (None, "2026-01-14", [("01-01", "01-11")]),
        (None, "2026-01-24", [("01-01", "01-11"), ("01-11", "01-21")]),
        # The pair of a window is at hand; the next is asked for when it is over.
        ("2026-01-05", "2026-01-23", []),
        ("2026-01-05", "2026-01-24", [("01-11", "01-21")]),
        # An image of the first day of a window would be chosen again.
        ("2026-01-11", "2026-02-03", [("01-21", "01-31")]),
        ("2026-03-01", "2026-02-03", []),
    ],
)
def test_windows_are_asked_for_when_they_are_over_and_newer_than_what_is_there(
    newest, today, expected
):
    assert days(newest, today) == expected


def test_a_delay_of_none_asks_on_the_day_after():
    assert days(None, "2026-01-11", delay_days=0) == [("01-01", "01-11")]
    assert days(None, "2026-01-10", delay_days=0) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": "soon"}, "start must be an ISO day like 2021-03-20, got 'soon'"),
        ({"window_days": 0}, "window_days must be at least 1, got 0"),
        ({"delay_days": -1}, "delay_days must be at least 0, got -1"),
        ({"places": ""}, "places must be a file, got ''"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        WatchConfig(**{"places": "x", "start": "2026-01-01", **values})


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Catalog of 3 places at 2 dates each, from June 2023 to October 2024."""
    folder = tmp_path_factory.mktemp("archive")
    return simulate(c.SimulateConfig(num_places=3, num_dates=2, size_px=160, seed=5), folder)


@pytest.fixture
def server(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRAPAIR_EE_TOKEN", TOKEN)
    with running(archive.parent, tmp_path / "emulator") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def run_values(values, archive, tmp_path):
    """A run whose only source of scenes are places of 64 px."""
    places = make_places.make_places(archive, tmp_path / "places.geojson", 12, size_px=64)
    collect = {"size_px": 64, "max_cloud_fraction": 1.0, "min_valid_fraction": 0.0}
    collect["earth_engine"] = {"max_scene_cloud_fraction": 1.0, "label": "none"}
    return values | {
        "root": str(tmp_path / "run"),
        "catalogs": [],
        "tasks": [],
        "spans": "all",
        "earth_engine": {
            "places": str(places),
            "start": "2023-01-01",
            "window_days": 183,
            "collect": collect,
        },
        "pairs": {
            "patch": {"size_px": 32},
            "quality": {"min_valid_fraction": 0.05, "max_cloud_fraction": 1.0},
            "split": {"block_size_km": 0.8, "eval_fraction": 0.3, "test_fraction": 0.3},
        },
    }


def build(config):
    return build_data(config, lambda _: nullcontext(), lambda *_: None, new_span=True)


@pytest.mark.e2e
def test_places_without_any_pair_are_nothing_new_and_stop_no_other_source(run_values, server):
    run_values["earth_engine"]["window_days"] = 5
    connection = from_environment(server.environment, "fetch")
    config = settings.from_dict(RunConfig, run_values)
    message = "no pair was found in 1 time windows since 2023-01-01"
    with pytest.raises(NothingNewError, match=message):
        new_scenes.fetch_new(config, connection, DAY("2023-01-09"))
    other = settings.from_dict(
        RunConfig, run_values | {"catalogs": [{"layout": "stac", "path": "items.ndjson"}]}
    )
    assert new_scenes.fetch_new(other, connection, DAY("2023-01-09")) is None
    assert sources(other) == other.catalogs


@pytest.mark.e2e
def test_newer_pairs_become_the_next_span_and_none_is_asked_for_twice(
    run_values, server, tmp_path, monkeypatch, capsys
):
    config = settings.from_dict(RunConfig, run_values)
    connection = from_environment(server.environment, "fetch")

    def fetch(today):
        return new_scenes.fetch_new(config, connection, DAY(today))

    with pytest.raises(NothingNewError, match="the first 183 days from 2023-01-01 ended less"):
        fetch("2023-07-04")
    with pytest.raises(DataError, match="nothing was fetched yet"):
        build(config)
    # Four squares in each of two places: one was seen in each half of 2023.
    first = fetch("2024-01-10")
    assert (first.num_units, first.state.num_done) == (24, 8)
    assert first.state.num_rejected == {"no_s1": 16}
    assert build(config).new == ("pairs",)
    assert new_scenes.newest_day(config) == DAY("2023-09-21")
    assert fetch("2024-07-04") is None

    # The third place was seen in both halves of 2024, the others in the first.
    second = fetch("2025-01-10")
    assert (second.num_units, second.state.num_done) == (24, 8 + 16)
    assert build(config).new == ("pairs",)
    assert layout.list_versions(config.pairs_dir) == [(1, 1), (2, 1)]
    assert new_scenes.newest_day(config) == DAY("2024-10-16")
    scenes = {
        span: layout.version_dir(config.pairs_dir, span, 1) / layout.SCENES_NAME for span in (1, 2)
    }
    dates = [
        {re.search(r"_(202\d)", line)[1] for line in path.read_text().splitlines()}
        for path in scenes.values()
    ]
    assert dates == [{"2023"}, {"2024"}]
    assert set(answered(server.requests()).values()) == {1}

    # The verb asks for the time since, in which nobody was there, and imports no TFX.
    done = attempts.begin(config.root, "0123")
    attempts.update(config.root, dataclasses.replace(done, ended_at="now", outcome="unchanged"))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_values))
    monkeypatch.setitem(sys.modules, "pipeline.runners.local", None)
    assert program.run(["retrain", "--config", str(path)]) == 5
    error = capsys.readouterr().err
    assert "fetch from Earth Engine" in error
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "every scene is in an earlier span, or has no partner" in line
    assert set(answered(server.requests()).values()) == {1}
    assert [one.outcome for one in attempts.read_attempts(config.root)] == [
        "unchanged",
        "nothing_new",
    ]


def test_an_attempt_without_a_project_or_places_is_one_line(
    run_values, tmp_path, monkeypatch, capsys
):
    for name in ("EARTHENGINE_PROJECT", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_values))
    assert program.run(["retrain", "--config", str(path)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert "neither EARTHENGINE_PROJECT nor GOOGLE_CLOUD_PROJECT names a project" in line
    run_values["earth_engine"]["places"] = "nowhere.geojson"
    path.write_text(json.dumps(run_values))
    assert program.run(["retrain", "--config", str(path)]) == 3
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert "nowhere.geojson: cannot read the places: no such file" in line
