"""The parity check: a SavedModel's signatures compute what its Keras models compute.

Input: the folder of a published model. Output: one comparison per signature and input
size. The probe of the serving checks runs it on what is about to be served.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.published import read_card
from models.config import ExportPrecision
from models.input_pipeline import parse_examples
from models.published import signatures, warmup
from models.published.export import load_encoders, load_heads, load_segmenter
from models.published.precision import as_served
from models.published.tolerances import CLEAR_MARGIN, TOLERANCES
from models.scores.scoring import get_threshold

COMPARED_SIZES_IN_STRIDES = ((2, 2), (3, 1))
"""Height and width of the two compared inputs, in strides.

One is square and one is not: both dimensions must be dynamic.
"""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SignatureComparison:
    """Result of one signature called with one input size.

    Attributes:
        signature: name.
        input_shapes: by input name.
        output_shapes: by output name.
        max_abs_difference: largest difference between SavedModel and Keras over all
            outputs; infinite when a value is not finite.
        tolerance: largest difference that passes.
    """

    signature: str
    input_shapes: dict[str, tuple[int, ...]]
    output_shapes: dict[str, tuple[int, ...]]
    max_abs_difference: float
    tolerance: float = TOLERANCES["float32"]


def compare_with_keras(saved_model_dir: str) -> list[SignatureComparison]:
    """Call every signature and the Keras models with equal inputs; compare the outputs.

    The inputs have two sizes and contain pixels without data.

    Raises:
        FileNotFoundError: the directory holds no complete model.
        ValueError: the card names an unknown task.
    """
    card = read_card(saved_model_dir)
    compare = {"segmentation": _compare_segmenter, "pretraining": _compare_encoders}.get(
        card["task"]
    )
    if compare is None:
        raise ValueError(
            f"{saved_model_dir}: the card's task must be segmentation or pretraining, "
            f"got {card['task']!r}"
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
    with locations.without_pattern(saved_model_dir) as readable:
        signatures = tf.saved_model.load(readable).signatures
    precision: ExportPrecision = card.get("precision", "float32")
    return compare(saved_model_dir, signatures, batches, precision)


def _compare_segmenter(
    saved_model_dir: str,
    loaded: Mapping[str, Any],
    batches: Sequence[Mapping[Sensor, FloatArray]],
    precision: ExportPrecision,
) -> list[SignatureComparison]:
    model = as_served(load_segmenter(saved_model_dir), precision)
    compare = functools.partial(
        _compare, loaded=loaded, threshold=get_threshold(model), tolerance=TOLERANCES[precision]
    )
    comparisons = []
    for pixels in batches:
        tensors = {sensor: tf.constant(values) for sensor, values in pixels.items()}
        examples = tf.constant(warmup.encode_examples(pixels))
        # Records store rounded values, so the Keras model must get the decoded values
        # and not the original ones.
        stored = parse_examples(
            examples, {sensor: values.shape[-1] for sensor, values in pixels.items()}
        )
        expected = signatures.segment(model, tensors)
        comparisons.append(compare("serving_default", inputs=tensors, expected=expected))
        expected = signatures.segment(model, stored)
        comparisons.append(
            compare("serve_examples", inputs={"examples": examples}, expected=expected)
        )
    return comparisons


def _compare_encoders(
    saved_model_dir: str,
    loaded: Mapping[str, Any],
    batches: Sequence[Mapping[Sensor, FloatArray]],
    precision: ExportPrecision,
) -> list[SignatureComparison]:
    del precision  # Encoders are published in float32.
    encoders, heads = load_encoders(saved_model_dir), load_heads(saved_model_dir)
    comparisons = []
    for pixels in batches:
        for sensor, values in pixels.items():
            expected = signatures.embed(encoders[sensor], heads[sensor], tf.constant(values))
            inputs = {sensor: tf.constant(values)}
            comparisons.append(
                _compare(f"embed_{sensor}", loaded=loaded, inputs=inputs, expected=expected)
            )
    return comparisons


def _compare(
    signature: str,
    *,
    loaded: Mapping[str, Any],
    inputs: Mapping[Any, tf.Tensor],
    expected: Mapping[str, Any],
    threshold: float | None = None,
    tolerance: float = TOLERANCES["float32"],
) -> SignatureComparison:
    outputs = loaded[signature](**inputs)
    # Class ids cannot be subtracted: where two classes are equally likely, the last bit
    # decides between them.
    differences = [
        np.abs(np.asarray(outputs[name], np.float64) - np.asarray(expected[name], np.float64)).max()
        for name in expected
        if name != "label"
    ]
    if "label" in expected:
        margin = max(CLEAR_MARGIN, 2 * tolerance)
        differences.append(_label_difference(outputs, expected, threshold, margin))
    # np.max keeps NaN. Python's max drops it, depending on the order.
    largest = float(np.max(differences))
    return SignatureComparison(
        signature=signature,
        input_shapes={name: tuple(tensor.shape) for name, tensor in inputs.items()},
        output_shapes={name: tuple(tensor.shape) for name, tensor in outputs.items()},
        max_abs_difference=largest if np.isfinite(largest) else float("inf"),
        tolerance=tolerance,
    )


def _label_difference(
    outputs: Mapping[str, Any],
    expected: Mapping[str, Any],
    threshold: float | None,
    margin: float,
) -> float:
    """Return 1.0 when a label differs at a pixel with a clear choice, else 0.0.

    The choice is clear when the probabilities of the two likeliest classes differ by
    more than `margin`. With a `threshold` (of two classes), the second class's
    probability must be that far from the threshold.
    """
    probabilities = np.asarray(expected["probabilities"])
    first, second = np.moveaxis(np.sort(probabilities, axis=-1)[..., -2:], -1, 0)
    gap = second - first if threshold is None else np.abs(probabilities[..., 1] - threshold)
    is_clear = gap > margin
    # The label of no data does not depend on probabilities, so it must never differ.
    is_empty = np.asarray(expected["label"]) == IGNORE
    differs = np.asarray(outputs["label"]) != np.asarray(expected["label"])
    return float((differs & (is_clear | is_empty)).any())


def _random_pixels(
    rng: np.random.Generator, sensor: Sensor, height: int, width: int, num_bands: int
) -> FloatArray:
    """Return two plausible patches with a no-data corner each; float32 [2, H, W, C]."""
    shape = (2, height, width, num_bands)
    pixels = rng.normal(-14.0, 5.0, shape) if sensor == "s1" else rng.uniform(0.01, 0.6, shape)
    # A graph that lost its mask would differ here, or return NaN everywhere.
    pixels[:, : height // 4, : width // 3] = np.nan
    return pixels.astype(np.float32)
