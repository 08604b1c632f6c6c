"""fetch against the emulator, through the real client: resume, quota, rejections, bad input."""

import base64
import bz2
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import rasterio
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from beam_jobs import config as c
from beam_jobs.__main__ import run
from beam_jobs.build.driver import build_labels
from beam_jobs.collect.config import CollectConfig, FetchConfig, QuotaConfig
from beam_jobs.collect.fetch import fetch
from beam_jobs.collect.job import CollectJob
from beam_jobs.contracts import manifest
from beam_jobs.earth_engine.connection import from_environment
from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.faults import FaultsConfig
from beam_jobs.emulator.server import running
from beam_jobs.errors import DataError
from beam_jobs.places.place import Place, Window, read_places, write_places
from beam_jobs.runner import LocalRunner
from beam_jobs.simulation.simulate import simulate
from tests.data.faults import killed_fetch
from tests.data.faults.killed_fetch import answered, content, num_done, overrides
from tests.data.runs.repository import REPOSITORY
from tests.data.scenes import make_places

pytestmark = pytest.mark.e2e

CONCURRENCY = 6
NUM_PLACES = 36


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Catalog of 2 places of 256 px at one date: room for 98 patches of 32 px."""
    return simulate(
        c.SimulateConfig(num_places=2, num_dates=1, size_px=256), tmp_path_factory.mktemp("scenes")
    )


@pytest.fixture
def server(scenes, tmp_path):
    with running(scenes.parent, tmp_path / "emulator") as found:
        yield found


def collect_config(**values) -> CollectConfig:
    earth_engine = c.EarthEngineConfig(max_scene_cloud_fraction=1.0, label="dynamic_world")
    defaults = {
        "size_px": 32,
        "max_cloud_fraction": 1.0,
        "min_valid_fraction": 0.0,
        "earth_engine": earth_engine,
    }
    return CollectConfig(**{**defaults, **values})


def fetch_config(quota: dict | None = None, **collect) -> FetchConfig:
    quota = {
        "max_requests_per_second": 1000.0,
        "max_concurrency": CONCURRENCY,
        "first_backoff_s": 0.01,
        "max_backoff_s": 0.1,
        **(quota or {}),
    }
    return FetchConfig(collect=collect_config(**collect), quota=QuotaConfig(**quota))


def fetch_from(server, places, output, config=None, retry_rejected=False, **options):
    job = CollectJob(
        config=config or fetch_config(),
        connection=from_environment(server.environment, "fetch"),
        places=places,
        retry_rejected=retry_rejected,
    )
    return fetch(job, output, **options)


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    """(places, folder) of a fetch that nothing went wrong with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    places = make_places.make_places(scenes, folder / "places.geojson", NUM_PLACES)
    with running(scenes.parent, folder / "emulator") as server:
        summary = fetch_from(server, places, folder / "out")
        assert summary.state.num_done == NUM_PLACES
        assert summary.num_requests == 3 * NUM_PLACES
        assert set(answered(server.requests()).values()) == {1}
    return places, folder / "out"


def test_pixels_and_catalog_are_those_of_the_archive(undisturbed, scenes):
    _, folder = undisturbed
    items = [json.loads(line) for line in (folder / "items.ndjson").read_text().splitlines()]
    archive = {
        (item["properties"]["terrapair:place"], item["properties"]["datetime"]): item
        for item in map(json.loads, scenes.read_text().splitlines())
    }
    assert len({item["id"] for item in items}) == len(items) == 2 * NUM_PLACES
    for item in items[:20]:
        properties = item["properties"]
        source = archive[properties["terrapair:stratum"], properties["datetime"]]
        for name in item["assets"]:
            with rasterio.open(folder / item["assets"][name]["href"]) as found:
                pixels, bounds = found.read(), found.bounds
                assert found.crs.to_string() == properties["proj:code"]
                assert found.nodata is not None
            with rasterio.open(scenes.parent / source["assets"][name]["href"]) as whole:
                expected = whole.read(window=whole.window(*bounds))
            np.testing.assert_array_equal(pixels, expected)
        assert properties["terrapair:image_id"].startswith("COPERNICUS/")
        assert properties.get("terrapair:dn_offset", 0) == 0


def test_labels_are_built_from_the_catalog_unchanged(undisturbed, tmp_path):
    _, folder = undisturbed
    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
        label=c.LabelConfig(
            schema="dynamic_world", min_labeled_fraction=0.0, required_classes=("trees", "crops")
        ),
    )
    found = manifest.read(build_labels(config, [folder / "items.ndjson"], tmp_path / "labels"))
    assert sum(found.num_examples.values()) + sum(found.num_rejected.values()) == NUM_PLACES
    assert set(found.num_rejected) <= {"straddles_splits"}


