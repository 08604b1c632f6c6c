"""Compare the speed of `predict` with the bare SavedModel and with plain PyTorch.

The scene is a simulated Sentinel-1 frame, the model an untrained U-Net on ResNet-18.
Ours is the whole run: it reads a GeoTIFF, predicts, blends, and writes all files of the
map. The bare SavedModel gets windows of random pixels from memory, of the same sizes
and as many, and its answers are dropped. The peer, `peer_map.py`, loops over the same
windows without blending; it runs if TERRAPAIR_PEER_PYTHON names an interpreter that has
torch and NumPy. Importing and loading a model are not measured.

Each side runs in a process of its own. In a round, the sides take turns. Ratios of CPU
seconds are listed, too: other programs on the machine change them less.

    python -m tests.benchmarks.maps.map_speed --side 4096 --rounds 3
    python -m tests.benchmarks.maps.map_speed --workers
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import peak_memory
from tests.benchmarks.training import peers

SIDE_PX, SMALL_PX = 10_000, 2_000
DTYPES = ("fp32", "bf16")
PEER_SCRIPT = Path(__file__).with_name("peer_map.py")
Figures = dict[str, float]


def measure(side: int = SIDE_PX, num_rounds: int = 1) -> dict[str, object]:
    """Return megapixels per second, peak memory, and ratios to the other sides.

    A ratio above 1 says that ours is faster. It is the median over the rounds.
    """
    rounds: list[dict[str, Figures]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _publish(folder)
        small = run("ours", model, _scene(folder / "small", SMALL_PX), "--cores", 2)
        scene = _scene(folder / "scene", side)
        sides: dict[str, Callable[[], Figures]] = {
            "ours": lambda: run("ours", model, scene, "--cores", 2),
            "bare": lambda: run("bare", model, side),
        }
        if peers.peer_python():
            _write_for_peer(scene.parent, side)
            for dtype in DTYPES:
                sides[f"torch_{dtype}"] = lambda dtype=dtype: _peer(scene.parent, dtype)
        for _ in range(num_rounds):
            rounds.append({name: run() for name, run in sides.items()})
    megapixels = side**2 / 1e6
    found: dict[str, object] = {
        "side_px": side,
        "megapixels_per_second": _median(rounds, lambda one: megapixels / one["ours"]["seconds"]),
        "peak_mib": {SMALL_PX: small["peak_mib"], side: max(r["ours"]["peak_mib"] for r in rounds)},
    }
    for name in list(sides)[1:]:
        found[f"speed_to_{name}"] = {
            key: _median(rounds, lambda one, key=key, name=name: one[name][key] / one["ours"][key])
            for key in ("seconds", "cpu_seconds")
        }
    if not peers.peer_python():
        found["speed_to_torch"] = f"skipped: set {peers.PYTHON_VARIABLE}"
    return {**found, "rounds": rounds}


def measure_workers(side: int = SIDE_PX) -> dict[str, object]:
    """Return the speed of two workers of one thread each over one worker of one thread.

    The second worker starts Python and loads the model, which counts.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, scene = _publish(folder), _scene(folder / "scene", side)
        one = run("ours", model, scene, "--cores", 1)
        two = run("ours", model, scene, "--cores", 2, "--workers", 2)
    return {
        "side_px": side,
        "one_worker": one,
        "two_workers": two,
        "speed": round(one["seconds"] / two["seconds"], 2),
    }


def _median(
    rounds: list[dict[str, Figures]], value: Callable[[dict[str, Figures]], float]
) -> float:
    return round(statistics.median(map(value, rounds)), 3)


def _publish(folder: Path) -> str:
    from tests.benchmarks.maps import map_seams

    return map_seams.publish("resnet18", folder / "model" / "1")


def _scene(folder: Path, side: int) -> Path:
    """Write a scene, and return its catalog."""
    from tests.data.scenes import make_frames

    folder.mkdir()
    frame = make_frames.Frame(name="scene", bands=("VV", "VH"), height=side, width=side)
    return make_frames.write(folder, [frame])


