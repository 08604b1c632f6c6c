"""The canary: try a SavedModel as a server would, before anybody else does.

Input: folder of a SavedModel. Output: `Findings`. `components/canary_process.py` runs
it in a process of its own, which loads the SavedModel only: Keras classes of a training
would hide a model that needs them.

It calls every signature with the golden patches and compares the answers with those of
the trained model, calls each with no patch at all, and measures time and memory.
"""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.published import ASSETS_DIR, read_card
from models.published import golden
from models.published.golden import Golden

TOLERANCE = 1e-4
"""Largest difference that passes. The graph reorders sums of float32, which changes
features of size 1-10 by about 1e-6 relative."""
CLEAR_MARGIN = 1e-3
"""Where the two likeliest classes are closer, either may be the answer."""
EXAMPLES_SIGNATURE = "serve_examples"
"""Signature that takes the pixels as serialized tf.Examples."""
_NUM_TIMED = 5


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Result of a trial.

    Attributes:
        faults: what is wrong, one line each; empty = it may be served.
        num_calls: calls that were made.
        max_difference: largest difference from the golden answers; None = none could be
            compared.
        load_seconds: time to load the model.
        call_seconds: median time of a call with the largest golden patches.
        memory_mib: largest memory of the process.
    """

    faults: tuple[str, ...]
    num_calls: int = 0
    max_difference: float | None = None
    load_seconds: float = 0.0
    call_seconds: float = 0.0
    memory_mib: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CanaryConfig:
    """Limits of a trial.

    Attributes:
        max_memory_mib: largest memory of a process that serves the model; None = any.
        max_call_seconds: largest median time of a call with three patches of three
            strides; None = any. Machines differ, so it is for one kind of machine.
        max_difference: largest difference from the trained model's answers.
    """

    max_memory_mib: float | None = None
    max_call_seconds: float | None = None
    max_difference: float = TOLERANCE

    def __post_init__(self) -> None:
        for name in ("max_memory_mib", "max_call_seconds", "max_difference"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


def judge(found: Findings, config: CanaryConfig) -> Findings:
    """Return the findings with the faults that the limits make of the figures."""
    faults = list(found.faults)
    for what, value, limit in (
        ("difference from the trained model", found.max_difference, config.max_difference),
        ("memory in MiB", found.memory_mib, config.max_memory_mib),
        ("seconds of a call", found.call_seconds, config.max_call_seconds),
    ):
        if value is not None and limit is not None and not value <= limit:
            faults.append(f"{what}: {value:.4g}, allowed {limit:g}")
    return dataclasses.replace(found, faults=tuple(faults))


def probe(saved_model_dir: str) -> Findings:
    """Try a SavedModel in this process."""
    import tensorflow as tf

    calls = golden.read(saved_model_dir)
    if not calls:
        return Findings(faults=(f"it has no golden answers ({ASSETS_DIR}/{golden.GOLDEN_NAME})",))
    threshold = read_card(saved_model_dir).get("threshold")
    started = time.perf_counter()
    with locations.without_pattern(saved_model_dir) as readable:
        signatures = tf.saved_model.load(readable).signatures
    load_seconds = time.perf_counter() - started
    faults: list[str] = []
    differences: list[float] = []
    for call in calls:
        try:
            answer = _ask(signatures, call.signature, call.inputs)
            differences.append(_difference(answer, call.outputs, threshold))
            nothing = {name: value[:0] for name, value in call.inputs.items()}
            faults += _not_empty(_ask(signatures, call.signature, nothing), call.signature)
        except (tf.errors.OpError, ValueError, TypeError, KeyError) as error:
            faults.append(f"signature {call.signature}: {' '.join(str(error).split())[:200]}")
    if not np.isfinite(differences).all():
        faults.append("an answer is not finite, or has another shape than the trained model's")
        differences = []
    return Findings(
        faults=tuple(dict.fromkeys(faults)),
        num_calls=2 * len(calls),
        max_difference=max(differences, default=None),
        load_seconds=load_seconds,
        call_seconds=0.0 if faults else _time_calls(signatures, calls[-1]),
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _ask(
    signatures: Mapping[str, Any], name: str, pixels: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """Return the answer of a signature to pixels, which some take as tf.Examples."""
    import tensorflow as tf

    if name not in signatures:
        raise KeyError(f"it is missing; there are {', '.join(sorted(signatures))}")
    if name == EXAMPLES_SIGNATURE:
        from models.published import warmup

        by_sensor = {sensor: pixels[sensor] for sensor in SENSORS if sensor in pixels}
        given = {"examples": tf.constant(warmup.encode_examples(by_sensor), tf.string)}
    else:
        given = {key: tf.constant(value) for key, value in pixels.items()}
    return {key: value.numpy() for key, value in signatures[name](**given).items()}


def _time_calls(signatures: Mapping[str, Any], call: Golden) -> float:
    seconds = []
    for _ in range(_NUM_TIMED):
        started = time.perf_counter()
        _ask(signatures, call.signature, call.inputs)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _not_empty(answer: Mapping[str, npt.NDArray[Any]], signature: str) -> list[str]:
    return [
        f"signature {signature}: {name} has {len(value)} answers to no patch"
        for name, value in answer.items()
        if len(value)
    ]


def _difference(
    answer: Mapping[str, npt.NDArray[Any]],
    expected: Mapping[str, npt.NDArray[Any]],
    threshold: float | None,
) -> float:
    """Return the largest difference; a label that clearly differs counts 1."""
    found = []
    for name, value in expected.items():
        if name not in answer or answer[name].shape != value.shape:
            return float("inf")
        if name == "label":
            differs = answer[name] != value
            found.append(float((differs & _is_clear(expected, threshold)).any()))
        else:
            found.append(float(np.max(np.abs(answer[name].astype(np.float64) - value))))
    return float(np.max(found))


def _is_clear(
    expected: Mapping[str, npt.NDArray[Any]], threshold: float | None
) -> npt.NDArray[np.bool_]:
    """Return where a label must be that of the trained model [B, H, W].

    It may be another one where the two likeliest classes are about equal, or where the
    probability of the second class is near the threshold. No data must stay no data.
    """
    first, second = np.moveaxis(np.sort(expected["probabilities"], axis=-1)[..., -2:], -1, 0)
    gap = second - first
    if threshold is not None:
        gap = np.abs(expected["probabilities"][..., 1] - threshold)
    return np.asarray((gap > CLEAR_MARGIN) | (expected["label"] == IGNORE))
