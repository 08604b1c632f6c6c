"""Compare the strips of a build with one decode of the file: CPU time and memory.

A band of Sentinel-2 (10,980 columns, uint16, blocks of 1024 px) as JPEG 2000 and as
cloud-optimized GeoTIFF is read in strips of 64 rows: as the tasks of a build read it,
and with the file opened anew for each strip, as builds did before. A grid between the
pixels needs a margin, so tasks overlap there. Each figure comes from a process of its
own. The memory of a build's way is measured for two heights: it must not grow.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHTS = 10_980, (4096, 8192)
STRIP_PX, BLOCK_PX = 64, 1024
# Opening anew for each strip decodes every block 16 times; a part of the file tells it.
REOPENED_ROWS = 1024
FORMATS = {
    "jp2": {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    | {"BLOCKXSIZE": BLOCK_PX, "BLOCKYSIZE": BLOCK_PX},
    "cog": {"driver": "COG", "COMPRESS": "DEFLATE", "PREDICTOR": "YES"}
    | {"BLOCKSIZE": BLOCK_PX, "OVERVIEWS": "NONE"},
}


def measure() -> dict[str, object]:
    """Return CPU seconds per million pixels, ratios to one decode, and peaks in MiB."""
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        for suffix in FORMATS:
            files = [Path(name) / f"{height}.{suffix}" for height in HEIGHTS]
            for file, height in zip(files, HEIGHTS, strict=True):
                _in_process("write", file, height)
            short, tall = files
            decoded = _in_process("decode", tall, HEIGHTS[1])
            strips = _in_process("strips", tall, HEIGHTS[1])
            between = _in_process("between", tall, HEIGHTS[1])
            reopened = _in_process("reopened", tall, REOPENED_ROWS)
            per_pixel = decoded["cpu_s_per_mpx"]
            result[suffix] = {
                "one_decode": decoded,
                "strips": strips,
                "strips_between_pixels": between,
                "strips_reopened": reopened,
                "ratio": round(strips["cpu_s_per_mpx"] / per_pixel, 2),
                "ratio_between_pixels": round(between["cpu_s_per_mpx"] / per_pixel, 2),
                "ratio_reopened": round(reopened["cpu_s_per_mpx"] / per_pixel, 2),
                "peak_mib_half_as_tall": _in_process("strips", short, HEIGHTS[0])["peak_mib"],
            }
            for file in files:
                file.unlink()
    return result


def _in_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.data.reading_speed"]
    output = subprocess.run(
        [*command, *(str(one) for one in arguments)], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.strip().splitlines()[-1])


def _write(file: Path, height: int) -> dict[str, float]:
    import numpy as np
    import rasterio

    rng = np.random.default_rng(0)
    pixels = np.empty((height, WIDTH), np.uint16)
    x = np.arange(WIDTH)
    for row in range(height):
        smooth = 1500 + 800 * np.sin(x / 97) * np.cos(row / 131)
        pixels[row] = (smooth + rng.normal(0, 60, WIDTH)).clip(1, 9999)
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    where = {"crs": "EPSG:32633", "transform": transform, "width": WIDTH, "height": height}
    options = FORMATS[file.suffix.removeprefix(".")]
    with rasterio.open(file, "w", count=1, dtype="uint16", **where, **options) as dataset:
        dataset.write(pixels, 1)
    return {}


def _read(how: str, file: Path, num_rows: int) -> dict[str, float]:
    import os
    from contextlib import nullcontext

    import rasterio

    from beam_jobs.build.transforms import ROWS_PER_TASK
    from beam_jobs.rasters import open_files
    from beam_jobs.rasters.opening import open_raster
    from beam_jobs.scenes import windows
    from beam_jobs.scenes.grids import Grid
    from tests.benchmarks import peak_memory

    grid = Grid(
        crs="EPSG:32633",
        transform=(10.0, 0.0, 500_000.0 + 4.0 * (how == "between"), 0.0, -10.0, 5_000_000.0),
        height=num_rows,
        width=WIDTH,
    )
    peak = peak_memory.start()
    start = os.times()
    if how == "decode":
        with rasterio.open(file) as dataset:
            dataset.read()
    else:
        for first in range(0, num_rows, ROWS_PER_TASK):
            last = min(first + ROWS_PER_TASK, num_rows)
            with nullcontext() if how == "reopened" else open_files.keep_open():
                for row in range(first, last, STRIP_PX):
                    with open_raster(str(file)) as raster:
                        windows.read_window(raster, [1], grid.window(row, 0, STRIP_PX, WIDTH))
    end = os.times()
    cpu_s = end.user + end.system - start.user - start.system
    return {
        "cpu_s": round(cpu_s, 2),
        "cpu_s_per_mpx": round(cpu_s / (num_rows * WIDTH / 1e6), 4),
        "peak_mib": round(peak(), 1),
    }


if __name__ == "__main__":
    job, where, rows = sys.argv[1:]
    done = _write(Path(where), int(rows)) if job == "write" else _read(job, Path(where), int(rows))
    print(json.dumps(done))
