"""Measure peak memory and speed of build-pairs for 1,000 and for 10,000 pairs.

Memory must not grow with the number of pairs.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A scene of 256 px holds 16 patches of 64 px. With 3 dates, a place gives 48 pairs.
PLACES = {"1000": 21, "10000": 209}


def measure() -> dict[str, object]:
    """Return the figures of both sizes and the ratio of their peaks.

    Each size is built in its own process: the kernel reports the peak of a whole
    process.
    """
    result: dict[str, object] = {}
    for name, num_places in PLACES.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.benchmarks.data.build_memory",
                folder,
                str(num_places),
            ]
            result[name] = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout
            )
    small, large = (result[name]["peak_mib"] for name in PLACES)  # type: ignore[index]
    return {**result, "peak_ratio": round(large / small, 3)}


def _build(folder: Path, num_places: int) -> dict[str, float]:
    from beam_jobs import config as c
    from beam_jobs.build.driver import build_pairs
    from beam_jobs.contracts import manifest
    from beam_jobs.simulation.simulate import simulate

    catalog = simulate(
        c.SimulateConfig(num_places=num_places, num_dates=3, size_px=256), folder / "scenes"
    )
    config = c.BuildConfig(
        quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=2.56),
    )
    start = time.perf_counter()
    version = build_pairs(config, [catalog], folder / "pairs")
    seconds = time.perf_counter() - start
    found = manifest.read(version)
    num_pairs = sum(found.num_examples.values()) + sum(found.num_rejected.values())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "num_pairs": num_pairs,
        "peak_mib": round(peak_mib, 1),
        "pairs_per_second": round(num_pairs / seconds, 1),
    }


if __name__ == "__main__":
    print(json.dumps(_build(Path(sys.argv[1]), int(sys.argv[2]))))
