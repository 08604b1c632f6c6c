"""export against the emulator: watched tasks, a bounded queue, failures, resume, both formats."""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import rasterio

from beam_jobs import config as c
from beam_jobs.__main__ import run
from beam_jobs.build.driver import build_pairs
from beam_jobs.collect.config import CollectConfig, ExportConfig, FetchConfig, QuotaConfig
from beam_jobs.collect.export import export
from beam_jobs.collect.fetch import fetch
from beam_jobs.collect.job import CollectJob
from beam_jobs.contracts import manifest
from beam_jobs.earth_engine.connection import from_environment
from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.faults import FaultsConfig
from beam_jobs.emulator.server import running
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.simulation.simulate import simulate
from beam_jobs.storage import files
from tests.data.faults.killed_fetch import content
from tests.data.scenes import make_places

pytestmark = pytest.mark.e2e

BUCKET = "my-bucket"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return simulate(
        c.SimulateConfig(num_places=1, num_dates=1, size_px=192), tmp_path_factory.mktemp("scenes")
    )


@pytest.fixture
def server(scenes, tmp_path):
    with running(
        scenes.parent, tmp_path / "emulator", EmulatorConfig(pending_s=0.05, running_s=0.1)
    ) as found:
        yield found


@pytest.fixture
def places(scenes, tmp_path) -> Path:
    return make_places.make_places(scenes, tmp_path / "places.geojson", 6)


def export_config(server, **options) -> FetchConfig:
    earth_engine = c.EarthEngineConfig(max_scene_cloud_fraction=1.0, label="dynamic_world")
    collect = CollectConfig(
        size_px=32, max_cloud_fraction=1.0, min_valid_fraction=0.0, earth_engine=earth_engine
    )
    quota = QuotaConfig(max_concurrency=4, first_backoff_s=0.01, max_backoff_s=0.05)
    local_dir = str(server.buckets_dir / BUCKET)
    export = ExportConfig(**{"bucket": BUCKET, "poll_s": 0.05, "local_dir": local_dir, **options})
    return FetchConfig(collect=collect, quota=quota, export=export)


def collect_job(server, purpose, places, config=None, **options) -> CollectJob:
    connection = from_environment(server.environment, purpose)
    return CollectJob(
        config=config or export_config(server), connection=connection, places=places, **options
    )


def export_from(server, places, output, config=None, retry_rejected=False, **options):
    job = collect_job(server, "export", places, config, retry_rejected=retry_rejected)
    return export(job, output, **options)


def methods(server) -> Counter[str]:
    return Counter(line["method"] for line in server.requests() if line["status"] == 200)


def test_exported_pairs_are_the_files_and_the_catalog_of_a_fetch(server, places, tmp_path):
    calls = []
    config = export_config(server)
    summary = export_from(
        server, places, tmp_path / "export", on_progress=lambda *counts: calls.append(counts)
    )
    assert (summary.state.num_done, calls[-1]) == (6, (6, 6))
    assert methods(server)["export"] == 12
    fetch(collect_job(server, "fetch", places, config), tmp_path / "fetch")
    assert content(tmp_path / "export") == content(tmp_path / "fetch")
    # Nothing is left to do, so nothing is asked.
    before = len(server.requests())
    export_from(server, places, tmp_path / "export")
    assert len(server.requests()) == before


def test_queue_never_holds_more_tasks_than_allowed(server, places, tmp_path):
    summary = export_from(server, places, tmp_path / "out", export_config(server, max_tasks=4))
    assert summary.state.num_done == 6
    queued = most = 0
    for path in sorted((tmp_path / "out" / "ledger").glob("*.ndjson")):
        for entry in map(json.loads, path.read_text().splitlines()):
            queued += (entry["event"] == "started") - (
                entry["event"] == "answered" and entry.get("step") in ("s1", "s2")
            )
            most = max(most, queued)
    assert (queued, most) == (0, 4)


