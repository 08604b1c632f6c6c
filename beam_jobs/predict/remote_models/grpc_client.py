"""A client of TensorFlow Serving by gRPC: pixels -> probabilities.

Source: tensorflow_serving/apis/prediction_service.proto and model_service.proto.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict.blending import Pixels
from beam_jobs.predict.remote_models import endpoints
from beam_jobs.predict.remote_models.endpoints import BusyError, Endpoint, Served

_MAX_MESSAGE_BYTES = (1 << 31) - 1
"""Largest message that is sent or taken. By default, gRPC's clients refuse 4 MiB.

Source: GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH; model_servers/server.cc sets the same.
"""
_MAX_PAUSE_MS = 2000
"""Longest pause before a lost connection is tried again; gRPC's default is 120 s."""
_CODE = grpc.StatusCode
_State = get_model_status_pb2.ModelVersionStatus.State
_NOT_TRUSTED = ("TSI_PROTOCOL_FAILURE", "peer certificate")
"""Words of gRPC for a handshake that fails, and for a certificate of another host."""
_LOADING = (_State.START, _State.LOADING)


class GrpcClient:
    """Asks one endpoint. It keeps one connection, which threads may share."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", _MAX_PAUSE_MS),
        ]
        if endpoint.is_encrypted:
            trusted = grpc.ssl_channel_credentials(endpoint.trusted())
            channel = grpc.secure_channel(endpoint.host, trusted, options=options)
        else:
            channel = grpc.insecure_channel(endpoint.host, options=options)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, pixels: Pixels) -> FloatArray:
        """Return the probabilities of pixels; see `endpoints.Client`."""
        request = predict_pb2.PredictRequest()
        self._name_model(request.model_spec)
        request.model_spec.signature_name = endpoints.SIGNATURE
        # Only what is needed: labels would travel for nothing.
        request.output_filter.append(endpoints.OUTPUT)
        for name, values in pixels.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(np.ascontiguousarray(values)))
        answer = self._ask(self._predictions.Predict, request, pixels)
        return np.asarray(tf.make_ndarray(answer.outputs[endpoints.OUTPUT]))

    def served(self) -> Served:
        """Return what the server says of the model; see `endpoints.Client`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._name_model(request.model_spec)
        answer = self._ask(self._predictions.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return endpoints.described(self._endpoint, int(answer.model_spec.version.value), signatures)

    def _ask(self, method: Callable[..., Any], request: Any, pixels: Pixels | None = None) -> Any:
        endpoint = self._endpoint
        try:
            return method(request, timeout=endpoint.timeout_seconds, metadata=endpoint.metadata)
        except grpc.RpcError as error:
            code, why = error.code(), endpoints.one_line(error.details())
            raise self._error(code, f"{code.name}: {why}", pixels) from error

    def _error(self, code: grpc.StatusCode, why: str, pixels: Pixels | None) -> Exception:
        endpoint = self._endpoint
        # Both sides of gRPC use this code and these words for messages above a limit.
        # Source: grpc/src/core/ext/filters/message_size.
        if code is _CODE.RESOURCE_EXHAUSTED and "message larger than max" in why and pixels:
            return endpoints.too_large(endpoint, pixels, why)
        if endpoint.is_encrypted and any(word in why for word in _NOT_TRUSTED):
            return endpoints.not_trusted(endpoint, why)
        if code in (_CODE.UNAVAILABLE, _CODE.RESOURCE_EXHAUSTED):
            return BusyError(why)
        if code is _CODE.DEADLINE_EXCEEDED:
            return endpoints.too_slow(endpoint)
        if code in (_CODE.UNAUTHENTICATED, _CODE.PERMISSION_DENIED):
            return endpoints.not_allowed(endpoint, why)
        if code is _CODE.NOT_FOUND:
            states = self._states()
            if any(state in _LOADING for state in states.values()):
                return BusyError(f"{why}; {_listed(states)}")
            return endpoints.refusal(endpoint, f"{why}; {_listed(states)}")
        return endpoints.refusal(endpoint, why)

    def _states(self) -> dict[int, int]:
        """Return version -> state; empty = the server knows none."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._endpoint.model
        try:
            answer = self._models.GetModelStatus(
                request,
                timeout=self._endpoint.timeout_seconds,
                metadata=self._endpoint.metadata,
            )
        except grpc.RpcError:
            return {}
        return {int(one.version): one.state for one in answer.model_version_status}

    def _name_model(self, spec: Any) -> None:
        spec.name = self._endpoint.model
        if self._endpoint.label:
            spec.version_label = self._endpoint.label
        elif self._endpoint.version is not None:
            spec.version.value = self._endpoint.version


def _listed(states: dict[int, int]) -> str:
    known = ", ".join(f"{number} {_State.Name(state)}" for number, state in sorted(states.items()))
    return f"versions on the server: {known or 'none'}"
