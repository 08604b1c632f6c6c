"""KServe's own server around a SavedModel, as its users write it.

It runs in an environment with `kserve` and `tensorflow`, without this project:

    python kserve_server.py PORT NAME SAVED_MODEL
"""

import sys
from typing import Any

import kserve
import numpy as np
import tensorflow as tf


class SavedModel(kserve.Model):
    """Answers version 1 of the protocol: a list of rows, each with all inputs."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._model = tf.saved_model.load(path)
        self._signature = self._model.signatures["serving_default"]
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        rows = payload["instances"]
        # NumPy makes NaN of null.
        inputs = {
            name: tf.constant(np.array([row[name] for row in rows], np.float32)) for name in rows[0]
        }
        found = {name: value.numpy() for name, value in self._signature(**inputs).items()}
        return {
            "predictions": [
                {name: values[index].tolist() for name, values in found.items()}
                for index in range(len(rows))
            ]
        }


if __name__ == "__main__":
    port, model_name, saved_model = sys.argv[1:]
    kserve.ModelServer(http_port=int(port), enable_grpc=False).start(
        [SavedModel(model_name, saved_model)]
    )
