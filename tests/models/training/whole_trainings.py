"""A pretraining with health checks, and a segmenter that is published.

`replica_parity_worker.py` trains both on two logical CPUs.
"""

from beam_jobs.contracts import layout, manifest
from models import pretrain, segment
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.health.config import HealthConfig
from models.segment_config import SegmentConfig
from models.training.scaffold import Folders, Shards

ENCODER = EncoderConfig(backbone="small", embedding_dim=16)
PRETRAIN = PretrainConfig(
    encoder=ENCODER,
    num_steps=3,
    global_batch_size=8,
    optimizer=OptimizerConfig(warmup_fraction=0.0),
    health=HealthConfig(check_every=1, min_steps=1, min_spread=0.0, min_effective_rank=0.0),
)
SEGMENT = SegmentConfig(
    sensors=("s1",),
    label_schema="water",
    encoder=ENCODER,
    num_steps=2,
    keep="best",
    decoder_channels=(16, 8, 8, 8),
    global_batch_size=8,
    # The tiny rate keeps the first weights. Their probability of water is not
    # calibrated, so the chosen threshold differs from 0.5.
    optimizer=OptimizerConfig(learning_rate=1e-6),
)


def shards_of(version_dir):
    files = {
        split: tuple(str(path) for path in layout.shard_paths(version_dir, split))
        for split in ("train", "eval")
    }
    return Shards(manifest=manifest.read(version_dir), **files)


def run_pretraining(version_dir, folder):
    return pretrain.run_pretraining(
        PRETRAIN,
        shards_of(version_dir),
        Folders(output=f"{folder}/model", logs=f"{folder}/logs"),
        is_served=False,
    )


def run_segmentation(version_dir, folder):
    segment.run_segmentation(
        SEGMENT,
        shards_of(version_dir),
        Folders(output=f"{folder}/model", logs=f"{folder}/logs"),
    )