def test_running_tasks_of_a_killed_job_are_found_again_not_started_twice(
    server, places, tmp_path, scenes
):
    class KilledError(RuntimeError):
        pass

    def kill(done: int, total: int) -> None:
        if methods(server)["export"] >= 4:
            raise KilledError

    config = export_config(server, max_tasks=4)
    with pytest.raises(KilledError):
        export_from(server, places, tmp_path / "out", config, on_progress=kill)
    assert methods(server)["export"] == 4
    assert not (tmp_path / "out" / "items.ndjson").exists()
    summary = export_from(server, places, tmp_path / "out", config)
    assert summary.state.num_done == 6
    assert methods(server)["export"] == 12
    assert methods(server)["compute"] == 6


def test_failed_task_is_started_again_then_rejected_with_the_message_of_earth_engine(
    server, places, tmp_path
):
    server.service.set_faults(FaultsConfig(failing_exports=0.25, seed=2))
    summary = export_from(server, places, tmp_path / "out", export_config(server, max_attempts=2))
    num_rejected = summary.state.num_rejected["task_failed"]
    assert 0 < num_rejected < 6
    assert summary.state.num_done == 6 - num_rejected
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "rejected.ndjson").read_text().splitlines()
    ]
    assert len(lines) == num_rejected
    assert all(
        line["detail"].startswith("the export of s") and ": " in line["detail"] for line in lines
    )
    # Each failing task was started twice.
    failed = [line for line in summary.state.num_failures.items() if line[0] == "task_failed"]
    assert failed[0][1] >= 2 * num_rejected
    server.service.set_faults(FaultsConfig())
    summary = export_from(
        server, places, tmp_path / "out", export_config(server, max_attempts=2), retry_rejected=True
    )
    assert (summary.state.num_done, summary.state.num_rejected) == (6, Counter())


def test_requests_refused_for_now_are_asked_again(server, places, tmp_path):
    server.service.set_faults(FaultsConfig(too_many_requests=0.2, server_error=0.2))
    summary = export_from(server, places, tmp_path / "out")
    assert summary.state.num_done == 6
    assert summary.state.num_failures.total() > 0
    assert methods(server)["export"] == 12


def test_exhausted_quota_stops_and_goes_on(server, places, tmp_path):
    server.service.set_faults(FaultsConfig(quota_exhausted_after=7))
    with pytest.raises(DataError, match="run the same command again") as error:
        export_from(server, places, tmp_path / "out")
    assert error.value.reason == "quota_exhausted"
    server.service.set_faults(FaultsConfig())
    assert export_from(server, places, tmp_path / "out").state.num_done == 6
    assert methods(server)["export"] == 12


def test_files_that_are_not_copied_yet_are_named_with_what_to_run(server, places, tmp_path):
    with pytest.raises(
        DataError,
        match=r"exported, but not there yet; copy it \(gcloud storage rsync -r gs://my-bucket",
    ):
        export_from(
            server,
            places,
            tmp_path / "out",
            export_config(server, local_dir=str(tmp_path / "copy")),
        )
    shutil.copytree(server.buckets_dir / BUCKET, tmp_path / "copy")
    export_from(
        server, places, tmp_path / "out", export_config(server, local_dir=str(tmp_path / "copy"))
    )
    assert len((tmp_path / "out" / "items.ndjson").read_text().splitlines()) == 12


def test_without_a_local_copy_the_catalog_names_the_bucket(server, places, tmp_path):
    export_from(server, places, tmp_path / "out", export_config(server, local_dir=""))
    items = [
        json.loads(line) for line in (tmp_path / "out" / "items.ndjson").read_text().splitlines()
    ]
    for item in items:
        data = item["assets"]["data"]
        assert data["href"].startswith("gs://my-bucket/terrapair/scenes/")
        path = server.buckets_dir / data["href"].removeprefix("gs://")
        with rasterio.open(path) as dataset:
            for band in data["bands"]:
                if "terrapair:index" in band:
                    assert dataset.descriptions[band["terrapair:index"] - 1] == band["name"]
    assert not list((tmp_path / "out").rglob("*.tif"))


def with_options(config: FetchConfig, **options) -> FetchConfig:
    return dataclasses.replace(config, export=dataclasses.replace(config.export, **options))


