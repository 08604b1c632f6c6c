"""Writes and reads published models.

Input: trained Keras models. Output: a SavedModel with signatures (`serving_default` and
`serve_examples` of a segmenter, `embed_s1` and `embed_s2` of an encoder) that take
physical values with NaN as no data. Its folder `assets.extra` holds the Keras models,
the warm-up requests and the card.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.locations import DamagedFileError, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.published import ASSETS_DIR, CURE
from models.config import ExportPrecision
from models.dual_encoder import DualEncoder
from models.encoders import SensorEncoder
from models.published import card as card_lib
from models.published import golden, saved_model, signatures, warmup
from models.published.card import Interface, Provenance
from models.published.precision import as_served
from models.published.saved_model import Endpoint
from models.scores import score_file
from models.scores.patch_scores import PatchScores
from models.segmenter import Segmenter

MAP_NAME = "embedding_map.png"
SEGMENTER_SIGNATURES = ("serving_default", "serve_examples")
ENCODER_SIGNATURES = ("embed_s1", "embed_s2")
DISTILLATION = "distillation"
"""The card's task of a student that is not yet trained on its own labels."""


def export_segmenter(
    segmenter: Segmenter,
    output_dir: str,
    *,
    provenance: Provenance,
    scores: PatchScores,
    precision: ExportPrecision = "float32",
) -> None:
    """Write a segmenter as a SavedModel into `output_dir`.

    Args:
        segmenter: in float32.
        output_dir: folder of the SavedModel.
        provenance: how the model came about; its config is a `SegmentConfig`.
        scores: of the eval split, at the segmenter's threshold.
        precision: of the SavedModel; see `ExportConfig`.
    """
    assets = _make_assets_dir(output_dir)
    segmenter.save(f"{assets}/model.keras")
    # Export the reloaded copy: it has none of the strategy's mirrored variables, and
    # readers load the same file.
    model = as_served(load_segmenter(output_dir), precision)
    specs = signatures.pixel_specs(model)
    pixels = signatures.pixels_endpoint(model)
    if precision == "float32":
        # Both signatures share one trace. Weights in half are read inside each.
        pixels = tf.function(pixels, input_signature=specs, autograph=False)
    endpoints = {
        "serving_default": Endpoint(function=pixels, specs=specs),
        "serve_examples": Endpoint(
            function=signatures.examples_endpoint(model, pixels),
            specs=[tf.TensorSpec([None], tf.string, "examples")],
        ),
    }
    saved_model.write([model], endpoints, output_dir, in_half=precision != "float32")
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}
    warmup.write_segmenter_requests(assets, provenance.name, num_bands, model.stride)
    _write_golden_segmenter(assets, model, num_bands)
    score_file.write_scores(os.path.join(assets, score_file.SCORES_NAME), scores)
    interface = Interface(
        task="segmentation",
        sensors=model.sensors,
        stride=model.stride,
        signatures=SEGMENTER_SIGNATURES,
        schema=provenance.config.schema,
        precision=precision,
    )
    # Last: a folder without a card counts as incomplete.
    card_lib.write_card(
        assets, card_lib.make_card(provenance, interface, threshold=scores.threshold)
    )


def export_encoder(
    dual_encoder: DualEncoder,
    output_dir: str,
    *,
    provenance: Provenance,
    health: Mapping[str, Any] | None = None,
    embedding_map: bytes | None = None,
    is_served: bool = True,
) -> None:
    """Write the encoders of both sensors as one SavedModel into `output_dir`.

    Args:
        dual_encoder: in float32.
        output_dir: folder of the SavedModel.
        provenance: how the model came about; its config is a `PretrainConfig`.
        health: findings of the health checks; see `make_card`.
        embedding_map: PNG of the health checks.
        is_served: False leaves out the signatures. Other trainings can still start from
            the encoders, by `load_encoders`.
    """
    assets = write_encoders(dual_encoder.encoders, dual_encoder.heads, output_dir, is_served)
    if embedding_map is not None:
        (locate(assets) / MAP_NAME).write_bytes(embedding_map)
    interface = Interface(
        task="pretraining",
        sensors=SENSORS,
        stride=dual_encoder.encoders["s1"].stride,
        signatures=ENCODER_SIGNATURES if is_served else (),
    )
    card_lib.write_card(assets, card_lib.make_card(provenance, interface, health=health))


def export_student(
    student: Segmenter, output_dir: str, *, provenance: Provenance, teacher: str
) -> None:
    """Write a distilled student, for `load_segmenter`, into `output_dir`.

    A student is the start of a training. It is not served and has no signatures.

    Args:
        student: in float32.
        output_dir: folder of the model.
        provenance: how the model came about; its config is a `StudentConfig`.
        teacher: SavedModel of the teacher.
    """
    assets = _make_assets_dir(output_dir)
    student.save(f"{assets}/model.keras")
    interface = Interface(
        task=DISTILLATION,
        sensors=student.sensors,
        stride=student.stride,
        signatures=(),
        schema=provenance.config.segment.schema,
    )
    card = card_lib.make_card(provenance, interface)
    card_lib.write_card(assets, {**card, "teacher": teacher})


