"""A loopback server with TensorFlow Serving's interface, for tests.

It stands in for `tensorflow_model_server`, of which there is no package: the service
definitions are TensorFlow Serving's own, the server behind them is this file. It loads
models with their warm-up requests, knows versions and labels, speaks gRPC and REST with
the words of TensorFlow Serving's sources, and can be told to be busy.

As a program it takes the flags of `tensorflow_model_server`, and refuses others:

    python tests/data/servers/model_server.py --port=8500 --rest_api_port=8501 \\
        --model_config_file=models.config

Where `tensorflow_model_server` is on PATH, `serving` and `program` start it instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

BINARY = shutil.which("tensorflow_model_server")
"""The server itself, if it is installed."""
TOLERANCE = 1e-6 if BINARY else 0.0
"""Largest difference to TensorFlow in this process: another build may round otherwise."""
Certificate = tuple[bytes, bytes]
"""Key and certificate of a server, PEM."""
_UNLIMITED = -1


class LoadedModel:
    """One version: its signatures, after its warm-up requests.

    Attributes:
        warmed: signatures of the warm-up requests, in their order.
        definitions: signatures as the SavedModel describes them.
    """

    def __init__(self, path: str) -> None:
        self._model = tf.saved_model.load(path)
        document = saved_model_pb2.SavedModel.FromString(
            (Path(path) / "saved_model.pb").read_bytes()
        )
        self.definitions = document.meta_graphs[0].signature_def
        self.warmed = list(self._warm_up(path))

    def _warm_up(self, path: str) -> Iterator[str]:
        requests = Path(path) / "assets.extra" / "tf_serving_warmup_requests"
        if not requests.exists():
            return
        for record in tf.data.TFRecordDataset(str(requests)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            found = self.predict(request.model_spec.signature_name, _tensors(request))
            if not all(np.isfinite(values).all() for values in found.values()):
                raise ValueError(f"{requests}: the answer has values that are not finite")
            yield request.model_spec.signature_name

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        signature = signature or "serving_default"
        if signature not in self._model.signatures:
            raise ValueError(f'Serving signature name: "{signature}" not found in signature def')
        known = self._model.signatures[signature].structured_input_signature[1]
        given = {name: tf.constant(value, known[name].dtype) for name, value in inputs.items()}
        found = self._model.signatures[signature](**given)
        return {name: value.numpy() for name, value in found.items()}


def load_all(paths: dict[int, str]) -> dict[int, LoadedModel]:
    """Return version -> model of those versions that can be loaded.

    Source: servable_state_monitor.cc: a server starts when one version of each model
    answers. Those that cannot be loaded are left out, and tried again a minute later.
    """
    found = {}
    for version, path in paths.items():
        with contextlib.suppress(OSError, ValueError):
            found[version] = LoadedModel(path)
    return found


@dataclass
class ModelServer:
    """One model in several versions.

    Attributes:
        name: of the model.
        paths: version -> SavedModel.
        labels: version label -> version.
        token: that clients must send; "" = none.
        num_busy: requests that are refused from now on because the server is busy.
        loading: versions that are known, but not loaded yet.
        seconds: how long each request takes at least.
        shapes: of the first input of each request that was answered.
        most_at_once: largest number of requests that were under way together.
    """

    name: str
    paths: dict[int, str]
    labels: dict[str, int] = field(default_factory=dict)
    token: str = ""
    num_busy: int = 0
    loading: set[int] = field(default_factory=set)
    seconds: float = 0.0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.models = load_all(self.paths)
        if not self.models:
            raise OSError(f"{self.name}: none of its versions can be loaded: {self.paths}")
        self._lock = threading.Lock()
        self._num_now = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request, and refuse it while the server is busy."""
        with self._lock:
            self.num_busy -= 1
            if self.num_busy >= 0:
                raise _RefusalError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full",
                )
            self._num_now += 1
            self.most_at_once = max(self.most_at_once, self._num_now)
        try:
            time.sleep(self.seconds)
            yield
        finally:
            with self._lock:
                self._num_now -= 1

    def check_token(self, sent: str | None) -> None:
        if self.token and sent != f"Bearer {self.token}":
            raise _RefusalError(grpc.StatusCode.UNAUTHENTICATED, "no token")

    def choose(self, name: str, version: int | None, label: str) -> int:
        """Return the version that answers."""
        if label:
            if name != self.name or label not in self.labels:
                raise _RefusalError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {label}",
                )
            version = self.labels[label]
        ready = set(self.models) - self.loading
        if name != self.name or (version is None and not ready):
            raise _RefusalError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})"
            )
        if version is not None and version not in ready:
            raise _RefusalError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific({name}, {version})",
            )
        return max(ready) if version is None else version

    def states(self, name: str) -> dict[int, str]:
        """Return the state of each version."""
        if name != self.name:
            raise _RefusalError(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}"
            )
        return {
            version: "LOADING" if version in self.loading else "AVAILABLE"
            for version in self.models
        }

    def predict(
        self, version: int, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        self.shapes.append(np.shape(next(iter(inputs.values()))))
        try:
            return self.models[version].predict(signature, inputs)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise _RefusalError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


class _RefusalError(Exception):
    """The server refuses, with a status and a message."""

    _HTTP: ClassVar[dict[grpc.StatusCode, int]] = {
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.UNAUTHENTICATED: 401,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.UNAVAILABLE: 503,
    }

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def http_code(self) -> int:
        return self._HTTP[self.code]


class _Servers:
    """The models of one process, by name; the first answers for names that are unknown."""

    def __init__(self, servers: Sequence[ModelServer]) -> None:
        self._first = servers[0]
        self._by_name = {server.name: server for server in servers}

    def __getitem__(self, name: str) -> ModelServer:
        return self._by_name.get(name, self._first)


def _tensors(request: Any) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(value) for name, value in request.inputs.items()}


