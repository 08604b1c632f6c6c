"""Pretrains with health checks on two logical CPUs; writes the metrics as JSON.

A program of its own, since logical devices must be set before TensorFlow starts. Usage:
two_replica_worker.py VERSION_DIR OUT
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from beam_jobs.contracts import layout, manifest
from models import pretrain
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.health.config import HealthConfig
from models.training.distribution import get_strategy
from models.training.scaffold import Folders, Shards

CONFIG = PretrainConfig(
    encoder=EncoderConfig(backbone="small", embedding_dim=16),
    num_steps=3,
    global_batch_size=8,
    optimizer=OptimizerConfig(warmup_fraction=0.0),
    health=HealthConfig(check_every=1, min_steps=1, min_spread=0.0, min_effective_rank=0.0),
)


def run(version_dir, folder):
    files = {
        split: tuple(str(path) for path in layout.shard_paths(version_dir, split))
        for split in ("train", "eval")
    }
    return pretrain.run_pretraining(
        CONFIG,
        Shards(manifest=manifest.read(version_dir), **files),
        Folders(output=f"{folder}/model", logs=f"{folder}/logs"),
        is_served=False,
    )


def main(version_dir, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    result = {
        "num_replicas": get_strategy().num_replicas_in_sync,
        "metrics": run(version_dir, folder),
    }
    Path(folder, "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
