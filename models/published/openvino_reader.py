"""Read a SavedModel with OpenVINO alone, without TensorFlow and this project.

    python -I openvino_reader.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

`second_reader` starts it, maybe with an interpreter of another environment. An input of
the archive is named `<call>/<name>`, and so is an output. It prints OpenVINO's version.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt


def main(saved_model: str, inputs: str, outputs: str) -> None:
    """Write the answers to all calls of one archive."""
    # Only here: the project does not depend on it.
    import openvino

    model = openvino.Core().read_model(saved_model)
    # By default, OpenVINO computes in bfloat16 on processors that can.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    calls: dict[str, dict[str, npt.NDArray[np.generic]]] = {}
    for key, values in np.load(inputs).items():
        call, _, name = key.partition("/")
        calls.setdefault(call, {})[name] = values
    names = {name for port in compiled.inputs for name in port.get_names()}
    found = {}
    for call, given in calls.items():
        answer = compiled({name: values for name, values in given.items() if name in names})
        for port, values in answer.items():
            for name in port.get_names():
                found[f"{call}/{name}"] = values
    np.savez(outputs, **found)
    sys.stdout.write(f"{openvino.__version__}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