def run(*arguments: object) -> Figures:
    """Return the figures of one side, which runs in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.maps.map_speed"]
    output = subprocess.run(
        [*command, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(output.splitlines()[-1]))


def _peer(folder: Path, dtype: str) -> Figures:
    files = {name: folder / f"{name}" for name in ("scene.npy", "windows.json", "peer.npy")}
    scene, windows, output = map(str, files.values())
    script = [str(peers.peer_python()), str(PEER_SCRIPT), "--scene", scene, "--windows", windows]
    output = subprocess.run(
        [*script, "--output", output, "--dtype", dtype], check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(output.splitlines()[-1])
    return {key: found[key] for key in ("seconds", "cpu_seconds")}


def _write_for_peer(folder: Path, side: int) -> None:
    """Write the pixels of a scene as an array, and the windows as JSON."""
    import numpy as np
    import rasterio

    from beam_jobs.predict.config import PredictConfig

    with rasterio.open(folder / "scene.tif") as file:
        pixels = np.lib.format.open_memmap(
            folder / "scene.npy", "w+", np.float32, (side, side, file.count)
        )
        for _, window in file.block_windows():
            pixels[window.toslices()] = np.moveaxis(file.read(window=window), 0, -1)
    axis = [
        {key: value for key, value in asdict(window).items() if key in ("first", "size", "core")}
        | {"end": window.end}
        for window in PredictConfig().window.windows(side, 32)
    ]
    (folder / "windows.json").write_text(json.dumps({"rows": axis, "cols": axis}))


def _measured(work: Callable[[], object]) -> Figures:
    """Return wall and CPU seconds, with those of child processes, and the peak in MiB."""
    begin, before = time.perf_counter(), os.times()
    work()
    seconds, after = time.perf_counter() - begin, os.times()
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(after[:4]) - sum(before[:4]), 2),
        "peak_mib": round(max(peak_memory.of_process(), of_children)),
    }


def _ours(model: str, catalog: str, output: str, num_workers: int) -> Figures:
    """Return the figures of the map of a scene on disk."""
    import numpy as np

    from beam_jobs.predict import driver, segmenters
    from beam_jobs.predict.config import PredictConfig

    segmenter = segmenters.find(model)
    config = PredictConfig(num_workers=num_workers)
    size = config.window.size_px
    if num_workers == 1:
        shapes = {sensor: (1, size, size, len(names)) for sensor, names in segmenter.bands.items()}
        warm_up = {sensor: np.zeros(shape, np.float32) for sensor, shape in shapes.items()}
        segmenters.load(segmenter)(warm_up)
    return _measured(lambda: driver.predict(config, segmenter, [catalog], output))


def _bare(model: str, side: int) -> Figures:
    """Return the figures of the model alone, on windows of the same sizes."""
    import numpy as np

    from beam_jobs.predict import segmenters
    from beam_jobs.predict.config import PredictConfig

    segmenter, config = segmenters.find(model), PredictConfig()
    predict = segmenters.load(segmenter)
    sizes = [window.size for window in config.window.windows(side, segmenter.stride)]
    rng = np.random.default_rng(0)
    pixels = rng.normal(-15, 5, (1, max(sizes), max(sizes), 2)).astype(np.float32)
    predict({"s1": pixels})

    def work() -> None:
        for height in sizes:
            for width in sizes:
                predict({"s1": pixels[:, :height, :width]})

    return _measured(work)


def _main() -> dict[str, object]:
    parser = argparse.ArgumentParser(description="See the docstring of this module.")
    parser.add_argument("--side", type=int, default=SIDE_PX)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", action="store_true")
    asked = parser.parse_args()
    if asked.workers:
        return measure_workers(asked.side)
    return measure(asked.side, asked.rounds)


def _one_side() -> Figures:
    """Run one side, as `run` names it: ours MODEL CATALOG, or bare MODEL SIDE."""
    parser = argparse.ArgumentParser()
    for name in ("side", "model", "scene"):
        parser.add_argument(name)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", help="folder that keeps the maps")
    asked = parser.parse_args()
    if asked.side == "bare":
        return _bare(asked.model, int(asked.scene))
    # Before TensorFlow counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    with tempfile.TemporaryDirectory() as folder:
        return _ours(asked.model, asked.scene, asked.output or folder, asked.workers)


if __name__ == "__main__":
    is_side = sys.argv[1:2] in (["ours"], ["bare"])
    print(json.dumps(_one_side() if is_side else _main()))
