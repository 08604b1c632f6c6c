"""Writes and reads published models: SavedModel with signatures, and assets.extra with the Keras models, warm-up and card.

Input: trained Keras models. Output: the published model contract: `serving_default` and
`serve_examples` of a segmenter, `embed_s1` and `embed_s2` of an encoder, all taking
physical values with NaN as no data. Called by `pretrain.py`, `segment.py`,
`public_weights/importing.py`, the serving checks and the components.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.manifest import Manifest
from models.config import PretrainConfig
from models.distillation.config import StudentConfig
from models.dual_encoder import DualEncoder
from models.encoders import SensorEncoder
from models.input_pipeline import parse_examples
from models.published import card as card_lib
from models.published import signatures, warmup
from models.scores import score_file
from models.scores.patch_scores import PatchScores
from models.scores.scoring import get_threshold
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter

ASSETS_DIR = "assets.extra"
MAP_NAME = "embedding_map.png"
SEGMENTER_SIGNATURES = ("serving_default", "serve_examples")
ENCODER_SIGNATURES = ("embed_s1", "embed_s2")
DISTILLATION = "distillation"
"""What a card calls the task of a student that has not seen its own labels yet."""
COMPARED_SIZES_IN_STRIDES = ((2, 2), (3, 1))
"""Height and width of the two compared inputs, in strides: one square, one not, so that both are shown to be dynamic."""

CLEAR_MARGIN = 1e-3
"""Probabilities further apart than this cannot change places within the tolerance of the comparison."""

FloatArray = npt.NDArray[np.float32]


def export_segmenter(
    segmenter: Segmenter,
    output_dir: str,
    *,
    name: str,
    config: SegmentConfig,
    manifest: Manifest,
    metrics: Mapping[str, float],
    scores: PatchScores,
    started_from: Mapping[Sensor, str],
) -> None:
    """Writes a segmenter as a SavedModel below `output_dir`, under the name it is served as; the card comes last.

    `scores` are those of its eval split, at its threshold. For `started_from` see
    `make_card`.
    """
    assets = _make_assets_dir(output_dir)
    segmenter.save(f"{assets}/model.keras")
    # The reloaded copy is free of the training strategy's mirrored variables, and is
    # what a reader will compare with.
    model = load_segmenter(output_dir)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", signatures.pixels_endpoint(model), signatures.pixel_specs(model)
    )
    archive.add_endpoint(
        "serve_examples",
        signatures.examples_endpoint(model),
        [tf.TensorSpec([None], tf.string, "examples")],
    )
    archive.write_out(output_dir, verbose=False)
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}
    warmup.write_segmenter_requests(assets, name, num_bands, model.stride)
    score_file.write_scores(os.path.join(assets, score_file.SCORES_NAME), scores)
    card = card_lib.make_card(
        name=name,
        task="segmentation",
        sensors=model.sensors,
        stride=model.stride,
        signatures=SEGMENTER_SIGNATURES,
        config=config,
        manifest=manifest,
        metrics=metrics,
        label_schema=config.label_schema,
        started_from=started_from,
        threshold=scores.threshold,
    )
    # Last: readers take a directory without a card for unfinished.
    card_lib.write_card(assets, card)


def export_encoder(
    dual_encoder: DualEncoder,
    output_dir: str,
    *,
    config: PretrainConfig,
    manifest: Manifest,
    metrics: Mapping[str, float],
    started_from: Mapping[Sensor, str],
    health: Mapping[str, Any] | None = None,
    embedding_map: bytes | None = None,
    is_served: bool = True,
) -> None:
    """Writes both sensors' encoders as one SavedModel below `output_dir`; the card comes last.

    Not `is_served`, they are the start of other trainings only, for `load_encoders`:
    there are no signatures. `health` and `started_from` (see `make_card`) and
    `embedding_map` (PNG) are what the health checks found.
    """
    assets = write_encoders(dual_encoder.encoders, dual_encoder.heads, output_dir, is_served)
    if embedding_map is not None:
        with tf.io.gfile.GFile(f"{assets}/{MAP_NAME}", "wb") as file:
            file.write(embedding_map)
    card = card_lib.make_card(
        name="encoder",
        task="pretraining",
        sensors=SENSORS,
        stride=dual_encoder.encoders["s1"].stride,
        signatures=ENCODER_SIGNATURES if is_served else (),
        config=config,
        manifest=manifest,
        metrics=metrics,
        label_schema=None,
        started_from=started_from,
        health=health,
    )
    card_lib.write_card(assets, card)


def export_student(
    student: Segmenter,
    output_dir: str,
    *,
    name: str,
    config: StudentConfig,
    manifest: Manifest,
    metrics: Mapping[str, float],
    started_from: Mapping[Sensor, str],
    teacher: str,
) -> None:
    """Writes a distilled student for `load_segmenter`: no signatures, since it is the start of a training and is not served."""
    assets = _make_assets_dir(output_dir)
    student.save(f"{assets}/model.keras")
    card = card_lib.make_card(
        name=name,
        task=DISTILLATION,
        sensors=student.sensors,
        stride=student.stride,
        signatures=(),
        config=config,
        manifest=manifest,
        metrics=metrics,
        label_schema=config.segment.label_schema,
        started_from=started_from,
    )
    card_lib.write_card(assets, {**card, "teacher": teacher})


def write_encoders(
    encoders: Mapping[Sensor, SensorEncoder],
    heads: Mapping[Sensor, keras.Model],
    output_dir: str,
    is_served: bool = True,
) -> str:
    """Writes the encoders of one sensor or both, all but the card, whose folder is returned; see `export_encoder`."""
    assets = _make_assets_dir(output_dir)
    for sensor in encoders:
        encoders[sensor].save(f"{assets}/{sensor}_encoder.keras")
        heads[sensor].save(f"{assets}/{sensor}_head.keras")
    if not is_served:
        return assets
    encoders, heads = load_encoders(output_dir), load_heads(output_dir)
    archive = keras.export.ExportArchive()
    # Heads are published too: `embedding` is what pairs are compared by, and what the
    # encoder's probe measures.
    for sensor in encoders:
        archive.track(encoders[sensor])
        archive.track(heads[sensor])
        spec = tf.TensorSpec([None, None, None, len(encoders[sensor].bands)], tf.float32, sensor)
        archive.add_endpoint(
            f"embed_{sensor}", signatures.embed_endpoint(encoders[sensor], heads[sensor]), [spec]
        )
    archive.write_out(output_dir, verbose=False)
    num_bands = {sensor: len(encoder.bands) for sensor, encoder in encoders.items()}
    stride = max(encoder.stride for encoder in encoders.values())
    warmup.write_encoder_requests(assets, "encoder", num_bands, stride)
    return assets


def load_segmenter(saved_model_dir: str) -> Segmenter:
    """The Keras segmenter inside a published model.

    Raises:
        FileNotFoundError: the directory holds none.
    """
    return _load(os.path.join(saved_model_dir, ASSETS_DIR, "model.keras"))


def load_encoders(path: str) -> dict[Sensor, SensorEncoder]:
    """The Keras encoders, by sensor, of a published encoder or of one `.keras` file, each with its own normalization.

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
                f"{path}: must be a SensorEncoder, or a model of several, got {type(model).__name__}"
            )
        return dict(found)
    return _load_by_sensor(path, "encoder")


