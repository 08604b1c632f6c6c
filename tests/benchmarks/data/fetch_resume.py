"""Fetch 2,000 pairs from the emulator, once undisturbed and once with failures.

In the second run, 20 % of the answers are 429 or 503. The job is killed with -9 half
way and resumed. Both runs must write the same bytes.
"""

import shutil
import tempfile
import time
from pathlib import Path

from beam_jobs import config as c
from beam_jobs.collect.config import CollectConfig, FetchConfig, QuotaConfig
from tests.data.faults import killed_fetch
from tests.data.scenes import make_places

NUM_PAIRS = 2000
CONCURRENCY = 8


def measure() -> dict[str, object]:
    """Return times, numbers of requests, and whether both runs wrote the same bytes."""
    from beam_jobs.emulator.config import EmulatorConfig
    from beam_jobs.emulator.faults import FaultsConfig
    from beam_jobs.emulator.server import running
    from beam_jobs.simulation.simulate import simulate

    earth_engine = c.EarthEngineConfig(max_scene_cloud_fraction=1.0, label="dynamic_world")
    config = FetchConfig(
        collect=CollectConfig(
            size_px=32, max_cloud_fraction=1.0, min_valid_fraction=0.0, earth_engine=earth_engine
        ),
        quota=QuotaConfig(
            max_requests_per_second=1000.0,
            max_concurrency=CONCURRENCY,
            first_backoff_s=0.02,
            max_backoff_s=0.5,
        ),
    )
    faults = EmulatorConfig(faults=FaultsConfig(too_many_requests=0.1, server_error=0.1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = simulate(
            c.SimulateConfig(num_places=9, num_dates=1, size_px=512), folder / "scenes"
        )
        places = make_places.make_places(scenes, folder / "places.geojson", NUM_PAIRS)
        with running(scenes.parent, folder / "whole-emulator") as server:
            whole_s = _finish(server.environment, places, folder / "whole", config)
            num_requests = len(server.requests())
        with running(scenes.parent, folder / "killed-emulator", faults) as server:
            killed_at = killed_fetch.kill_in_the_middle(
                server, places, folder / "killed", config, NUM_PAIRS // 2
            )
            resumed_s = _finish(server.environment, places, folder / "killed", config)
            log = server.requests()
        found = {
            "num_pairs": killed_fetch.num_done(folder / "killed"),
            "same_bytes": killed_fetch.content(folder / "killed")
            == killed_fetch.content(folder / "whole"),
            "num_requests": num_requests,
            "num_requests_disturbed": len(log),
            "num_refused": sum(line["status"] in (429, 503) for line in log),
            "num_asked_twice_after_an_answer": killed_fetch.num_asked_twice(
                log, killed_at, CONCURRENCY
            ),
            "concurrency": CONCURRENCY,
            "undisturbed_s": round(whole_s, 1),
            "undisturbed_requests_per_second": round(num_requests / whole_s, 1),
            "resumed_s": round(resumed_s, 1),
        }
        shutil.rmtree(folder / "scenes")
    return found


def _finish(environment: dict[str, str], places: Path, folder: Path, config: FetchConfig) -> float:
    begun = time.monotonic()
    code = killed_fetch.start(environment, places, folder, config).wait()
    if code:
        raise RuntimeError(f"fetch ended with exit code {code}")
    return time.monotonic() - begun
