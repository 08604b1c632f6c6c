"""Compare the speed of `predict` with the bare SavedModel on the same windows.

Ours reads a GeoTIFF of Sentinel-1, predicts, blends, and writes all files of the map.
The bare SavedModel gets windows of random pixels from memory, as many and as large, and
its answers are dropped. Both run in processes of their own, one after the other. The
model is an untrained U-Net on ResNet-18. Peak memory is that of our process, for a
scene and for one of four times the area.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES_PX = (2048, 4096)


def measure() -> dict[str, object]:
    """Return megapixels per second, the ratio to the bare model, and peak memory."""
    from tests.benchmarks import map_seams

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = map_seams.publish("resnet18", Path(folder) / "1")
        for side in SIDES_PX:
            ours = _run("ours", model, side)
            found[f"{side} x {side} px"] = {
                "megapixels_per_second": round(side * side / 1e6 / ours["seconds"], 3),
                "peak_mib": round(ours["peak_mib"]),
            }
        bare = _run("bare", model, SIDES_PX[-1])
        found["speed_to_bare_model"] = round(bare["seconds"] / ours["seconds"], 2)
    return found


def _run(kind: str, model: str, side: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.map_speed"]
    output = subprocess.run(
        [*command, kind, model, str(side)], check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(output.splitlines()[-1]))


def _ours(path_of_model: str, side: int) -> float:
    """Return the seconds of a map of a scene on disk."""
    import numpy as np

    from beam_jobs.predict import parts, products, segmenters
    from beam_jobs.predict.config import PredictConfig
    from beam_jobs.scenes import inspection
    from tests.benchmarks import map_seams
    from tests.data import make_rasters

    segmenter, config = segmenters.find(path_of_model), PredictConfig()
    with tempfile.TemporaryDirectory() as folder:
        tile = np.moveaxis(map_seams.scene(1024), -1, 0)
        pixels = np.tile(tile, (1, side // 1024, side // 1024))
        path = Path(folder) / "scene.tif"
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        scene = make_rasters.s1_scene(path, pixels, **layout)
        del pixels
        scene = inspection.inspect(scene, ("VV", "VH"))
        task = parts.task_of({"s1": scene}, 10.0)
        if task is None:
            raise ValueError("the scene has no pixel")
        model = segmenters.load(segmenter)
        begin = time.perf_counter()
        for area in parts.areas(task.grid, config):
            path = str(Path(folder) / parts.part_name(area))
            parts.predict(task, area, segmenter, config, path, model=model)
        (Path(folder) / "map").mkdir()
        products.write(task, segmenter, config, parts_dir=Path(folder), folder=Path(folder) / "map")
        return time.perf_counter() - begin


def _bare(model: str, side: int) -> float:
    """Return the seconds of the model alone, on as many windows of as many pixels."""
    import numpy as np

    from beam_jobs.predict import segmenters
    from beam_jobs.predict.config import PredictConfig

    segmenter, config = segmenters.find(model), PredictConfig()
    predict = segmenters.load(segmenter)
    axis = config.window.windows(side, segmenter.stride)
    size = axis[0].size
    num_together = max(1, config.max_batch_px // (size * size))
    pixels = np.random.default_rng(0).normal(-15, 5, (num_together, size, size, 2))
    batch = {"s1": pixels.astype(np.float32)}
    begin = time.perf_counter()
    for _ in range(-(-(len(axis) ** 2) // num_together)):
        predict(batch)
    return time.perf_counter() - begin


if __name__ == "__main__":
    seconds = {"ours": _ours, "bare": _bare}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))