def test_killed_fetch_ends_as_an_undisturbed_one_and_asks_for_nothing_twice(
    undisturbed, scenes, tmp_path
):
    places, expected = undisturbed
    faults = FaultsConfig(too_many_requests=0.1, server_error=0.1)
    with running(scenes.parent, tmp_path / "emulator", EmulatorConfig(faults=faults)) as server:
        killed_at = killed_fetch.kill_in_the_middle(
            server, places, tmp_path / "out", fetch_config(), after=12
        )
        assert not (tmp_path / "out" / "items.ndjson").exists()
        summary = fetch_from(server, places, tmp_path / "out")
        log = server.requests()
    assert content(tmp_path / "out") == content(expected)
    assert summary.state.num_done == NUM_PLACES
    assert {line["status"] for line in log} - {400} == {200, 429, 503}
    # A request that the kill cut in half has half a body, which the server refuses.
    cut_off = [line["time"] for line in log if line["status"] == 400]
    assert len(cut_off) <= CONCURRENCY
    assert all(abs(time - killed_at) < 2.0 for time in cut_off)
    assert killed_fetch.num_asked_twice(log, killed_at, CONCURRENCY) <= CONCURRENCY


def test_a_worker_imports_neither_tensorflow_nor_what_it_does_not_use():
    # Each would lengthen the start of every worker, TensorFlow by as much again.
    script = (
        "import sys; from beam_jobs import startup; startup.prepare(); "
        "import beam_jobs.collect.fetch; "
        "sys.exit(any(sys.modules.get(n) for n in ('tensorflow', 'ipywidgets', 'rfc3987_syntax')))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=REPOSITORY, check=True)


def test_two_workers_share_the_job_and_leave_the_same_bytes(undisturbed, server, tmp_path):
    places, expected = undisturbed
    few = tmp_path / "few.geojson"
    write_places(list(read_places(places))[:8], few, {})
    summary = fetch_from(server, few, tmp_path / "out", fetch_config(quota={"num_workers": 2}))
    assert summary.state.num_done == 8
    found, whole = content(tmp_path / "out"), content(expected)
    del found["items.ndjson"]
    assert len(found) == 32
    assert found.items() <= whole.items()
    assert set(answered(server.requests()).values()) == {1}


def test_beam_options_reach_the_runner_which_leaves_the_same_bytes(undisturbed, server, tmp_path):
    places, expected = undisturbed
    few = tmp_path / "few.geojson"
    write_places(list(read_places(places))[:6], few, {})
    jobs = LocalJobServicer()
    # LOOPBACK: this process is the worker, as a container is elsewhere.
    options = [
        f"--job_endpoint=localhost:{jobs.start_grpc_server(0)}",
        "--environment_type=LOOPBACK",
    ]
    try:
        summary = fetch_from(
            server, few, tmp_path / "out", beam_options=["--runner=PortableRunner", *options]
        )
    finally:
        jobs.stop()
    assert summary.state.num_done == 6
    found = content(tmp_path / "out")
    del found["items.ndjson"]
    assert len(found) == 24
    assert found.items() <= content(expected).items()


def test_a_runner_that_only_takes_the_job_in_is_no_fetch(
    few, server, tmp_path, capsys, monkeypatch
):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    arguments = [
        "fetch",
        "--places",
        str(few),
        "--output",
        str(tmp_path / "out"),
        *overrides(fetch_config()),
    ]
    arguments += [
        "--",
        "--runner=DataflowRunner",
        "--project=p",
        "--region=europe-west1",
        "--no_auth",
    ]
    arguments += [
        f"--temp_location={tmp_path}",
        f"--staging_location={tmp_path}",
        "--sdk_location=container",
    ]
    arguments += ["--sdk_container_image=i", "--dataflow_endpoint=http://localhost:1"]
    assert run([*arguments, f"--template_location={tmp_path}/job.json"]) == 1
    assert "the Beam runner ended with 10 places and windows still open" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "out" / "items.ndjson").exists()


def test_second_run_of_a_finished_job_asks_nothing(undisturbed, scenes, tmp_path):
    places, folder = undisturbed
    before = content(folder)
    with running(scenes.parent, tmp_path / "emulator") as server:
        summary = fetch_from(server, places, folder)
        assert server.requests() == []
    assert (summary.num_requests, summary.state.num_done) == (0, NUM_PLACES)
    assert content(folder) == before


