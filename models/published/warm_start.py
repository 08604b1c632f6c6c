"""Warm starts: published encoders or a distilled student as the start of a training.

Input: SavedModels of `export.py` or `.keras` files, and what the new training expects.
Output: encoders, heads and segmenters with those weights, or an error of one line that
says why they do not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.manifest import Manifest
from models.config import EncoderConfig, Precision
from models.dual_encoder import ProjectionHead
from models.encoders import SensorEncoder, with_precision
from models.published import export
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter, with_segmenter_precision


def load_encoders(
    paths: Mapping[Sensor, str], config: EncoderConfig, manifest: Manifest, precision: Precision
) -> dict[Sensor, SensorEncoder]:
    """Return the published encoder of each sensor, with its own normalization.

    The weights were learned with that normalization, so it is not replaced by the
    statistics of `manifest`.

    Raises:
        ValueError: a path holds no encoder of its sensor, or one with other bands than
            the shards of `manifest` or of another architecture than `config`.
        FileNotFoundError: a path holds no encoder at all.
    """
    published = {
        path: export.load_encoders(path, [sensor for sensor in paths if paths[sensor] == path])
        for path in set(paths.values())
    }
    for sensor, path in paths.items():
        if sensor not in published[path]:
            raise ValueError(
                f"{path}: must hold an encoder of {sensor}, got {', '.join(published[path])}"
            )
        _check_encoder(path, published[path][sensor], config, manifest)
    return {
        sensor: with_precision(published[path][sensor], precision) for sensor, path in paths.items()
    }


def load_heads(saved_model_dir: str, config: EncoderConfig) -> dict[Sensor, ProjectionHead]:
    """Return the published projection heads by sensor.

    Raises:
        ValueError: their embeddings have another size than `config` says.
        FileNotFoundError: the directory holds none.
    """
    heads = export.load_heads(saved_model_dir)
    for sensor, head in heads.items():
        if head.embedding_dim != config.embedding_dim:
            raise ValueError(
                f"{saved_model_dir}: {sensor}: encoder.embedding_dim is {config.embedding_dim}, "
                f"the published head's {head.embedding_dim}"
            )
    return heads


def load_student(saved_model_dir: str, config: SegmentConfig, manifest: Manifest) -> Segmenter:
    """Return a student of `run_distillation`, with its own normalization.

    Raises:
        ValueError: it has other inputs, classes or another head than `config`, or other
            bands than the shards of `manifest`.
        FileNotFoundError: the directory holds none.
    """
    model = export.load_segmenter(saved_model_dir)
    expected = {
        "sensors": config.sensors,
        "num_classes": config.schema.num_classes,
        "head": config.head,
        "decoder_channels": config.decoder_channels,
        "border": config.border,
    }
    for name, value in expected.items():
        if getattr(model, name) != value:
            raise ValueError(
                f"{saved_model_dir}: {name} must be {value}, "
                f"got the student's {getattr(model, name)}"
            )
    for encoder in model.encoders.values():
        _check_encoder(saved_model_dir, encoder, config.encoder, manifest)
    return with_segmenter_precision(model, config.precision)


def check_bands(saved_model_dir: str, encoder: SensorEncoder, manifest: Manifest) -> None:
    """Refuse an encoder whose bands are not those of the shards.

    With other bands of the same number it would run and give wrong results.

    Raises:
        ValueError: with the bands of both.
    """
    bands = manifest.bands(encoder.sensor)
    if encoder.bands != bands:
        raise ValueError(
            f"{saved_model_dir}: {encoder.sensor}: the encoder knows bands {encoder.bands}, "
            f"the shards hold {bands}"
        )


def _check_encoder(
    saved_model_dir: str, encoder: SensorEncoder, config: EncoderConfig, manifest: Manifest
) -> None:
    """Refuse an encoder of other bands or another architecture.

    Raises:
        ValueError: with both settings.
    """
    check_bands(saved_model_dir, encoder, manifest)
    where = f"{saved_model_dir}: {encoder.sensor}"
    if encoder.backbone != config.backbone:
        raise ValueError(
            f"{where}: encoder.backbone is {config.backbone!r}, the encoder's {encoder.backbone!r}"
        )
    if encoder.norm != config.norm:
        raise ValueError(
            f"{where}: encoder.norm is {config.norm!r}, the encoder's {encoder.norm!r}"
        )