def load_heads(saved_model_dir: str) -> dict[Sensor, keras.Model]:
    """What makes the embedding of the pooled features inside a published encoder, by sensor.

    Raises:
        FileNotFoundError: the directory holds none.
    """
    return _load_by_sensor(saved_model_dir, "head")


@dataclass(frozen=True, kw_only=True)
class SignatureComparison:
    """One signature called with one input size.

    Attributes:
        signature: its name.
        input_shapes: by input name.
        output_shapes: by output name.
        max_abs_difference: SavedModel against Keras, the largest over all outputs;
            infinite when a value is not finite.
    """

    signature: str
    input_shapes: dict[str, tuple[int, ...]]
    output_shapes: dict[str, tuple[int, ...]]
    max_abs_difference: float


def compare_with_keras(saved_model_dir: str) -> list[SignatureComparison]:
    """Calls every signature with two input sizes and with no-data pixels, and the Keras models with the same.

    Raises:
        FileNotFoundError: the directory holds no finished model.
        ValueError: the card names a task this function does not know.
    """
    card = card_lib.read_card(saved_model_dir)
    compare = {"segmentation": _compare_segmenter, "pretraining": _compare_encoders}.get(
        card["task"]
    )
    if compare is None:
        raise ValueError(
            f"{saved_model_dir}: the card's task must be segmentation or pretraining, got {card['task']!r}"
        )
    rng = np.random.default_rng(0)
    batches = [
        {
            sensor: _random_pixels(
                rng, sensor, rows * card["stride"], columns * card["stride"], len(entry["bands"])
            )
            for sensor, entry in card["inputs"].items()
        }
        for rows, columns in COMPARED_SIZES_IN_STRIDES
    ]
    return compare(saved_model_dir, tf.saved_model.load(saved_model_dir).signatures, batches)