def write_encoders(
    encoders: Mapping[Sensor, SensorEncoder],
    heads: Mapping[Sensor, keras.Model],
    output_dir: str,
    is_served: bool = True,
) -> str:
    """Write the encoders of one sensor or both, but no card; return the card's folder.

    See `export_encoder` for `is_served`.
    """
    assets = _make_assets_dir(output_dir)
    for sensor in encoders:
        encoders[sensor].save(f"{assets}/{sensor}_encoder.keras")
        heads[sensor].save(f"{assets}/{sensor}_head.keras")
    if not is_served:
        return assets
    encoders, heads = load_encoders(output_dir), load_heads(output_dir)
    num_bands = {sensor: len(encoder.bands) for sensor, encoder in encoders.items()}
    # Publish the heads too: they make `embedding`, which the encoder's probe measures.
    endpoints = {
        f"embed_{sensor}": Endpoint(
            function=signatures.embed_endpoint(encoders[sensor], heads[sensor]),
            specs=[tf.TensorSpec([None, None, None, num_bands[sensor]], tf.float32, sensor)],
        )
        for sensor in encoders
    }
    saved_model.write([*encoders.values(), *heads.values()], endpoints, output_dir)
    stride = max(encoder.stride for encoder in encoders.values())
    warmup.write_encoder_requests(assets, "encoder", num_bands, stride)
    _write_golden_encoders(assets, encoders, heads)
    return assets


def load_segmenter(saved_model_dir: str) -> Segmenter:
    """Return the Keras segmenter inside a published model.

    Raises:
        FileNotFoundError: the directory holds none.
    """
    return _load(os.path.join(saved_model_dir, ASSETS_DIR, "model.keras"))


def load_encoders(path: str, sensors: Collection[Sensor] = SENSORS) -> dict[Sensor, SensorEncoder]:
    """Return the Keras encoders by sensor, each with its own normalization.

    Args:
        path: folder of a published encoder, or a `.keras` file.
        sensors: sensors whose encoders are needed. The others are loaded only from a
            file that holds several, or where the folder has none of these.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the `.keras` file holds another model.
    """
    if path.endswith(".keras"):
        model = _load(path)
        found = (
            {model.sensor: model}
            if isinstance(model, SensorEncoder)
            else getattr(model, "encoders", {})
        )
        if not found:
            raise ValueError(
                f"{path}: must be a SensorEncoder, or a model of several, "
                f"got {type(model).__name__}"
            )
        return dict(found)
    return _load_by_sensor(path, "encoder", sensors)


def load_heads(saved_model_dir: str) -> dict[Sensor, keras.Model]:
    """Return the projection heads (pooled features -> embedding) by sensor.

    Raises:
        FileNotFoundError: the directory holds none.
    """
    return _load_by_sensor(saved_model_dir, "head")


def _write_golden_segmenter(
    assets_dir: str, model: Segmenter, num_bands: Mapping[Sensor, int]
) -> None:
    calls = []
    for pixels in golden.make_pixels(num_bands, model.stride):
        inputs = {str(sensor): values for sensor, values in pixels.items()}
        answer = signatures.segment(model, {name: tf.constant(v) for name, v in inputs.items()})
        outputs = {name: value.numpy() for name, value in answer.items()}
        calls += [
            golden.Golden(signature=signature, inputs=inputs, outputs=outputs)
            for signature in SEGMENTER_SIGNATURES
        ]
    golden.write(assets_dir, calls)


def _write_golden_encoders(
    assets_dir: str,
    encoders: Mapping[Sensor, SensorEncoder],
    heads: Mapping[Sensor, keras.Model],
) -> None:
    calls = []
    for sensor, encoder in encoders.items():
        for pixels in golden.make_pixels({sensor: len(encoder.bands)}, encoder.stride):
            answer = signatures.embed(encoder, heads[sensor], tf.constant(pixels[sensor]))
            calls.append(
                golden.Golden(
                    signature=f"embed_{sensor}",
                    inputs={sensor: pixels[sensor]},
                    outputs={name: value.numpy() for name, value in answer.items()},
                )
            )
    golden.write(assets_dir, calls)


def _make_assets_dir(output_dir: str) -> str:
    """Make the folder of everything that TF Serving does not read; return its path."""
    assets = os.path.join(output_dir, ASSETS_DIR)
    locate(assets).mkdir(parents=True, exist_ok=True)
    return assets


def _load_by_sensor(
    saved_model_dir: str, part: str, sensors: Collection[Sensor] = SENSORS
) -> dict[Sensor, Any]:
    paths = {
        sensor: os.path.join(saved_model_dir, ASSETS_DIR, f"{sensor}_{part}.keras")
        for sensor in SENSORS
    }
    found = {sensor: path for sensor, path in paths.items() if locate(path).exists()}
    # One sensor is enough: public weights have one. When there is none at all, the
    # error names the first path.
    needed = {sensor: path for sensor, path in found.items() if sensor in sensors}
    return {sensor: _load(path) for sensor, path in (needed or found or paths).items()}


def _load(path: str) -> Any:
    if not locate(path).exists():
        raise FileNotFoundError(
            f"{path}: no such Keras model, so this is not the published model expected"
        )
    # Keras says of a damaged file that it is not found. An object on a store is read at
    # once: Keras and the check would ask for 60 pieces.
    try:
        content = locate(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except IsADirectoryError as error:
        raise DamagedFileError(f"{path}: must be a Keras model, got a folder; {CURE}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise DamagedFileError(f"{path}: must be a Keras model ({error}); {CURE}") from error
    if damaged is not None:
        raise DamagedFileError(f"{path}: its part {damaged} is damaged; {CURE}")
    if not is_remote(path):
        return keras.saving.load_model(path, compile=False)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.keras")
        copy.write_bytes(content)
        return keras.saving.load_model(copy, compile=False)
