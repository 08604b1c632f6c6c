"""Read a SavedModel with OpenVINO alone, without TensorFlow and this project.

    python openvino_reader.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

An input of the archive is named `<number>/<name>`. Inputs of one number are one call.
"""

import sys

import numpy as np
import openvino


def main(saved_model: str, inputs: str, outputs: str) -> None:
    model = openvino.Core().read_model(saved_model)
    # By default, OpenVINO computes in bfloat16 on processors that can.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    calls: dict[str, dict[str, np.ndarray]] = {}
    for key, values in np.load(inputs).items():
        number, _, name = key.partition("/")
        calls.setdefault(number, {})[name] = values
    names = {name for port in compiled.inputs for name in port.get_names()}
    found = {}
    for number, given in calls.items():
        answer = compiled({name: values for name, values in given.items() if name in names})
        for port, values in answer.items():
            for name in port.get_names():
                found[f"{number}/{name}"] = values
    np.savez(outputs, **found)
    print(openvino.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