def _compare_segmenter(
    saved_model_dir: str, loaded: Mapping[str, Any], batches: Sequence[Mapping[Sensor, FloatArray]]
) -> list[SignatureComparison]:
    model = load_segmenter(saved_model_dir)
    threshold = get_threshold(model)
    comparisons = []
    for pixels in batches:
        tensors = {sensor: tf.constant(values) for sensor, values in pixels.items()}
        examples = tf.constant(warmup.encode_examples(pixels))
        # What was stored is rounded, so the Keras model must see what the codec gives
        # back, not the original values.
        stored = parse_examples(
            examples, {sensor: values.shape[-1] for sensor, values in pixels.items()}
        )
        expected = signatures.segment(model, tensors)
        comparisons.append(_compare("serving_default", loaded, tensors, expected, threshold))
        expected = signatures.segment(model, stored)
        comparisons.append(
            _compare("serve_examples", loaded, {"examples": examples}, expected, threshold)
        )
    return comparisons


def _compare_encoders(
    saved_model_dir: str, loaded: Mapping[str, Any], batches: Sequence[Mapping[Sensor, FloatArray]]
) -> list[SignatureComparison]:
    encoders, heads = load_encoders(saved_model_dir), load_heads(saved_model_dir)
    comparisons = []
    for pixels in batches:
        for sensor, values in pixels.items():
            expected = signatures.embed(encoders[sensor], heads[sensor], tf.constant(values))
            comparisons.append(
                _compare(f"embed_{sensor}", loaded, {sensor: tf.constant(values)}, expected)
            )
    return comparisons


def _compare(
    signature: str,
    loaded: Mapping[str, Any],
    inputs: Mapping[Any, tf.Tensor],
    expected: Mapping[str, Any],
    threshold: float | None = None,
) -> SignatureComparison:
    outputs = loaded[signature](**inputs)
    # Ids are no measure: where two classes are equally likely, the last bit decides
    # which one it is.
    differences = [
        np.abs(np.asarray(outputs[name], np.float64) - np.asarray(expected[name], np.float64)).max()
        for name in expected
        if name != "label"
    ]
    if "label" in expected:
        differences.append(_label_difference(outputs, expected, threshold))
    # np.max keeps NaN, which Python's max would drop depending on the order.
    largest = float(np.max(differences))
    return SignatureComparison(
        signature=signature,
        input_shapes={name: tuple(tensor.shape) for name, tensor in inputs.items()},
        output_shapes={name: tuple(tensor.shape) for name, tensor in outputs.items()},
        max_abs_difference=largest if np.isfinite(largest) else float("inf"),
    )


def _label_difference(
    outputs: Mapping[str, Any], expected: Mapping[str, Any], threshold: float | None
) -> float:
    """1.0 when a label differs where the choice is clear, else 0.0.

    It is between the two likeliest classes, or of two classes between the second one's
    probability and `threshold`.
    """
    probabilities = np.asarray(expected["probabilities"])
    first, second = np.moveaxis(np.sort(probabilities, axis=-1)[..., -2:], -1, 0)
    gap = second - first if threshold is None else np.abs(probabilities[..., 1] - threshold)
    is_clear = gap > CLEAR_MARGIN
    # No data is no matter of probabilities: it must be the same everywhere.
    is_empty = np.asarray(expected["label"]) == IGNORE
    differs = np.asarray(outputs["label"]) != np.asarray(expected["label"])
    return float((differs & (is_clear | is_empty)).any())


def _random_pixels(
    rng: np.random.Generator, sensor: Sensor, height: int, width: int, num_bands: int
) -> FloatArray:
    """Two patches of plausible values with a no-data corner each; float32 [2, H, W, C]."""
    shape = (2, height, width, num_bands)
    pixels = rng.normal(-14.0, 5.0, shape) if sensor == "s1" else rng.uniform(0.01, 0.6, shape)
    # NaN in the compared inputs: a graph that lost its mask would differ here, or be
    # NaN all over.
    pixels[:, : height // 4, : width // 3] = np.nan
    return pixels.astype(np.float32)


def _make_assets_dir(output_dir: str) -> str:
    assets = os.path.join(output_dir, ASSETS_DIR)
    tf.io.gfile.makedirs(assets)
    return assets


def _load_by_sensor(saved_model_dir: str, part: str) -> dict[Sensor, Any]:
    paths = {
        sensor: os.path.join(saved_model_dir, ASSETS_DIR, f"{sensor}_{part}.keras")
        for sensor in SENSORS
    }
    found = {sensor: path for sensor, path in paths.items() if tf.io.gfile.exists(path)}
    # One sensor is enough: public weights know one. Of none at all, the message names
    # the first.
    return {sensor: _load(path) for sensor, path in (found or paths).items()}


def _load(path: str) -> Any:
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"{path}: no such Keras model, so this is not the published model expected"
        )
    return keras.saving.load_model(path, compile=False)
