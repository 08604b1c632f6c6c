"""Trains and publishes a small water segmenter on two logical CPUs; prints the number of replicas.

A program of its own, since logical devices must be set before TensorFlow starts. Usage:
segment_worker.py VERSION_DIR OUT
"""

import sys

import tensorflow as tf

from beam_jobs.contracts import layout, manifest
from models import segment
from models.config import EncoderConfig, OptimizerConfig
from models.segment_config import SegmentConfig
from models.training.distribution import get_strategy
from models.training.scaffold import Folders, Shards

CONFIG = SegmentConfig(
    sensors=("s1",),
    label_schema="water",
    encoder=EncoderConfig(backbone="small", embedding_dim=16),
    num_steps=2,
    keep="best",
    decoder_channels=(16, 8, 8, 8),
    global_batch_size=8,
    # The tiny rate keeps the first weights. Their probability of water is not
    # calibrated, so the chosen threshold differs from 0.5.
    optimizer=OptimizerConfig(learning_rate=1e-6),
)


def main(version_dir, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    files = {
        split: tuple(str(path) for path in layout.shard_paths(version_dir, split))
        for split in ("train", "eval")
    }
    segment.run_segmentation(
        CONFIG,
        Shards(manifest=manifest.read(version_dir), **files),
        Folders(output=f"{folder}/model", logs=f"{folder}/logs"),
    )
    print(get_strategy().num_replicas_in_sync)


if __name__ == "__main__":
    main(*sys.argv[1:])