class _Grpc(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, servers: _Servers) -> None:
        self._servers = servers

    @contextmanager
    def _asked(self, spec: Any, context: Any) -> Iterator[ModelServer]:
        server = self._servers[spec.name]
        try:
            server.check_token(dict(context.invocation_metadata()).get("authorization"))
            yield server
        except _RefusalError as refusal:
            context.abort(refusal.code, refusal.message)

    def Predict(self, request: Any, context: Any) -> Any:
        answer = predict_pb2.PredictResponse()
        with self._asked(request.model_spec, context) as server, server.request():
            version = _chosen(server, request.model_spec)
            signature = request.model_spec.signature_name
            found = server.predict(version, signature, _tensors(request))
            answer.model_spec.name, answer.model_spec.version.value = server.name, version
            for name, values in found.items():
                if not request.output_filter or name in request.output_filter:
                    answer.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return answer

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._asked(request.model_spec, context) as server, server.request():
            version = _chosen(server, request.model_spec)
            answer.model_spec.name, answer.model_spec.version.value = server.name, version
            answer.metadata["signature_def"].Pack(_signatures(server.models[version]))
        return answer

    def GetModelStatus(self, request: Any, context: Any) -> Any:
        answer = get_model_status_pb2.GetModelStatusResponse()
        with self._asked(request.model_spec, context) as server:
            for version, state in server.states(request.model_spec.name).items():
                answer.model_version_status.add(version=version, state=state)
        return answer


def _chosen(server: ModelServer, spec: Any) -> int:
    version = spec.version.value if spec.HasField("version") else None
    return server.choose(spec.name, version, spec.version_label)


def _signatures(model: LoadedModel) -> get_model_metadata_pb2.SignatureDefMap:
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.definitions.items():
        found.signature_def[name].CopyFrom(definition)
    return found


@contextmanager
def serving_grpc(
    *servers: ModelServer,
    port: int = 0,
    certificate: Certificate | None = None,
    max_request_bytes: int = _UNLIMITED,
) -> Iterator[str]:
    """Serve by gRPC in this process, and yield host and port."""
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.so_reuseport", 0),
    ]
    pool = ThreadPoolExecutor(16)
    running = grpc.server(pool, options=options)
    servicer = _Grpc(_Servers(servers))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, running)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, running)
    address = f"127.0.0.1:{port}"
    if certificate is None:
        bound = running.add_insecure_port(address)
    else:
        bound = running.add_secure_port(address, grpc.ssl_server_credentials([certificate]))
    running.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        running.stop(None).wait()
        # Calls that were cancelled may still be at work, and are counted at their end.
        pool.shutdown()


