"""OpenVINO as a second reader of a SavedModel, where it is installed.

SavedModel and pixels -> the answers of OpenVINO, which reads SavedModels itself. It
computes from the files alone, so what only TensorFlow can read would show. It runs in a
process of its own, by `openvino_reader.py`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import locations
from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.published import GRAPH_NAME

PYTHON_VARIABLE = "TERRAPAIR_OPENVINO_PYTHON"
"""Environment variable: an interpreter with `openvino`, if it is not this one."""
_TIMEOUT_SECONDS = 300
_LAST_CHARACTERS = 300

Array = npt.NDArray[Any]


class SecondReaderError(RuntimeError):
    """OpenVINO cannot read the model, or cannot be started; one line."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What OpenVINO answered.

    Attributes:
        reader: name and version.
        outputs: call -> output -> values.
    """

    reader: str
    outputs: Mapping[str, Mapping[str, Array]]


def interpreter(environment: Mapping[str, str]) -> str | None:
    """Return a Python that has OpenVINO; None: none is named, and this one lacks it."""
    if named := environment.get(PYTHON_VARIABLE):
        return named
    return sys.executable if importlib.util.find_spec("openvino") is not None else None


def ask(
    saved_model_dir: str | os.PathLike[str],
    signature: str,
    calls: Mapping[str, Mapping[str, Array]],
    python: str,
) -> Answers:
    """Return OpenVINO's answers of one signature.

    Args:
        saved_model_dir: folder of the SavedModel; may be on an object store.
        signature: name; its inputs must be pixels, because OpenVINO parses no
            tf.Examples.
        calls: name of the call -> input -> float32 [B, H, W, C].
        python: interpreter with `openvino`.

    Raises:
        SecondReaderError: OpenVINO cannot read it, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="terrapair-") as folder:
        root = Path(folder)
        _copy_signature(saved_model_dir, signature, root / "model")
        given = {
            f"{call}/{name}": values
            for call, inputs in calls.items()
            for name, values in inputs.items()
        }
        np.savez(root / "inputs.npz", **given)
        script = str(Path(__file__).with_name("openvino_reader.py"))
        names = (root / "model", root / "inputs.npz", root / "outputs.npz")
        # Isolated: modules beside the script must not hide those of OpenVINO.
        command = [python, "-I", script, *map(str, names)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except OSError as error:
            raise SecondReaderError(
                f"cannot start {python} ({error.strerror}): {PYTHON_VARIABLE} must name a Python "
                "with openvino, or be unset"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SecondReaderError(f"no answer within {_TIMEOUT_SECONDS} s") from error
        if done.returncode:
            why = " ".join(done.stderr.split())[-_LAST_CHARACTERS:]
            raise SecondReaderError(f"signature {signature}: cannot read it: {why}")
        outputs: dict[str, dict[str, Array]] = {}
        with np.load(root / "outputs.npz") as archive:
            for key in archive.files:
                call, _, name = key.partition("/")
                outputs.setdefault(call, {})[name] = archive[key]
    return Answers(reader=f"openvino {done.stdout.split()[-1]}", outputs=outputs)


def _copy_signature(saved_model_dir: str | os.PathLike[str], signature: str, target: Path) -> None:
    """Copy a SavedModel that has one signature: OpenVINO reads no more of a file."""
    from tensorflow.core.protobuf import saved_model_pb2

    source = locate(saved_model_dir)
    for name in locations.list_tree(source):
        if name == GRAPH_NAME or name.startswith(("variables/", "assets/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            locations.copy_file(source / name, target / name)
    file = target / GRAPH_NAME
    document = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    known = document.meta_graphs[0].signature_def
    for name in [name for name in known if name != signature]:
        del known[name]
    file.write_bytes(document.SerializeToString())
