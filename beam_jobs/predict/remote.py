"""Remote models: a segmenter behind TensorFlow Serving as a function of pixels.

Input: an Endpoint and the model's card. Output: the function that `segmenters.load`
gives for a local model. Windows travel by gRPC or REST in several requests at a time;
requests that find no server are sent again, with growing pauses.
"""

from __future__ import annotations

import json
import math
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict.blending import Pixels
from beam_jobs.predict.segmenters import Segmenter

TOKEN_VARIABLE = "TERRAPAIR_SERVING_TOKEN"
"""Environment variable with an access token, on the driver and on each worker."""
_SIGNATURE = "serving_default"
_MAX_REQUEST_BYTES = 32 << 20
"""Bytes of pixels in a request with several windows; a larger window goes alone."""
_MAX_MESSAGE_BYTES = (1 << 31) - 1
"""Largest answer that is taken. By default, gRPC's clients refuse 4 MiB.

Source: gRPC, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH; the server's own limit is the same.
"""
NUM_TRIES = 7
_FIRST_PAUSE_SECONDS = 0.5
"""Pause after the first failure; each further one is twice as long."""
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_PASSING_HTTP = (429, 502, 503, 504)

Send = Callable[[Pixels], FloatArray]


class _BusyError(Exception):
    """The server cannot take the request now."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address of a served model, and how requests are sent.

    Attributes:
        host: host and port.
        model: name of the model on the server.
        label: version label; "" = the server's default, or `version`.
        version: number of the version; None = the server's default, or `label`.
        protocol: "grpc", or "rest".
        is_encrypted: use TLS.
        ca_file: certificates that are trusted, PEM; "" = those of the system.
        timeout_seconds: longest time of one request.
        max_in_flight: requests that one worker sends at a time.
    """

    host: str
    model: str
    label: str = ""
    version: int | None = None
    protocol: Literal["grpc", "rest"] = "grpc"
    is_encrypted: bool = False
    ca_file: str = ""
    timeout_seconds: float = 60.0
    max_in_flight: int = 2

    def __post_init__(self) -> None:
        if self.label and self.version is not None:
            raise ValueError(
                f"a label and a version exclude each other, got {self.label!r} and {self.version}"
            )
        if self.timeout_seconds <= 0 or self.max_in_flight < 1:
            raise ValueError(
                "timeout_seconds must be above 0 and max_in_flight at least 1, got "
                f"{self.timeout_seconds:g} and {self.max_in_flight}"
            )

    @property
    def name(self) -> str:
        """Model and version in messages."""
        wanted = self.label or ("" if self.version is None else str(self.version))
        return f"{self.host}: model {self.model!r}" + (f" ({wanted})" if wanted else "")


def connect(endpoint: Endpoint, segmenter: Segmenter) -> Send:
    """Return the function pixels [B, H, W, C] -> probabilities [B, H, W, K] of a model.

    Raises:
        DataError: when the function is called: the server is not there, has no such
            model or version, or refuses the pixels.
    """
    send = _grpc(endpoint) if endpoint.protocol == "grpc" else _rest(endpoint)

    def probabilities(pixels: Pixels) -> FloatArray:
        batches = list(_requests({name: pixels[name] for name in segmenter.sensors}))
        with ThreadPoolExecutor(endpoint.max_in_flight) as pool:
            answers = list(pool.map(lambda batch: _with_tries(endpoint, send, batch), batches))
        return np.concatenate(answers)

    return probabilities


def check(endpoint: Endpoint, segmenter: Segmenter) -> None:
    """Refuse a server whose model does not take the bands of the card.

    Raises:
        DataError: the server is not there, has no such model or version, or the inputs
            of its model are others.
    """
    expected = {sensor: len(names) for sensor, names in segmenter.bands.items()}
    found = _retried(endpoint, lambda: _inputs(endpoint))
    if found != expected:
        raise DataError(
            f"{endpoint.name}: takes {_describe(found)}, but the card names "
            f"{_describe(expected)}: name the card of the served model",
            "bad_model",
        )


def _describe(inputs: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} of {count} bands" for name, count in sorted(inputs.items()))