def test_both_formats_and_a_fetch_give_builds_the_same_patches(server, scenes, tmp_path):
    # Enough for a patch in each split.
    places = make_places.make_places(scenes, tmp_path / "places.geojson", 16)
    config = export_config(server)
    export_from(server, places, tmp_path / "tiff", config)
    export_from(
        server,
        places,
        tmp_path / "records",
        with_options(config, file_format="TFRECORD", prefix="records"),
    )
    fetch(collect_job(server, "fetch", places, config), tmp_path / "fetch")
    exported = {
        path.name.rpartition("_")[2]
        for path in (server.buckets_dir / BUCKET / "records").rglob("*.*")
    }
    assert exported == {
        f"{sensor}-{end}" for sensor in ("s1", "s2") for end in ("00000.tfrecord.gz", "mixer.json")
    }
    build = c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.64, eval_fraction=0.3, test_fraction=0.3),
    )
    tiff, records, fetched = (
        manifest.read(
            build_pairs(build, [tmp_path / way / "items.ndjson"], tmp_path / f"{way}-pairs")
        )
        for way in ("tiff", "records", "fetch")
    )
    assert sum(fetched.num_examples.values()) == 16 - sum(fetched.num_rejected.values()) > 0
    # Shards are named by the hash of their bytes: pixels, cloud fractions and all else.
    assert tiff.shards == records.shards == fetched.shards
    assert content(tmp_path / "records") == content(tmp_path / "fetch")


def test_records_in_a_bucket_are_named_by_their_mixers(server, places, tmp_path):
    export_from(
        server,
        places,
        tmp_path / "out",
        export_config(server, local_dir="", file_format="TFRECORD"),
    )
    items = [
        json.loads(line) for line in (tmp_path / "out" / "items.ndjson").read_text().splitlines()
    ]
    for item in items:
        href = item["assets"]["data"]["href"]
        assert href.startswith("gs://my-bucket/terrapair/scenes/")
        with open_raster(str(server.buckets_dir / href.removeprefix("gs://"))) as raster:
            assert {band["name"] for band in item["assets"]["data"]["bands"]} <= set(
                raster.descriptions
            )
            assert [raster.height, raster.width] == item["properties"]["proj:shape"]
        if item["properties"]["constellation"] == "sentinel-2":
            assert item["assets"]["label"]["href"] == f"{href}#label"


def test_geotiffs_that_were_split_are_put_together(scenes, places, tmp_path):
    # 32 px in files of 20: each scene lies in four of three sizes.
    emulator = EmulatorConfig(pending_s=0.05, running_s=0.1, max_file_side_px=20)
    with running(scenes.parent, tmp_path / "emulator", emulator) as server:
        config = export_config(server)
        shutil.rmtree(server.buckets_dir / BUCKET, ignore_errors=True)
        export_from(server, places, tmp_path / "out", with_options(config, local_dir=""))
        parts = sorted((server.buckets_dir / BUCKET).rglob("*_s2-*.tif"))
        assert len(parts) == 4 * 6
        assert parts[1].name.endswith("_s2-0000000000-0000000020.tif")
        kept = parts[1].read_bytes()
        parts[1].unlink()
        with pytest.raises(DataError, match="exported, but not there yet"):
            export_from(server, places, tmp_path / "out", config)
        parts[1].write_bytes(kept)
        export_from(server, places, tmp_path / "out", config)
        fetch(collect_job(server, "fetch", places, config), tmp_path / "fetch")
    assert content(tmp_path / "out") == content(tmp_path / "fetch")


def test_the_folder_of_an_export_may_lie_on_a_store(server, places, tmp_path, s3_folder):
    config = export_config(server)
    export_from(server, places, tmp_path / "here", config)
    assert methods(server)["export"] == 12
    assert export_from(server, places, s3_folder, config).state.num_done == 6
    assert methods(server)["export"] == 24
    export_from(server, places, s3_folder, config)
    assert methods(server)["export"] == 24
    for name, digest in content(tmp_path / "here").items():
        assert hashlib.sha256(files.read_bytes(f"{s3_folder}/{name}")).hexdigest() == digest


def test_no_bucket_is_said(server, places, tmp_path, capsys, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    assert run(["export", "--places", str(places), "--output", str(tmp_path / "out")]) == 2
    assert "error: export needs a bucket; add --set export.bucket=<name>" in capsys.readouterr().err
