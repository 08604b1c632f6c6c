"""Imports public weights as a published encoder of one sensor.

Input: a file that the user brings, and a `PublicWeights`. Output: a SavedModel with
`embed_<sensor>`, the Keras models, and a card with file name, hash and licence.
Training starts from the directory through `SegmentConfig.encoder_paths`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from beam_jobs.contracts.locations import locate
from models.encoders import SensorEncoder
from models.public_weights.catalog import PublicWeights
from models.public_weights.resnet import load_resnet
from models.public_weights.state_dict import read_state_dict, select_resnet
from models.published import card as card_lib
from models.published import export


@dataclass(frozen=True, kw_only=True)
class ImportedEncoder:
    """The encoder that was imported from a file, and what was left out.

    Attributes:
        bands: bands that the encoder takes, in order.
        left_out: bands of the file that it does not take.
        prefix: text before the ResNet's names in the file.
        dropped: names in the file that are not part of the ResNet, such as `fc.weight`.
        sha256: hash of the file.
    """

    bands: tuple[str, ...]
    left_out: tuple[str, ...]
    prefix: str
    dropped: tuple[str, ...]
    sha256: str

    def lines(self, weights: PublicWeights) -> list[str]:
        """Return a summary for the user, line by line."""
        level = f" of level {weights.s2_processing_level}" if weights.s2_processing_level else ""
        lines = [
            f"{weights.backbone} of {weights.sensor}, trained on pixels{level}, "
            f"bands {', '.join(self.bands)}"
        ]
        if self.left_out:
            lines.append(
                f"left out, so they count as their mean everywhere: {', '.join(self.left_out)}"
            )
        lines.append(f"not part of the ResNet, dropped: {', '.join(self.dropped) or 'nothing'}")
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
    """Convert the file at `path` and publish the encoder in `output_dir`.

    Args:
        weights: facts about the file.
        path: .pth (torch.save) or .safetensors.
        output_dir: a new directory.
        bands: bands of the encoder, a choice of `weights.bands`, in the order of its
            shards. None: all of them. A band that is left out counts as its mean.
            SSL4EO-S12's authors evaluate 12-band level 2A in that way: zeros for B10
            (their linear_BE_moco.py).
        prefix: text before the ResNet's names in the file; None = detect it.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: `output_dir` exists; published models are never overwritten.
        ValueError: the file cannot be read, or does not fit `weights`.
    """
    path = Path(path)
    if locate(output_dir).exists():
        raise FileExistsError(
            f"{output_dir}: exists already, and published models are never overwritten: "
            "choose a new folder"
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
        {encoder.sensor: encoder.bands},
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
    """Return a model that scales pooled features to unit length.

    The authors of public weights drop the projection head. So the embedding is the
    direction of the features.
    """
    pooled = keras.Input((features_dim,), name="pooled", dtype="float32")
    return keras.Model(
        pooled, keras.layers.UnitNormalization(dtype="float32", name="unit_norm")(pooled), name=name
    )