def _inputs(endpoint: Endpoint) -> dict[str, int]:
    """Return input -> number of bands of the served model."""
    if endpoint.protocol == "rest":
        content = json.loads(_http(endpoint, f"{_url(endpoint)}/metadata", None))
        signatures = content["metadata"]["signature_def"]["signature_def"]
        return {
            name: int(one["tensor_shape"]["dim"][-1]["size"])
            for name, one in signatures[_SIGNATURE]["inputs"].items()
        }
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    _name_model(request, endpoint)
    answer = _stub(endpoint).GetModelMetadata(
        request, timeout=endpoint.timeout_seconds, metadata=_metadata()
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    return {
        name: int(one.tensor_shape.dim[-1].size)
        for name, one in signatures.signature_def[_SIGNATURE].inputs.items()
    }


def _requests(pixels: Pixels) -> Iterator[Pixels]:
    """Yield the windows of a batch, as many at a time as a request takes."""
    first = next(iter(pixels.values()))
    num_bytes = sum(values[0].nbytes for values in pixels.values()) if len(first) else 1
    together = max(1, _MAX_REQUEST_BYTES // num_bytes)
    for begin in range(0, max(len(first), 1), together):
        yield {name: values[begin : begin + together] for name, values in pixels.items()}


def _with_tries(endpoint: Endpoint, send: Send, pixels: Pixels) -> FloatArray:
    return _retried(endpoint, lambda: send(pixels))


def _retried(endpoint: Endpoint, ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns; ask again while the server is busy or away.

    Raises:
        DataError: it stays away, or refuses.
    """
    why = ""
    for attempt in range(NUM_TRIES):
        if attempt:
            time.sleep(_FIRST_PAUSE_SECONDS * math.pow(2, attempt - 1))
        try:
            return ask()
        except grpc.RpcError as error:
            why = f"{error.code().name}: {_one_line(error.details())}"
            if error.code() not in _PASSING:
                raise _refusal(endpoint, why) from error
        except _BusyError as error:
            why = str(error)
    raise DataError(
        f"{endpoint.name}: no answer in {NUM_TRIES} tries ({why}): start the server, or name "
        "another --host",
        "no_answer",
    )


def _refusal(endpoint: Endpoint, why: str) -> DataError:
    return DataError(
        f"{endpoint.name}: the server refuses ({why}): check the model, its version or label, and "
        "that it is loaded",
        "bad_model",
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())[:300]


def _grpc(endpoint: Endpoint) -> Send:
    def send(pixels: Pixels) -> FloatArray:
        request = predict_pb2.PredictRequest()
        _name_model(request, endpoint)
        request.model_spec.signature_name = _SIGNATURE
        # Only what is needed: labels would travel for nothing.
        request.output_filter.append("probabilities")
        for name, values in pixels.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(np.ascontiguousarray(values)))
        answer = _stub(endpoint).Predict(
            request, timeout=endpoint.timeout_seconds, metadata=_metadata()
        )
        return np.asarray(tf.make_ndarray(answer.outputs["probabilities"]))

    return send


def _name_model(request: Any, endpoint: Endpoint) -> None:
    request.model_spec.name = endpoint.model
    if endpoint.label:
        request.model_spec.version_label = endpoint.label
    elif endpoint.version is not None:
        request.model_spec.version.value = endpoint.version


@lru_cache(maxsize=4)
def _stub(endpoint: Endpoint) -> Any:
    """Return the client of an endpoint; a process keeps one connection."""
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]
    if not endpoint.is_encrypted:
        channel = grpc.insecure_channel(endpoint.host, options=options)
    else:
        trusted = None
        if endpoint.ca_file:
            with open(endpoint.ca_file, "rb") as file:
                trusted = file.read()
        channel = grpc.secure_channel(
            endpoint.host, grpc.ssl_channel_credentials(trusted), options=options
        )
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _metadata() -> list[tuple[str, str]]:
    token = os.environ.get(TOKEN_VARIABLE, "")
    return [("authorization", f"Bearer {token}")] if token else []


def _rest(endpoint: Endpoint) -> Send:
    def send(pixels: Pixels) -> FloatArray:
        # Python writes NaN as the word, which the server reads.
        body = json.dumps(
            {
                "signature_name": _SIGNATURE,
                "inputs": {name: values.tolist() for name, values in pixels.items()},
            }
        )
        answer = json.loads(_http(endpoint, f"{_url(endpoint)}:predict", body.encode()))
        return np.asarray(answer["outputs"]["probabilities"], np.float32)

    return send


def _url(endpoint: Endpoint) -> str:
    scheme = "https" if endpoint.is_encrypted else "http"
    url = f"{scheme}://{endpoint.host}/v1/models/{endpoint.model}"
    if endpoint.label:
        return f"{url}/labels/{endpoint.label}"
    return url if endpoint.version is None else f"{url}/versions/{endpoint.version}"


def _http(endpoint: Endpoint, url: str, body: bytes | None) -> bytes:
    """Return the body of an answer.

    Raises:
        _BusyError: the server is away or overloaded.
        DataError: the server refuses.
    """
    headers = {"Content-Type": "application/json", **dict(_metadata())}
    request = urllib.request.Request(url, body, headers)
    context = None
    if endpoint.is_encrypted:
        context = ssl.create_default_context(cafile=endpoint.ca_file or None)
    try:
        with urllib.request.urlopen(
            request, timeout=endpoint.timeout_seconds, context=context
        ) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        why = f"HTTP {error.code}: {_one_line(error.read().decode(errors='replace'))}"
        if error.code in _PASSING_HTTP:
            raise _BusyError(why) from error
        raise _refusal(endpoint, why) from error
    except OSError as error:
        raise _BusyError(_one_line(str(error))) from error