def test_interrupted_fetch_ends_in_one_line_and_goes_on(undisturbed, server, tmp_path):
    places, expected = undisturbed
    process = killed_fetch.start(
        server.environment, places, tmp_path / "out", fetch_config(), stderr=subprocess.PIPE
    )
    killed_fetch.wait_until_done(process, tmp_path / "out", 5)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "error: interrupted; " in error
    fetch_from(server, places, tmp_path / "out")
    assert content(tmp_path / "out") == content(expected)
    assert set(answered(server.requests()).values()) == {1}


@pytest.fixture
def few(scenes, tmp_path) -> Path:
    return make_places.make_places(scenes, tmp_path / "few.geojson", 10)


def test_exhausted_quota_stops_in_one_line_and_goes_on(few, server, tmp_path, capsys, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.service.set_faults(FaultsConfig(quota_exhausted_after=12))
    arguments = [
        "fetch",
        "--places",
        str(few),
        "--output",
        str(tmp_path / "out"),
        *overrides(fetch_config()),
    ]
    assert run(arguments) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "run the same command again to go on" in error[0]
    assert (tmp_path / "out" / "rejected.ndjson").read_text() == ""
    assert not (tmp_path / "out" / "items.ndjson").exists()
    server.service.set_faults(FaultsConfig())
    assert run(arguments) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "items.ndjson")
    assert num_done(tmp_path / "out") == 10
    assert set(answered(server.requests()).values()) == {1}


def test_truncated_dropped_and_slow_answers_are_asked_again(few, server, tmp_path):
    server.service.set_faults(FaultsConfig(truncated=0.2, dropped=0.2, slow=0.1, slow_s=0.1))
    summary = fetch_from(server, few, tmp_path / "out")
    assert summary.state.num_done == 10
    assert summary.state.num_failures["truncated"] > 0
    assert set(answered(server.requests()).values()) == {1}


def test_expired_credentials_say_what_to_run_before_any_worker_starts(few, server, tmp_path):
    server.service.set_faults(FaultsConfig(expired_token=True))
    with pytest.raises(DataError, match="earthengine authenticate") as error:
        fetch_from(server, few, tmp_path / "out")
    assert error.value.reason == "no_credentials"


class KeepingRunner(LocalRunner):
    """The local runner, which keeps the graph as a remote runner would stage it."""

    graphs: ClassVar[list[bytes]] = []

    def run_via_runner_api(self, pipeline_proto, options):
        self.graphs.append(pipeline_proto.SerializeToString())
        return super().run_via_runner_api(pipeline_proto, options)


def unpacked(content: bytes) -> bytes:
    """Return `content` with all that Beam packed into it, as text and as bz2 or zlib."""
    found = [content]
    for packed in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", content):
        for unpack in (bz2.decompress, zlib.decompress):
            with contextlib.suppress(OSError, ValueError, zlib.error):
                found.append(unpacked(unpack(base64.b64decode(packed))))
    return b"".join(found)


def test_the_token_is_in_no_graph_and_no_file(few, server, tmp_path, monkeypatch, caplog):
    """A remote runner stages the graph in a bucket, and shows it on a web page."""
    token = "ya29-not-for-others"
    monkeypatch.setenv("TERRAPAIR_EE_TOKEN", token)
    caplog.set_level("DEBUG")
    job = CollectJob(
        config=fetch_config(),
        connection=from_environment({**server.environment, "TERRAPAIR_EE_TOKEN": token}, "fetch"),
        places=few,
        max_units=2,
    )
    fetch(job, tmp_path / "out", beam_options=[f"--runner={__name__}.KeepingRunner"])

    (graph,) = KeepingRunner.graphs
    graph = unpacked(graph)
    # The test can fail: what travels beside the token is found.
    assert server.url.encode() in graph
    assert token.encode() not in graph
    assert token not in caplog.text
    for path in tmp_path.joinpath("out").rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path


