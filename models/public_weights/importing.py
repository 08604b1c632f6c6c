"""Public weights -> a published encoder of one sensor, in the layout of `export.py`.

Input: a file that the user brought, and what is known of it. Output: a SavedModel with
`embed_<sensor>`, the Keras models and a card that names file, hash and licence. Called
by `python -m pipeline import-weights`; training takes the directory from there
(`SegmentConfig.encoder_paths`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from models.encoders import SensorEncoder
from models.public_weights.catalog import PublicWeights
from models.public_weights.resnet import load_resnet
from models.public_weights.state_dict import read_state_dict, select_resnet
from models.published import card as card_lib
from models.published import export


@dataclass(frozen=True, kw_only=True)
class ImportedEncoder:
    """What became of a file.

    Attributes:
        bands: that the encoder takes, in order.
        left_out: bands of the file that it does not take.
        prefix: what stood before the ResNet's names.
        dropped: names of the file that are no part of the ResNet, such as `fc.weight`.
        sha256: of the file.
    """

    bands: tuple[str, ...]
    left_out: tuple[str, ...]
    prefix: str
    dropped: tuple[str, ...]
    sha256: str

    def lines(self, weights: PublicWeights) -> list[str]:
        """What a person should know of it."""
        level = f" of level {weights.s2_processing_level}" if weights.s2_processing_level else ""
        lines = [
            f"{weights.backbone} of {weights.sensor}, trained on pixels{level}, bands {', '.join(self.bands)}"
        ]
        if self.left_out:
            lines.append(
                f"left out, so taken for their mean everywhere: {', '.join(self.left_out)}"
            )
        lines.append(f"no part of the ResNet, dropped: {', '.join(self.dropped) or 'nothing'}")
        lines.append(f"license {weights.license}, {weights.source}, SHA-256 {self.sha256}")
        return lines


def import_encoder(
    weights: PublicWeights,
    path: str | Path,
    output_dir: str,
    *,
    bands: Sequence[str] | None = None,
    prefix: str | None = None,
) -> ImportedEncoder:
    """Converts `path` and publishes it in `output_dir`.

    Args:
        weights: what the file is.
        path: .pth (torch.save) or .safetensors.
        output_dir: a new directory.
        bands: of the encoder, in the order of the shards that it will see: a choice of
            `weights.bands`. None = these. A band left out counts as its mean, which is
            how SSL4EO-S12's authors evaluated 12-band level 2A: zeros in the place of
            B10 (their linear_BE_moco.py).
        prefix: of the ResNet's names in the file; None = found.

    Raises:
        FileNotFoundError: no such file.
        FileExistsError: `output_dir` exists; published models are never overwritten.
        ValueError: the file cannot be read, or does not fit `weights`.
    """
    path = Path(path)
    if tf.io.gfile.exists(output_dir):
        raise FileExistsError(
            f"{output_dir}: exists already, and a published model is never overwritten"
        )
    try:
        prefix, state = select_resnet(read_state_dict(path), prefix)
        encoder = _new_encoder(weights, weights.bands if bands is None else tuple(bands))
        dropped = load_resnet(encoder, state, weights.bands)
    except ValueError as error:
        raise ValueError(
            str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        ) from error
    imported = ImportedEncoder(
        bands=encoder.bands,
        left_out=tuple(band for band in weights.bands if band not in encoder.bands),
        prefix=prefix,
        dropped=dropped,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    _publish(encoder, weights, imported, path.name, output_dir)
    return imported


def _new_encoder(weights: PublicWeights, bands: tuple[str, ...]) -> SensorEncoder:
    unknown = [band for band in bands if band not in weights.bands]
    if unknown or not bands:
        raise ValueError(
            f"bands must be among {', '.join(weights.bands)}, got {', '.join(unknown) or 'none'}"
        )
    chosen = [weights.bands.index(band) for band in bands]
    return SensorEncoder(
        sensor=weights.sensor,
        bands=bands,
        mean=[weights.mean[index] for index in chosen],
        std=[weights.std[index] for index in chosen],
        backbone=weights.backbone,
    )


def _publish(
    encoder: SensorEncoder,
    weights: PublicWeights,
    imported: ImportedEncoder,
    file_name: str,
    output_dir: str,
) -> None:
    head = _unit_head(encoder.output["pooled"].shape[-1], f"{encoder.sensor}_head")
    assets = export.write_encoders({encoder.sensor: encoder}, {encoder.sensor: head}, output_dir)
    card = card_lib.make_imported_card(
        bands={encoder.sensor: encoder.bands},
        stride=encoder.stride,
        signatures=(f"embed_{encoder.sensor}",),
        config=weights,
        s2_processing_level=weights.s2_processing_level,
        source={
            "file": file_name,
            "sha256": imported.sha256,
            "license": weights.license,
            "page": weights.source,
            "prefix": imported.prefix,
            "dropped_names": list(imported.dropped),
            "bands_left_out": list(imported.left_out),
        },
    )
    card_lib.write_card(assets, card)


def _unit_head(features_dim: int, name: str) -> keras.Model:
    """Pooled features to unit length: their authors drop the projection head, so the embedding is the features' direction."""
    pooled = keras.Input((features_dim,), name="pooled", dtype="float32")
    return keras.Model(
        pooled, keras.layers.UnitNormalization(dtype="float32", name="unit_norm")(pooled), name=name
    )
