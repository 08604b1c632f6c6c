"""A client of TensorFlow Serving and of KServe by REST: pixels -> probabilities.

Both take rows: {"instances": [{"s1": ...}, ...]} -> {"predictions": [...]}.
Source: https://www.tensorflow.org/tfx/serving/api_rest, and version 1 of KServe's
protocol, which has no versions in its addresses and describes no models.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

import numpy as np
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict.blending import Pixels
from beam_jobs.predict.remote_models import endpoints
from beam_jobs.predict.remote_models.endpoints import BusyError, Endpoint, Served

_PASSING = (429, 502, 503)
_TOO_SLOW = 504
_TOO_LARGE = 413
_NOT_ALLOWED = (401, 403)
_LOADING = ("START", "LOADING")


class RestClient:
    """Asks one endpoint. Each request has its own connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        scheme = "https" if endpoint.is_encrypted else "http"
        self._model_url = f"{scheme}://{endpoint.host}/v1/models/{endpoint.model}"
        self._url = self._model_url
        if endpoint.label:
            self._url += f"/labels/{endpoint.label}"
        elif endpoint.version is not None:
            self._url += f"/versions/{endpoint.version}"
        endpoint.trusted()
        self._context = (
            ssl.create_default_context(cafile=endpoint.ca_file or None)
            if endpoint.is_encrypted
            else None
        )

    def predict(self, pixels: Pixels) -> FloatArray:
        """Return the probabilities of pixels; see `endpoints.Client`."""
        count = len(next(iter(pixels.values())))
        rows = [
            {name: values[index].tolist() for name, values in pixels.items()}
            for index in range(count)
        ]
        content: dict[str, Any] = {"instances": rows}
        if self._endpoint.protocol == "rest":
            content["signature_name"] = endpoints.SIGNATURE
        # Python writes no data as the word NaN, which TensorFlow Serving reads. KServe
        # refuses the word, and its Python models make NaN of null.
        body = json.dumps(content)
        if self._endpoint.protocol == "kserve":
            body = body.replace("NaN", "null")
        answer = self._ask(f"{self._url}:predict", body.encode(), pixels)
        try:
            # A model with one output answers with its values alone.
            found = [
                row[endpoints.OUTPUT] if isinstance(row, dict) else row
                for row in answer["predictions"]
            ]
            return np.asarray(found, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise endpoints.refusal(
                self._endpoint, f"its answer has no {endpoints.OUTPUT!r}: {sorted(answer)}"
            ) from error

    def served(self) -> Served:
        """Return what the server says of the model; see `endpoints.Client`."""
        if self._endpoint.protocol == "kserve":
            state = self._ask(self._url)
            if not state.get("ready"):
                raise BusyError(f"the model is not ready: {endpoints.one_line(str(state))}")
            return Served()
        content = self._ask(f"{self._url}/metadata")
        try:
            signatures = json_format.ParseDict(
                content["metadata"]["signature_def"],
                get_model_metadata_pb2.SignatureDefMap(),
                ignore_unknown_fields=True,
            )
            version = int(content["model_spec"]["version"] or 0)
        except (KeyError, TypeError, ValueError, json_format.ParseError) as error:
            raise endpoints.refusal(
                self._endpoint, f"it describes no model: {endpoints.one_line(str(content))}"
            ) from error
        return endpoints.described(self._endpoint, version, signatures)

    def _ask(self, url: str, body: bytes | None = None, pixels: Pixels | None = None) -> Any:
        """Return the JSON document of an answer."""
        endpoint = self._endpoint
        headers = {"Content-Type": "application/json", **dict(endpoint.metadata)}
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(
                request, timeout=endpoint.timeout_seconds, context=self._context
            ) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {endpoints.one_line(error.read().decode(errors='replace'))}"
            raise self._error(error.code, why, pixels) from error
        except (http.client.HTTPException, OSError) as error:
            raise self._lost(error, len(body or b"")) from error
        try:
            return json.loads(text)
        except ValueError as error:
            start = endpoints.one_line(text[:60].decode(errors="replace"))
            raise endpoints.refusal(endpoint, f"it answers no JSON: {start}") from error

    def _error(self, code: int, why: str, pixels: Pixels | None) -> Exception:
        endpoint = self._endpoint
        if code in _PASSING:
            return BusyError(why)
        if code == _TOO_SLOW:
            return endpoints.too_slow(endpoint)
        if code in _NOT_ALLOWED:
            return endpoints.not_allowed(endpoint, why)
        if code == _TOO_LARGE and pixels:
            return endpoints.too_large(endpoint, pixels, why)
        if code == http.client.NOT_FOUND and endpoint.protocol == "rest":
            states = self._states()
            known = ", ".join(f"{number} {state}" for number, state in sorted(states.items()))
            why = f"{why}; versions on the server: {known or 'none'}"
            if not states:
                why += "; KServe's own server needs --protocol kserve"
            if any(state in _LOADING for state in states.values()):
                return BusyError(why)
        return endpoints.refusal(endpoint, why)

    def _states(self) -> dict[int, str]:
        """Return version -> state; empty = the server knows none."""
        request = urllib.request.Request(self._model_url, None, dict(self._endpoint.metadata))
        try:
            with urllib.request.urlopen(
                request, timeout=self._endpoint.timeout_seconds, context=self._context
            ) as answer:
                known = json.loads(answer.read())["model_version_status"]
            return {int(one["version"]): str(one["state"]) for one in known}
        except (http.client.HTTPException, OSError, ValueError, KeyError, TypeError):
            return {}

    def _lost(self, error: Exception, num_bytes: int) -> Exception:
        """Return the error for a connection that broke, or was never made."""
        why = getattr(error, "reason", None) or error
        if isinstance(why, ssl.SSLError):
            return endpoints.not_trusted(self._endpoint, endpoints.one_line(str(why)))
        if isinstance(why, TimeoutError):
            return endpoints.too_slow(self._endpoint)
        words = endpoints.one_line(f"{type(why).__name__}: {why}")
        # Some proxies close the connection without reading a body above their limit.
        if isinstance(why, BrokenPipeError | ConnectionResetError) and num_bytes > 1 << 20:
            words += f"; if {num_bytes >> 20} MiB are above a limit: a smaller --max-request-mib"
        return BusyError(words)
