"""Compare the CPU time per pair of build-pairs with a plain loop: 64, 128 and 256 px.

It also measures how much a second process speeds up the build. The scenes come from the
simulator: GeoTIFF in tiles of 256 px with DEFLATE, 10 m pixels, 2 + 12 bands. CPU time
is summed over all processes. The ratios hold for one run on one machine.

Each figure is the difference between a large and a small job. This removes the cost
that a job pays once: imports, and the data card of a build.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES_PX = (64, 128, 256)
SCENE_PX = 1024
# The catalog declares these splits, so all patches are kept. Three fifths are in the
# train split and enter its statistics.
SPLITS = ("train", "train", "train", "eval", "test")
REPEATS = (1, 4)


def measure() -> dict[str, object]:
    """Return the figures of both sides by patch size, and the gain of a second process.

    Each measurement runs in its own process, so none profits from what another one left
    in memory.
    """
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _in_process("simulate", folder)
        for size_px in SIZES_PX:
            ours = _marginal("build", folder, size_px, 1)
            plain = _marginal("plain", folder, size_px)
            ratio = round(ours["cpu_ms_per_pair"] / plain["cpu_ms_per_pair"], 2)
            result[f"{size_px}px"] = {"build_pairs": ours, "plain_loop": plain, "cpu_ratio": ratio}
        result["two_processes"] = _two_processes(folder)
    return result


def _two_processes(folder: Path) -> dict[str, float]:
    """Return the wall times of one and of two processes, and their ratio."""
    seconds = {number: _marginal("build", folder, 64, number)["wall_s"] for number in (1, 2)}
    return {"one_s": seconds[1], "two_s": seconds[2], "speedup": round(seconds[1] / seconds[2], 2)}


def _marginal(job: str, folder: Path, *arguments: int) -> dict[str, float]:
    """Return the difference of the figures of a large and a small job, per pair."""
    small, large = (_in_process(job, folder, *arguments, repeats) for repeats in REPEATS)
    num_pairs = large["num_pairs"] - small["num_pairs"]
    cpu_s = large["cpu_s"] - small["cpu_s"]
    return {
        "num_pairs": num_pairs,
        "cpu_ms_per_pair": round(1000 * cpu_s / num_pairs, 2),
        "pairs_per_second_per_core": round(num_pairs / cpu_s, 1),
        "bytes_per_pair": round((large["num_bytes"] - small["num_bytes"]) / num_pairs),
        "wall_s": round(large["wall_s"] - small["wall_s"], 1),
    }


def _in_process(*arguments: object) -> dict[str, float]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.data.build_speed",
        *(str(one) for one in arguments),
    ]
    # Threads of BLAS double the CPU time of the plain loop. A build limits them itself.
    single = {"OPENBLAS_NUM_THREADS": "1"} if arguments[0] == "plain" else {}
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | single
    ).stdout
    return json.loads(output.strip().splitlines()[-1])


def _simulate(folder: Path) -> dict[str, float]:
    from beam_jobs import config as c
    from beam_jobs.simulation.simulate import simulate

    catalog = simulate(
        c.SimulateConfig(num_places=len(SPLITS), num_dates=1, size_px=SCENE_PX), folder
    )
    items = [json.loads(line) for line in catalog.read_text().splitlines()]
    for item in items:
        place = int(item["properties"]["terrapair:place"].rpartition("-")[2])
        item["properties"]["terrapair:split"] = SPLITS[place]
    for repeats in REPEATS:
        with (folder / f"catalog-{repeats}.ndjson").open("w") as lines:
            for repeat in range(repeats):
                for item in items:
                    # Repeat the same files with other ids and years. This makes more
                    # work without more simulation, and no pair is a duplicate.
                    again = {**item, "id": f"{item['id']}-{repeat}"}
                    month = int(item["properties"]["datetime"][5:7])
                    later = f"20{10 + repeat:02d}-{month:02d}"
                    properties = {
                        **item["properties"],
                        "datetime": later + item["properties"]["datetime"][7:],
                        "terrapair:place": f"{item['properties']['terrapair:place']}-{repeat}",
                    }
                    lines.write(json.dumps({**again, "properties": properties}) + "\n")
    return {}


def _config(size_px: int, num_workers: int):
    from beam_jobs import config as c

    return c.BuildConfig(
        patch=c.PatchConfig(size_px=size_px),
        quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=10.24),
        shards=c.ShardConfig(num_workers=num_workers),
    )


def _build(folder: Path, size_px: int, num_workers: int, repeats: int) -> dict[str, float]:
    import apache_beam  # noqa: F401 - imported before the clock starts
    import tensorflow  # noqa: F401

    from beam_jobs.build.driver import build_pairs
    from beam_jobs.contracts import manifest

    config = _config(size_px, num_workers)
    with tempfile.TemporaryDirectory() as output:
        clock = _Clock()
        version = build_pairs(config, [folder / f"catalog-{repeats}.ndjson"], Path(output))
        found = manifest.read(version)
        num_bytes = sum(shard.num_bytes for shard in found.shards.values())
        return clock.figures(sum(found.num_examples.values()), num_bytes)


def _plain(folder: Path, size_px: int, repeats: int) -> dict[str, float]:
    from tests.benchmarks.data import plain_loop

    config = _config(size_px, 1)
    with tempfile.TemporaryDirectory() as output:
        path = Path(output) / "pairs.tfrecord.gz"
        clock = _Clock()
        num_pairs = plain_loop.run(folder / f"catalog-{repeats}.ndjson", config, path)
        return clock.figures(num_pairs, path.stat().st_size)


class _Clock:
    def __init__(self) -> None:
        self._start = os.times(), time.perf_counter()

    def figures(self, num_pairs: int, num_bytes: int) -> dict[str, float]:
        # Add user and system time of this process and of its ended children. The fifth
        # value is wall time.
        cpu_s = sum(
            after - before
            for before, after in list(zip(self._start[0], os.times(), strict=True))[:4]
        )
        return {
            "num_pairs": num_pairs,
            "num_bytes": num_bytes,
            "cpu_s": cpu_s,
            "wall_s": time.perf_counter() - self._start[1],
        }


if __name__ == "__main__":
    job, where, *numbers = sys.argv[1:]
    work = {"simulate": _simulate, "build": _build, "plain": _plain}[job]
    print(json.dumps(work(Path(where), *(int(number) for number in numbers))))