@contextmanager
def serving_rest(
    *servers: ModelServer,
    port: int = 0,
    certificate: Certificate | None = None,
    max_request_bytes: int = _UNLIMITED,
) -> Iterator[str]:
    """Serve by REST in this process, and yield host and port."""
    by_name = _Servers(servers)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, code: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # A client may have gone.
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.removesuffix("/metadata")
            if path == self.path:
                self._try(lambda server, name, _: _rest_states(server, name))
            else:
                self._try(_rest_metadata)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            content = self.rfile.read(length)
            if 0 <= max_request_bytes < length:
                self._answer(413, {"error": f"a body of {length} bytes is too large"})
                return
            body = json.loads(content)
            self._try(lambda server, _, version: _rest_predict(server, version, body))

        def _try(self, work: Any) -> None:
            path = self.path.removesuffix("/metadata").removesuffix(":predict")
            _, _, _, name, *rest = path.split("/")
            server = by_name[name]
            is_status = self.command == "GET" and path == self.path
            try:
                server.check_token(self.headers.get("authorization"))
                if is_status:
                    self._answer(200, work(server, name, 0))
                    return
                with server.request():
                    number = int(rest[1]) if rest[:1] == ["versions"] else None
                    label = rest[1] if rest[:1] == ["labels"] else ""
                    found = work(server, name, server.choose(name, number, label))
                self._answer(200, found)
            except _RefusalError as refusal:
                self._answer(refusal.http_code, {"error": refusal.message})

    running = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if certificate is not None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in zip(("key.pem", "certificate.pem"), certificate, strict=True):
                (Path(folder) / name).write_bytes(content)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
        running.socket = context.wrap_socket(running.socket, server_side=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


def _rest_states(server: ModelServer, name: str) -> Any:
    status = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [
            {"version": str(version), "state": state, "status": status}
            for version, state in server.states(name).items()
        ]
    }


def _rest_metadata(server: ModelServer, _: str, version: int) -> Any:
    signatures = json_format.MessageToDict(
        _signatures(server.models[version]), preserving_proto_field_name=True
    )
    spec = {"name": server.name, "signature_name": "", "version": str(version)}
    return {"model_spec": spec, "metadata": {"signature_def": signatures}}


def _rest_predict(server: ModelServer, version: int, body: dict[str, Any]) -> Any:
    """Return the answer in rows for `instances`, by output for `inputs`."""
    signature = body.get("signature_name", "serving_default")
    if signature not in server.models[version].definitions:
        raise _RefusalError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f'Serving signature name: "{signature}" not found in signature def',
        )
    names = list(server.models[version].definitions[signature].inputs)
    if "instances" in body:
        rows = [row if isinstance(row, dict) else {names[0]: row} for row in body["instances"]]
        inputs = {name: [row[name] for row in rows] for name in names}
    else:
        inputs = body["inputs"] if isinstance(body["inputs"], dict) else {names[0]: body["inputs"]}
    found = {
        name: values.tolist()
        for name, values in server.predict(
            version, signature, {name: np.array(value) for name, value in inputs.items()}
        ).items()
    }
    # One output goes without its name.
    only = next(iter(found.values())) if len(found) == 1 else None
    if "inputs" in body:
        return {"outputs": found if only is None else only}
    if only is not None:
        return {"predictions": only}
    rows = zip(*found.values(), strict=True)
    return {"predictions": [dict(zip(found, row, strict=True)) for row in rows]}


def read_config(path: str) -> list[ModelServer]:
    """Return the models that a `models.config` names, loaded and warmed up."""
    return [
        ModelServer(name=one.name, paths=_aspired(one), labels=dict(one.version_labels))
        for one in _entries(path)
    ]


def _entries(path: str) -> Sequence[Any]:
    config = text_format.Parse(Path(path).read_text(), model_server_config_pb2.ModelServerConfig())
    return list(config.model_config_list.config)


def _aspired(entry: Any) -> dict[int, str]:
    """Return version -> folder of the versions that a model's policy asks for.

    Source: file_system_storage_path_source.cc, PollFileSystemForServable. Names count
    that absl's SimpleAtoi reads, so `01` is version 1.
    """
    found = {
        int(name): os.path.join(entry.base_path, name)
        for name in sorted(os.listdir(entry.base_path))
        if re.fullmatch(r"\s*[+-]?[0-9]+\s*", name, re.ASCII)
    }
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return found
    if choice == "specific":
        return {number: found[number] for number in policy.specific.versions if number in found}
    num_newest = max(policy.latest.num_versions, 1)
    return {number: found[number] for number in sorted(found)[-num_newest:]}


