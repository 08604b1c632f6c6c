"""The canary: try a SavedModel as a server would, before anybody else does.

Input: folder of a SavedModel. Output: `Findings`. `components/canary_process.py` runs
it in a process of its own, which loads the SavedModel only: Keras classes of a training
would hide a model that needs them.

It calls every signature with the golden patches and compares the answers with those of
the trained model, calls each with no patch at all, and measures time and memory. Where
OpenVINO is installed, it reads the files, too.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.published import ASSETS_DIR, read_card
from models.published import golden, second_reader
from models.published.golden import Golden
from models.published.second_reader import SecondReaderError
from models.published.tolerances import CLEAR_MARGIN, TOLERANCES

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
        tolerance: largest difference that its precision allows.
        load_seconds: time to load the model.
        call_seconds: median time of a call with the largest golden patches.
        memory_mib: largest memory of the process.
        second_reader: name and version of another library that read the model, or why
            none did.
        second_difference: its largest difference from the golden answers; None = none
            could be compared.
    """

    faults: tuple[str, ...]
    num_calls: int = 0
    max_difference: float | None = None
    tolerance: float = TOLERANCES["float32"]
    load_seconds: float = 0.0
    call_seconds: float = 0.0
    memory_mib: float = 0.0
    second_reader: str = ""
    second_difference: float | None = None

    @property
    def summary(self) -> str:
        """The figures, in a line."""
        read = self.second_reader or "not checked"
        if self.second_difference is not None:
            read += f", largest difference {self.second_difference:.1e}"
        if self.max_difference is None:
            return f"{self.num_calls} calls; second reader: {read}"
        return (
            f"{self.num_calls} calls, largest difference {self.max_difference:.1e}, "
            f"{self.memory_mib:.0f} MiB; second reader: {read}"
        )


@dataclass(frozen=True, kw_only=True)
class CanaryConfig:
    """Limits of a trial.

    Attributes:
        max_memory_mib: largest memory of a process that serves the model; None = any.
        max_call_seconds: largest median time of a call with three patches of three
            strides; None = any. Machines differ, so it is for one kind of machine.
        max_difference: largest difference from the trained model's answers; None = by
            the precision of the model, see `TOLERANCES`.
    """

    max_memory_mib: float | None = None
    max_call_seconds: float | None = None
    max_difference: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_memory_mib", "max_call_seconds", "max_difference"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


def judge(found: Findings, config: CanaryConfig) -> Findings:
    """Return the findings with the faults that the limits make of the figures."""
    faults = list(found.faults)
    allowed = config.max_difference or found.tolerance
    for what, value, limit in (
        ("difference from the trained model", found.max_difference, allowed),
        (f"difference of {found.second_reader}", found.second_difference, allowed),
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
    card = read_card(saved_model_dir)
    threshold = card.get("threshold")
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
        tolerance=TOLERANCES[card.get("precision", "float32")],
        load_seconds=load_seconds,
        call_seconds=0.0 if faults else _time_calls(signatures, calls[-1]),
        memory_mib=peak_mib(),
    )


def peak_mib() -> float:
    """Return the largest memory of this process so far, in MiB.

    On Linux, `getrusage` gives that of the process that started this one, if it was
    larger. Source: proc(5), VmHWM; getrusage(2) for other systems.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    # macOS counts in bytes.
    unit = 1 << 20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def read_again(saved_model_dir: str, found: Findings, python: str | None) -> Findings:
    """Return the findings with what OpenVINO makes of the files.

    Args:
        saved_model_dir: folder of the SavedModel.
        found: what TensorFlow made of them.
        python: interpreter with `openvino`; None = it is not installed.
    """
    if python is None:
        return dataclasses.replace(found, second_reader="not checked: openvino is not installed")
    if found.faults:
        return dataclasses.replace(found, second_reader="not checked: the model has faults")
    threshold = read_card(saved_model_dir).get("threshold")
    by_signature: dict[str, list[Golden]] = {}
    for call in golden.read(saved_model_dir):
        # OpenVINO parses no tf.Examples.
        if call.signature != EXAMPLES_SIGNATURE:
            by_signature.setdefault(call.signature, []).append(call)
    differences = []
    reader = ""
    try:
        for signature, calls in by_signature.items():
            given = {str(number): call.inputs for number, call in enumerate(calls)}
            answers = second_reader.ask(saved_model_dir, signature, given, python)
            reader = answers.reader
            for number, call in enumerate(calls):
                answer = answers.outputs.get(str(number), {})
                differences.append(_difference(answer, call.outputs, threshold))
    except SecondReaderError as error:
        return dataclasses.replace(
            found, faults=(f"openvino: {error}",), second_reader="openvino: failed"
        )
    if not np.isfinite(differences).all():
        fault = f"an answer of {reader} is not finite, or has another shape"
        return dataclasses.replace(found, faults=(fault,), second_reader=reader)
    return dataclasses.replace(
        found, second_reader=reader, second_difference=max(differences, default=None)
    )


def damage_of(version: str, config: CanaryConfig) -> tuple[str, ...]:
    """Return why a published version cannot be served any more; empty: it answers.

    It was tried in a process of its own before it was copied. Here it is loaded and
    asked again, in this process, to find what was lost since.

    Args:
        version: folder of the version.
        config: limits; those of memory and time do not count.
    """
    import tensorflow as tf

    try:
        if golden.read(version):
            limits = CanaryConfig(max_difference=config.max_difference)
            return judge(probe(version), limits).faults
        # A model of an earlier release has no answers to compare with.
        with locations.without_pattern(version) as readable:
            tf.saved_model.load(readable)
    except (OSError, ValueError, tf.errors.OpError) as error:
        # TensorFlow adds advice about devices, which does not help here.
        return ((str(error).splitlines() or [type(error).__name__])[0][:300],)
    return ()


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
