"""Make an untrained dual encoder with the bands of a version.

It stays in memory, or its card and Keras models are written as a published encoder has
them.
"""

from __future__ import annotations

from pathlib import Path

import keras

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.manifest import Manifest
from models.config import EncoderConfig
from models.dual_encoder import DualEncoder, build_dual_encoder
from models.encoders import build_encoder
from models.published import card, export

EMBEDDING_DIM = 8


def make_dual_encoder(manifest: Manifest, seed: int = 3) -> DualEncoder:
    keras.utils.set_random_seed(seed)
    config = EncoderConfig(backbone="small", embedding_dim=EMBEDDING_DIM)
    encoders = {sensor: build_encoder(config, sensor, manifest) for sensor in SENSORS}
    return build_dual_encoder(encoders, EMBEDDING_DIM)


def publish_keras_half(dual_encoder: DualEncoder, path: Path) -> str:
    """Write the card and the Keras models of a published encoder, and return its path.

    Code that embeds patches reads only these. The SavedModel is left out, because it
    takes longer to write.
    """
    assets = path / export.ASSETS_DIR
    assets.mkdir(parents=True)
    for sensor in SENSORS:
        dual_encoder.encoders[sensor].save(assets / f"{sensor}_encoder.keras")
        dual_encoder.heads[sensor].save(assets / f"{sensor}_head.keras")
    inputs = {name: {"bands": list(one.bands)} for name, one in dual_encoder.encoders.items()}
    described = {"task": "pretraining", "config_sha256": "c" * 64, "inputs": inputs}
    card.write_card(str(assets), described)
    return str(path)
