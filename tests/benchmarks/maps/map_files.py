"""Measure memory and CPU time of the files of a map, by its size.

The map has water of many sizes and single pixels of it, and its parts repeat. Each
figure is that of a process of its own: the peak above what it held before.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDES = ((4_000, 4_000), (10_000, 10_000), (25_000, 17_000))
POLYGON_SIDES = ((4_000, 4_000), (10_000, 10_000))
STEPS = ("class.tif", "probability.tif", "polygons", "polygons, simplify_px=1")


def measure() -> dict[str, object]:
    """Return MiB and seconds of CPU of each file and size."""
    found: dict[str, object] = {}
    for height, width in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("parts", *STEPS):
                if step.startswith("polygons") and (height, width) not in POLYGON_SIDES:
                    continue
                command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.maps.map_files"]
                arguments = [folder, str(height), str(width), step]
                done = subprocess.run(
                    command + arguments, check=True, capture_output=True, text=True
                )
                if step != "parts":
                    found[f"{height} x {width}, {step}"] = json.loads(done.stdout)
    return found


def _water() -> np.ndarray:
    """Return water [1024, 1024] that repeats without a seam."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.standard_normal((1024, 1024)), 8, mode="wrap")
    return (field > 0.8 * field.std()) ^ (rng.random(field.shape) < 0.003)


def _write_parts(folder: Path, grid, areas) -> None:
    import rasterio

    from beam_jobs.predict import parts

    water = _water().astype(np.uint8)
    shares = np.random.default_rng(1).integers(0, 251, (3, *water.shape)).astype(np.uint8)
    tile = np.stack([water, *shares])
    for area in areas:
        rows = np.arange(area.rows.start, area.rows.stop) % 1024
        cols = np.arange(area.cols.start, area.cols.stop) % 1024
        with rasterio.open(
            folder / parts.part_name(area),
            "w",
            driver="GTiff",
            count=len(tile),
            height=len(rows),
            width=len(cols),
            dtype="uint8",
            crs=grid.crs,
            transform=grid.window(rows[0], cols[0], len(rows), len(cols)).affine,
            compress="deflate",
            zlevel=1,
            interleave="band",
            blockysize=32,
        ) as file:
            file.write(tile[np.ix_(range(len(tile)), rows, cols)])


def _measure_one(folder: Path, height: int, width: int, step: str) -> dict[str, float]:
    from beam_jobs.contracts.labels import LabelClass
    from beam_jobs.predict import maps, parts, polygons
    from beam_jobs.predict.config import PolygonConfig, PredictConfig
    from beam_jobs.scenes.grids import Grid
    from tests.benchmarks import peak_memory

    classes = (
        LabelClass(id=0, name="dry", color="#d9c9a3"),
        LabelClass(id=1, name="water", color="#1f5fbf"),
    )
    grid = Grid(
        crs="EPSG:32633", transform=(10.0, 0, 3e5, 0, -10.0, 5e6), height=height, width=width
    )
    config = PredictConfig()
    areas = parts.areas(grid, config)
    if step == "parts":
        _write_parts(folder, grid, areas)
        return {}
    peak, before = peak_memory.start(), time.process_time()
    if step.startswith("polygons"):
        settings = PolygonConfig(classes=("water",), simplify_px=float(step.endswith("=1")))
        target = folder / f"{settings.simplify_px}.gpkg"
        polygons.write(folder / "class.tif", classes, settings, target, "2024-01-01T00:00:00.000Z")
    else:
        layers = (
            [maps.class_layer(classes)]
            if step == "class.tif"
            else maps.probability_layers(classes, config)
        )
        maps.write_cog(folder, areas, grid, layers, {}, folder / step)
    return {"mib": round(peak()), "cpu_seconds": round(time.process_time() - before, 1)}


if __name__ == "__main__":
    print(json.dumps(_measure_one(Path(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4])))
