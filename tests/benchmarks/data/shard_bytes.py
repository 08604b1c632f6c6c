"""Measure bytes and CPU time per 64-px pair for each way to compress a shard.

TFRecord readers accept no compression, ZLIB and GZIP, at any level. They do not read
zstd, so it is not measured. The pixels are simulated: their speckle and noise compress
about as badly as those of real pixels.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow as tf

from beam_jobs import config as c
from beam_jobs.build.driver import build_pairs
from beam_jobs.contracts import layout
from beam_jobs.simulation.simulate import simulate

LEVELS = (1, 6, 9)


def measure() -> dict[str, object]:
    """Return the figures of each compression.

    The ratio compares the bytes with GZIP at level 6, which the shards use.
    """
    records = _records()
    result: dict[str, dict[str, float]] = {}
    for kind in ("", "ZLIB", "GZIP"):
        for level in LEVELS if kind else (0,):
            options = tf.io.TFRecordOptions(
                compression_type=kind, compression_level=level if kind else None
            )
            result[f"{kind.lower()}-{level}" if kind else "none"] = _written(records, options)
    now = result["gzip-6"]["bytes_per_pair"]
    return {
        "num_pairs": len(records),
        **{
            name: {**figures, "ratio": round(figures["bytes_per_pair"] / now, 3)}
            for name, figures in result.items()
        },
    }


def _records() -> list[bytes]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        catalog = simulate(
            c.SimulateConfig(num_places=6, num_dates=1, size_px=512), folder / "scenes"
        )
        config = c.BuildConfig(
            quality=c.QualityConfig(min_valid_fraction=0.0, max_cloud_fraction=1.0)
        )
        version = build_pairs(config, [catalog], folder / "pairs")
        files = [
            str(path) for split in layout.SPLITS for path in layout.shard_paths(version, split)
        ]
        return [raw.numpy() for raw in tf.data.TFRecordDataset(files, compression_type="GZIP")]


def _written(records: list[bytes], options: tf.io.TFRecordOptions) -> dict[str, float]:
    with TemporaryDirectory() as name:
        path = Path(name) / "shard"
        start = time.process_time()
        with tf.io.TFRecordWriter(str(path), options) as writer:
            for record in records:
                writer.write(record)
        return _figures(path.stat().st_size, time.process_time() - start, len(records))


def _figures(num_bytes: int, cpu_s: float, num_pairs: int) -> dict[str, float]:
    return {
        "bytes_per_pair": round(num_bytes / num_pairs),
        "cpu_ms_per_pair": round(1000 * cpu_s / num_pairs, 2),
    }
