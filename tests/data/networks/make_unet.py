"""Publish an untrained U-Net of radar with all files of a published model."""

from __future__ import annotations

from pathlib import Path

import keras

from beam_jobs.contracts import layout, manifest
from models.config import EncoderConfig
from models.published import export
from models.published.card import Provenance
from models.scores.scoring import score_patches
from models.segment import build_segmenter
from models.segment_config import SegmentConfig


def publish(folder: Path, version: Path, backbone: str = "small", seed: int = 1) -> str:
    """Write a segmenter with random weights, and return its folder.

    Args:
        folder: of the SavedModel.
        version: labelled shards with the schema `water`.
        backbone: of the encoder.
        seed: of the weights.
    """
    config = SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=EncoderConfig(backbone=backbone, embedding_dim=8),
        num_steps=1,
        decoder_channels=(8,) * (4 if backbone == "small" else 5),
    )
    keras.utils.set_random_seed(seed)
    data = manifest.read(version)
    model = build_segmenter(config, data, None)
    files = [str(path) for path in layout.shard_paths(version, "eval")]
    export.export_segmenter(
        model,
        str(folder),
        provenance=Provenance(
            name="flood", config=config, manifest=data, metrics={}, started_from={}
        ),
        scores=score_patches(model, files, ("dry", "water"), batch_size=2),
    )
    return str(folder)