def test_no_project_says_what_to_set(few, tmp_path, capsys, monkeypatch):
    for name in ("EARTHENGINE_PROJECT", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    assert run(["fetch", "--places", str(few), "--output", str(tmp_path / "out")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "GOOGLE_CLOUD_PROJECT" in error[0]


def test_what_is_refused_for_good_is_rejected_with_its_reason_and_asked_again_on_demand(
    few, server, tmp_path
):
    server.service.set_faults(FaultsConfig(too_large=0.3))
    summary = fetch_from(server, few, tmp_path / "out")
    num_rejected = summary.state.num_rejected["too_large"]
    assert 0 < num_rejected < 10
    assert summary.state.num_done == 10 - num_rejected
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "rejected.ndjson").read_text().splitlines()
    ]
    assert len(lines) == num_rejected
    assert {line["reason"] for line in lines} == {"too_large"}
    # There is no retry where a retry cannot help.
    assert summary.state.num_failures["too_large"] == num_rejected
    server.service.set_faults(FaultsConfig())
    assert fetch_from(server, few, tmp_path / "out").num_requests == 0
    summary = fetch_from(server, few, tmp_path / "out", retry_rejected=True)
    assert (summary.state.num_done, summary.state.num_rejected) == (10, Counter())
    assert (tmp_path / "out" / "rejected.ndjson").read_text() == ""


def test_places_without_a_pair_are_rejected_with_the_reason(scenes, server, tmp_path, few):
    good = next(read_places(few))
    window = Window(start="2010-01-01", end="2010-02-01")
    nowhere = Place(place_id="ocean", lon=-30.0, lat=0.0, windows=good.windows)
    early = Place(place_id="early", lon=good.lon, lat=good.lat, windows=(window,))
    path = tmp_path / "places.geojson"
    write_places([good, nowhere, early], path, {})
    summary = fetch_from(server, path, tmp_path / "out")
    assert summary.state.num_rejected == {"no_s1": 2}
    assert summary.state.num_done == 1
    gap = fetch_config(max_time_gap_hours=0.001)
    with pytest.raises(DataError, match="no scene was found"):
        fetch_from(server, path, tmp_path / "gap", gap)
    reasons = [
        json.loads(line)["reason"]
        for line in (tmp_path / "gap" / "rejected.ndjson").read_text().splitlines()
    ]
    assert Counter(reasons) == {"no_s1": 2, "time_gap": 1}


def test_cloudy_and_half_empty_patches_leave_no_file(few, server, tmp_path):
    earth_engine = c.EarthEngineConfig(max_scene_cloud_fraction=1.0, min_clear_score=1.0)
    config = fetch_config(max_cloud_fraction=0.0, earth_engine=earth_engine)
    with pytest.raises(DataError, match="no scene was found"):
        fetch_from(server, few, tmp_path / "cloudy", config)
    assert not list((tmp_path / "cloudy").rglob("*.tif"))
    lines = [
        json.loads(line)
        for line in (tmp_path / "cloudy" / "rejected.ndjson").read_text().splitlines()
    ]
    assert {line["reason"] for line in lines} == {"too_cloudy"}
    assert lines[0]["detail"].endswith("max_cloud_fraction is 0")
    # The radar of a cloudy place is not even asked for.
    assert Counter(line["method"] for line in server.requests()) == {
        "compute": 10,
        "computePixels": 10,
    }
    server.service.set_faults(FaultsConfig(masked=1.0))
    with pytest.raises(DataError, match="no scene was found"):
        fetch_from(server, few, tmp_path / "masked", fetch_config(min_valid_fraction=0.7))
    assert not list((tmp_path / "masked").rglob("*.tif"))


def test_one_polarization_is_no_radar_pair(scenes, tmp_path, few):
    shutil.copytree(scenes.parent, tmp_path / "scenes")
    catalog = tmp_path / "scenes" / scenes.name
    catalog.write_text(catalog.read_text().replace('["VV","VH"]', '["VV"]'))
    no_scene = pytest.raises(DataError, match="no scene was found")
    with running(tmp_path / "scenes", tmp_path / "emulator") as server, no_scene:
        fetch_from(server, few, tmp_path / "out")
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "rejected.ndjson").read_text().splitlines()
    ]
    assert Counter(line["reason"] for line in lines) == {"no_s1": 10}
    assert "VV and VH" in lines[0]["detail"]


def test_service_that_is_down_stops_the_job_instead_of_rejecting_every_place(few, server, tmp_path):
    server.service.set_faults(FaultsConfig(server_error=1.0, max_faults_per_request=1000))
    config = fetch_config(
        quota={"max_attempts": 2, "max_failures_in_a_row": 3, "max_concurrency": 1}
    )
    with pytest.raises(DataError, match="places in a row were given up") as error:
        fetch_from(server, few, tmp_path / "out", config)
    assert error.value.reason == "stopped"
    assert len((tmp_path / "out" / "rejected.ndjson").read_text().splitlines()) == 3


def test_folder_of_other_settings_is_refused(few, server, tmp_path):
    fetch_from(server, few, tmp_path / "out")
    with pytest.raises(DataError, match="begun with other settings"):
        fetch_from(server, few, tmp_path / "out", fetch_config(size_px=16))


def test_request_that_is_too_large_is_refused_before_anything_is_asked(few, server, tmp_path):
    with pytest.raises(DataError, match="at most 50331648 bytes") as error:
        fetch_from(server, few, tmp_path / "out", fetch_config(size_px=2048))
    assert error.value.reason == "too_large"
    assert server.requests() == []
