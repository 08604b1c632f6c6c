"""fetch into a loopback S3 store: same bytes as on a disk, resume, one job at a time."""

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from beam_jobs import config as c
from beam_jobs.__main__ import run
from beam_jobs.build.driver import build_pairs
from beam_jobs.collect import job_folder, ledger_store
from beam_jobs.collect.config import CollectConfig, FetchConfig, QuotaConfig
from beam_jobs.collect.fetch import fetch
from beam_jobs.collect.job import CollectJob
from beam_jobs.collect.ledger import read_state
from beam_jobs.contracts import manifest
from beam_jobs.earth_engine.connection import from_environment
from beam_jobs.emulator.faults import FaultsConfig
from beam_jobs.emulator.server import running
from beam_jobs.errors import DataError
from beam_jobs.simulation.simulate import simulate
from beam_jobs.storage import files
from tests.data.faults import killed_fetch
from tests.data.scenes import make_places

pytestmark = pytest.mark.e2e

NUM_PLACES, CONCURRENCY = 16, 4
EARTH_ENGINE = c.EarthEngineConfig(max_scene_cloud_fraction=1.0, label="dynamic_world")
COLLECT = CollectConfig(
    size_px=32, max_cloud_fraction=1.0, min_valid_fraction=0.0, earth_engine=EARTH_ENGINE
)
CONFIG = FetchConfig(
    collect=COLLECT,
    quota=QuotaConfig(max_concurrency=CONCURRENCY, first_backoff_s=0.01, max_backoff_s=0.1),
)
BUILD = c.BuildConfig(
    patch=c.PatchConfig(size_px=32),
    quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0),
    split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return simulate(
        c.SimulateConfig(num_places=1, num_dates=1, size_px=256), tmp_path_factory.mktemp("scenes")
    )


@pytest.fixture
def server(scenes, tmp_path):
    with running(scenes.parent, tmp_path / "emulator") as found:
        yield found


def job_of(server, places, **options) -> CollectJob:
    connection = from_environment(server.environment, "fetch")
    return CollectJob(config=CONFIG, connection=connection, places=places, **options)


@pytest.fixture(scope="module")
def local(scenes, tmp_path_factory):
    """(places, folder) of the same fetch onto a disk."""
    folder = tmp_path_factory.mktemp("local")
    places = make_places.make_places(scenes, folder / "places.geojson", NUM_PLACES)
    with running(scenes.parent, folder / "emulator") as server:
        fetch(job_of(server, places), folder / "out")
    return places, folder / "out"


def content(folder: str) -> dict[str, str]:
    """As `killed_fetch.content`, of a store."""
    names = [path[len(folder) + 1 :] for path in files.list_files(folder)]
    kept = [name for name in names if name.endswith(".tif") or name == "items.ndjson"]
    return {name: hashlib.sha256(files.read_bytes(f"{folder}/{name}")).hexdigest() for name in kept}


def num_pixel_requests(server) -> int:
    return sum(line["method"] == "computePixels" for line in server.requests())


def test_a_store_gets_the_bytes_of_a_disk_and_builds_read_them(
    local, server, s3_folder, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("tensorflow_io")
    places, expected = local
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    files.write_bytes(f"{s3_folder}/places.geojson", places.read_bytes())
    options = ["--places", f"{s3_folder}/places.geojson", "--output", f"{s3_folder}/ee"]
    assert run(["fetch", *options, *killed_fetch.overrides(CONFIG)]) == 0
    assert capsys.readouterr().out.strip() == f"{s3_folder}/ee/items.ndjson"
    assert content(f"{s3_folder}/ee") == killed_fetch.content(expected)
    others = {path.split("/")[5] for path in files.list_files(f"{s3_folder}/ee")} - {"scenes"}
    assert others == {"items.ndjson", "config.json", "ledger"}
    # A second run asks nothing, and `plan` reads the ledger and the sizes of a store.
    num_asked = len(server.requests())
    assert run(["fetch", *options, *killed_fetch.overrides(CONFIG)]) == 0
    assert len(server.requests()) == num_asked
    assert run(["plan", *options, *killed_fetch.overrides(CONFIG)]) == 0
    on_store, on_disk = (
        manifest.read(build_pairs(BUILD, [catalog], output))
        for catalog, output in (
            (f"{s3_folder}/ee/items.ndjson", f"{s3_folder}/pairs"),
            (expected / "items.ndjson", tmp_path / "pairs"),
        )
    )
    assert sum(on_disk.num_examples.values()) > 0
    assert on_store.shards == on_disk.shards


def test_killed_fetch_asks_for_nothing_again_that_is_on_the_store(local, server, s3_folder):
    places, expected = local
    process = killed_fetch.start(server.environment, places, s3_folder, CONFIG)
    deadline = time.monotonic() + 120
    with ledger_store.local_copy(f"{s3_folder}/ledger") as copy:
        while read_state(copy.refresh()).num_done < 4:
            assert process.poll() is None, "ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    stored = [path for path in files.list_files(s3_folder) if path.endswith(("_s1.tif", "_s2.tif"))]
    before = num_pixel_requests(server)
    assert 8 <= len(stored) < 2 * NUM_PLACES
    # The job is known to be dead, so its lock may go. Otherwise the next job would wait
    # until the lease has run out.
    files.delete_file(f"{s3_folder}/.lock")
    summary = fetch(job_of(server, places), s3_folder)
    assert summary.state.num_done == NUM_PLACES
    assert num_pixel_requests(server) - before == 2 * NUM_PLACES - len(stored)
    assert content(s3_folder) == killed_fetch.content(expected)


def test_rejections_are_on_the_store_until_they_are_asked_again(local, server, s3_folder):
    places, _ = local
    server.service.set_faults(FaultsConfig(too_large=0.3))
    rejected = fetch(job_of(server, places), s3_folder).state.num_rejected["too_large"]
    assert 0 < rejected < NUM_PLACES
    assert (
        files.read_bytes(f"{s3_folder}/rejected.ndjson").count(b'"reason": "too_large"') == rejected
    )
    server.service.set_faults(FaultsConfig())
    summary = fetch(job_of(server, places, retry_rejected=True), s3_folder)
    assert summary.state.num_done == NUM_PLACES
    assert not files.exists(f"{s3_folder}/rejected.ndjson")


def test_a_folder_that_a_job_holds_is_refused(local, server, s3_folder):
    places, _ = local
    with (
        job_folder.hold(s3_folder, "{}"),
        pytest.raises(DataError, match="another job is writing") as error,
    ):
        fetch(job_of(server, places), s3_folder)
    assert error.value.reason == "folder_in_use"
    with pytest.raises(DataError, match="begun with other settings"):
        fetch(job_of(server, places), s3_folder)
    assert server.requests() == []
