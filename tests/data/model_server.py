"""A loopback server with TensorFlow Serving's interface, for tests.

It stands in for `tensorflow_model_server`, of which there is no package: the service
definitions are TensorFlow Serving's own, the server behind them is this file. It speaks
gRPC and REST, knows versions and labels, and can be told to be busy.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@dataclass
class ModelServer:
    """One model in several versions.

    Attributes:
        name: of the model.
        paths: version -> SavedModel.
        labels: version label -> version.
        token: that clients must send; "" = none.
        num_busy: requests that are refused from now on because the server is busy.
        shapes: of the first input of each request that was answered.
    """

    name: str
    paths: dict[int, str]
    labels: dict[str, int] = field(default_factory=dict)
    token: str = ""
    num_busy: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._models = {version: tf.saved_model.load(path) for version, path in self.paths.items()}
        self._lock = threading.Lock()

    def is_busy(self) -> bool:
        with self._lock:
            self.num_busy -= 1
            return self.num_busy >= 0

    def signature(self, name: str, version: int | None, label: str) -> Any:
        """Return the signature of a version, or raise KeyError."""
        if name != self.name:
            raise KeyError(f"Servable not found for request: Latest({name})")
        if label:
            version = self.labels.get(label, -1)
        chosen = max(self.paths) if version is None else version
        if chosen not in self.paths:
            raise KeyError(f"Servable not found for request: Specific({name}, {chosen})")
        return self._models[chosen].signatures["serving_default"]

    def predict(self, signature: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self.shapes.append(next(iter(inputs.values())).shape)
        given = {name: tf.constant(value, tf.float32) for name, value in inputs.items()}
        return signature(**given)["probabilities"].numpy()


def _inputs(signature: Any) -> dict[str, list[int]]:
    _, specs = signature.structured_input_signature
    return {name: [-1 if n is None else n for n in spec.shape] for name, spec in specs.items()}


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server: ModelServer) -> None:
        self.server = server

    def _signature(self, spec: Any, context: Any) -> Any:
        if self.server.token:
            sent = dict(context.invocation_metadata()).get("authorization")
            if sent != f"Bearer {self.server.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        if self.server.is_busy():
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        version = spec.version.value if spec.HasField("version") else None
        try:
            return self.server.signature(spec.name, version, spec.version_label)
        except KeyError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, error.args[0])

    def Predict(self, request: Any, context: Any) -> Any:
        signature = self._signature(request.model_spec, context)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        try:
            found = self.server.predict(signature, inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = predict_pb2.PredictResponse()
        answer.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(found))
        return answer

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        signature = self._signature(request.model_spec, context)
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, shape in _inputs(signature).items():
            info = found.signature_def["serving_default"].inputs[name]
            for size in shape:
                info.tensor_shape.dim.add(size=size)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(found)
        return answer


@contextmanager
def serving_grpc(server: ModelServer, port: int = 0) -> Iterator[str]:
    """Serve by gRPC, and yield host and port."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    running = grpc.server(ThreadPoolExecutor(4), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(server), running)
    bound = running.add_insecure_port(f"127.0.0.1:{port}")
    running.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        running.stop(None).wait()


@contextmanager
def serving_rest(server: ModelServer) -> Iterator[str]:
    """Serve by REST, and yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, code: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _signature(self, path: str) -> Any:
            _, _, _, name, *rest = path.split("/")
            version = int(rest[1]) if rest[:1] == ["versions"] else None
            return server.signature(name, version, rest[1] if rest[:1] == ["labels"] else "")

        def do_GET(self) -> None:
            self._try(lambda: self._metadata(self._signature(self.path.removesuffix("/metadata"))))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = {name: np.array(value, np.float32) for name, value in body["inputs"].items()}
            path = self.path.removesuffix(":predict")
            self._try(
                lambda: {
                    "outputs": {
                        "probabilities": server.predict(self._signature(path), inputs).tolist()
                    }
                }
            )

        def _metadata(self, signature: Any) -> Any:
            inputs = {
                name: {"tensor_shape": {"dim": [{"size": str(size)} for size in shape]}}
                for name, shape in _inputs(signature).items()
            }
            found = {"serving_default": {"inputs": inputs}}
            return {"metadata": {"signature_def": {"signature_def": found}}}

        def _try(self, work: Any) -> None:
            if server.is_busy():
                self._answer(503, {"error": "the queue is full"})
                return
            try:
                self._answer(200, work())
            except KeyError as error:
                self._answer(404, {"error": error.args[0]})

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