class Followed:
    """The models of a `models.config`, which follow the file and their folders.

    A test says when the server looks, so it needs not wait.

    Attributes:
        servers: the models.
        refused: why the server went on with the labels that it had, in its own words.
    """

    def __init__(self, path: str) -> None:
        self._path, self._entries = path, _entries(path)
        self.servers = read_config(path)
        self.refused: list[str] = []

    def poll_folders(self) -> None:
        """Load what is new; then drop what is not asked for any more.

        Source: availability_preserving_policy.cc: a version is only unloaded when
        another one can answer.
        """
        for server, entry in zip(self.servers, self._entries, strict=True):
            aspired = _aspired(entry)
            server.models |= load_all(
                {number: aspired[number] for number in aspired.keys() - server.models.keys()}
            )
            if aspired.keys() & server.models.keys():
                for number in server.models.keys() - aspired.keys():
                    del server.models[number]

    def poll_config(self) -> None:
        """Read the file: move the labels, or refuse all of it.

        Source: server_core.cc, ReloadConfig and UpdateModelVersionLabelMap. A label that
        is known can only move to a version that is loaded.
        """
        entries = _entries(self._path)
        for server, entry in zip(self.servers, entries, strict=True):
            for label, number in entry.version_labels.items():
                is_moved = server.labels.get(label, number) != number
                if is_moved and number not in server.models:
                    self.refused.append(
                        f"Request to assign label to version {number} of model {entry.name}, "
                        "which is not currently available for inference"
                    )
                    return
        for server, entry in zip(self.servers, entries, strict=True):
            server.labels = dict(entry.version_labels)
        self._entries = entries


def config_of(server: ModelServer) -> str:
    """Return the `models.config` of a server whose versions lie in one folder."""
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add(name=server.name, model_platform="tensorflow")
    (entry.base_path,) = {os.path.dirname(path) for path in server.paths.values()}
    entry.model_version_policy.specific.versions.extend(server.paths)
    entry.version_labels.update(server.labels)
    return str(text_format.MessageToString(config))


@contextmanager
def serving(server: ModelServer, protocol: str = "grpc") -> Iterator[str]:
    """Serve by `tensorflow_model_server` if it is there, else by the stand-in.

    It is for tests that need none of the faults of the stand-in. Yield host and port.
    """
    with ExitStack() as stack:
        if BINARY is None:
            serve = serving_grpc if protocol == "grpc" else serving_rest
            yield stack.enter_context(serve(server))
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = Path(folder) / "models.config"
        path.write_text(config_of(server))
        ports = {"grpc": free_port(), "rest": free_port()}
        stack.enter_context(
            program(
                f"--port={ports['grpc']}",
                f"--rest_api_port={ports['rest']}",
                f"--model_config_file={path}",
                "--allow_version_labels_for_unavailable_models=true",
            )
        )
        yield f"127.0.0.1:{ports[protocol]}"


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server as a process, with the flags of `tensorflow_model_server`.

    Yield the process once it listens; it ends with the context.
    """
    command = [BINARY] if BINARY else [sys.executable, __file__]
    port = next(one.partition("=")[2] for one in arguments if one.startswith("--port="))
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not _listens(int(port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[-1]} does not listen: exit code {process.poll()}")
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the values of flags; exit if the server has no such flag.

    Source: tensorflow_serving/model_servers/main.cc.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--model_config_file", required=True)
    parser.add_argument("--model_config_file_poll_wait_seconds", type=int, default=0)
    parser.add_argument("--monitoring_config_file")
    parser.add_argument("--enable_batching", choices=["true", "false"], default="false")
    parser.add_argument("--batching_parameters_file")
    parser.add_argument(
        "--allow_version_labels_for_unavailable_models", choices=["true", "false"], default="false"
    )
    flags = parser.parse_args(arguments)
    for path in (flags.monitoring_config_file, flags.batching_parameters_file):
        if path and not Path(path).is_file():
            parser.error(f"{path}: no such file")
    return flags


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is killed."""
    flags = parse(arguments)
    servers = read_config(flags.model_config_file)
    for server in servers:
        for version, model in server.models.items():
            print(f"{server.name} {version} warmed up by: {' '.join(model.warmed)}", flush=True)
    with ExitStack() as stack:
        if flags.rest_api_port:
            stack.enter_context(serving_rest(*servers, port=flags.rest_api_port))
        stack.enter_context(serving_grpc(*servers, port=flags.port))
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
