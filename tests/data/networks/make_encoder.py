"""Make an untrained dual encoder with the bands of a version.

It stays in memory, or is written as a published encoder: whole, or only its card and
Keras models.
"""

from __future__ import annotations

from pathlib import Path

import keras

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.published import ASSETS_DIR
from models.config import EncoderConfig, PretrainConfig
from models.dual_encoder import DualEncoder, build_dual_encoder
from models.encoders import build_encoder
from models.published import card, export

EMBEDDING_DIM = 8
CONFIG = EncoderConfig(backbone="small", embedding_dim=EMBEDDING_DIM)


def make_dual_encoder(
    manifest: Manifest, seed: int = 3, config: EncoderConfig = CONFIG
) -> DualEncoder:
    keras.utils.set_random_seed(seed)
    encoders = {sensor: build_encoder(config, sensor, manifest) for sensor in SENSORS}
    return build_dual_encoder(encoders, config.embedding_dim)


def publish(
    manifest: Manifest, path: Path, is_served: bool = True, config: EncoderConfig = CONFIG
) -> str:
    """Publish an untrained encoder with all its files, and return its path.

    Args:
        manifest: of the version whose bands it takes.
        path: folder of the encoder.
        is_served: False leaves out the signatures, which take longest to write.
        config: of the encoders.
    """
    export.export_encoder(
        make_dual_encoder(manifest, config=config),
        str(path),
        provenance=card.Provenance(
            name="encoder",
            config=PretrainConfig(encoder=config, num_steps=1, global_batch_size=4),
            manifest=manifest,
            metrics={},
            started_from={},
        ),
        is_served=is_served,
    )
    return str(path)


def publish_keras_half(dual_encoder: DualEncoder, path: Path) -> str:
    """Write the card and the Keras models of a published encoder, and return its path.

    Code that embeds patches reads only these. The SavedModel is left out, because it
    takes longer to write.
    """
    assets = path / ASSETS_DIR
    assets.mkdir(parents=True)
    for sensor in SENSORS:
        dual_encoder.encoders[sensor].save(assets / f"{sensor}_encoder.keras")
        dual_encoder.heads[sensor].save(assets / f"{sensor}_head.keras")
    inputs = {name: {"bands": list(one.bands)} for name, one in dual_encoder.encoders.items()}
    described = {"task": "pretraining", "config_sha256": "c" * 64, "inputs": inputs}
    card.write_card(str(assets), described)
    return str(path)
