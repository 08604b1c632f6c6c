"""Endpoints: the address of a served model, and why a server gives no answer.

Input: options of `predict-remote`. Output: Endpoint, the errors of one line that its
clients `grpc_client` and `rest_client` raise, and Served, what they find out.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from tensorflow_serving.apis import get_model_metadata_pb2

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict.blending import Pixels

TOKEN_VARIABLE = "TERRAPAIR_SERVING_TOKEN"
"""Environment variable with an access token, on the driver and on each worker."""
SIGNATURE = "serving_default"
OUTPUT = "probabilities"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address of a served model, and how requests are sent.

    Attributes:
        host: host and port.
        model: name of the model on the server.
        label: version label; "" = the server's default, or `version`.
        version: number of the version; None = the server's default, or `label`.
        protocol: "grpc" and "rest" are TensorFlow Serving's; "kserve" is version 1 of
            KServe's protocol, as KServe's own Python server speaks it.
        is_encrypted: use TLS.
        ca_file: certificates that are trusted, PEM; "" = those of the system.
        timeout_seconds: longest time of one request.
        retry_seconds: how long a server is waited for that is away or overloaded.
        max_in_flight: requests that one worker process sends at a time.
        max_request_mib: largest request, in MiB of pixels, if it holds several windows;
            a larger window goes alone.
    """

    host: str
    model: str
    label: str = ""
    version: int | None = None
    protocol: Literal["grpc", "rest", "kserve"] = "grpc"
    is_encrypted: bool = False
    ca_file: str = ""
    timeout_seconds: float = 60.0
    retry_seconds: float = 60.0
    max_in_flight: int = 2
    max_request_mib: float = 32.0

    def __post_init__(self) -> None:
        if "://" in self.host or "/" in self.host:
            raise ValueError(
                f"host must be a host and a port, such as 127.0.0.1:8500, got {self.host!r}"
            )
        if self.label and self.version is not None:
            raise ValueError(
                f"a label and a version exclude each other, got {self.label!r} and {self.version}"
            )
        if self.protocol == "kserve" and (self.label or self.version is not None):
            raise ValueError(
                "protocol kserve knows no label and no version: name neither, got "
                f"{self.label or self.version!r}"
            )
        if self.ca_file and not self.is_encrypted:
            raise ValueError(f"ca_file is for TLS only: use --tls too, got {self.ca_file!r}")
        for name in ("timeout_seconds", "max_in_flight", "max_request_mib"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")
        if self.retry_seconds < 0:
            raise ValueError(f"retry_seconds must be at least 0, got {self.retry_seconds:g}")

    @property
    def name(self) -> str:
        """Model and version in messages."""
        wanted = self.label or ("" if self.version is None else str(self.version))
        return f"{self.host}: model {self.model!r}" + (f" ({wanted})" if wanted else "")

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Metadata of a gRPC request, or headers of an HTTP one: the access token."""
        token = os.environ.get(TOKEN_VARIABLE, "")
        return [("authorization", f"Bearer {token}")] if token else []

    def trusted(self) -> bytes | None:
        """Return the trusted certificates, None = those of the system.

        Raises:
            OptionError: the file cannot be read, or holds none.
        """
        if not self.ca_file:
            return None
        try:
            ssl.create_default_context(cafile=self.ca_file)
            with open(self.ca_file, "rb") as file:
                return file.read()
        except OSError as error:  # Also of the module ssl.
            raise OptionError(
                f"{self.ca_file}: must hold certificates as PEM, but cannot be read "
                f"({one_line(str(error))}): name another --ca-file"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model as its server describes it.

    Attributes:
        version: number of the version that answers; None = the server does not tell.
        bands: input -> number of bands; None = the server does not tell.
        num_classes: of the answer; None = the server does not tell.
    """

    version: int | None = None
    bands: Mapping[str, int] | None = None
    num_classes: int | None = None


class Client(Protocol):
    """Asks the server of one endpoint.

    Both functions raise BusyError if another try may help, and a DataError if not.
    """

    def predict(self, pixels: Pixels) -> FloatArray:
        """Return probabilities float32 [B, H, W, K] of pixels [B, H, W, C]."""

    def served(self) -> Served:
        """Return what the server says of the model that answers."""


class BusyError(Exception):
    """The server is away, overloaded or still loading: another try may help."""


class ServerError(DataError):
    """The server gives no answer. A later run may get one."""

    exit_code = ExitCode.CRASH

    def __init__(self, message: str) -> None:
        super().__init__(message, "bad_model")

    def __reduce__(self) -> tuple[type[ServerError], tuple[str]]:
        return type(self), (str(self),)


class OptionError(ServerError):
    """Another option mends it."""

    exit_code = ExitCode.USAGE


def described(
    endpoint: Endpoint, version: int, signatures: get_model_metadata_pb2.SignatureDefMap
) -> Served:
    """Return what the signatures of a model say.

    Raises:
        DataError: it is no segmenter.
    """
    known = signatures.signature_def
    if SIGNATURE not in known or OUTPUT not in known[SIGNATURE].outputs:
        names = ", ".join(sorted(name for name in known if not name.startswith("__"))) or "none"
        raise DataError(
            f"{endpoint.name}: must be a segmenter, which makes maps, with the signature "
            f"{SIGNATURE!r} and its output {OUTPUT!r}; signatures of this model: {names}. Name "
            "another --model",
            "bad_model",
        )
    size = known[SIGNATURE].outputs[OUTPUT].tensor_shape.dim
    return Served(
        version=version or None,
        bands={
            name: int(one.tensor_shape.dim[-1].size) if one.tensor_shape.dim else 0
            for name, one in known[SIGNATURE].inputs.items()
        },
        num_classes=int(size[-1].size) if size and size[-1].size > 0 else None,
    )


def refusal(endpoint: Endpoint, why: str) -> DataError:
    """Return the error for a server that has no such model, or refuses the pixels."""
    return DataError(
        f"{endpoint.name}: the server refuses ({why}): check the model, its version or label, and "
        "that it is loaded",
        "bad_model",
    )


def not_allowed(endpoint: Endpoint, why: str) -> OptionError:
    """Return the error for a missing or wrong access token."""
    return OptionError(
        f"{endpoint.name}: the server does not let us in ({why}): set {TOKEN_VARIABLE} to a valid "
        "access token"
    )


def not_trusted(endpoint: Endpoint, why: str) -> OptionError:
    """Return the error for a certificate that is not trusted, or of another host."""
    return OptionError(
        f"{endpoint.name}: no encrypted connection ({why}): name the certificate that signed the "
        "server's by --ca-file, and in --host the name that the certificate has"
    )


def too_large(endpoint: Endpoint, pixels: Pixels, why: str) -> OptionError:
    """Return the error for a request or an answer above a limit of the way."""
    first = next(iter(pixels.values()))
    size = sum(values.nbytes for values in pixels.values())
    cure = (
        "a smaller --max-request-mib"
        if len(first) > 1
        else f"smaller windows (--set window.size_px, now {max(first.shape[1:3])})"
    )
    return OptionError(
        f"{endpoint.name}: a request of {len(first)} windows and {size / (1 << 20):.1f} MiB of "
        f"pixels, or its answer, is too large ({why}): use {cure}, or raise the limit of the "
        "server or of the proxy before it"
    )


def too_slow(endpoint: Endpoint) -> ServerError:
    """Return the error for a request that ran out of time."""
    return ServerError(
        f"{endpoint.name}: no answer within {endpoint.timeout_seconds:g} s: raise --timeout, or "
        "lower --max-in-flight or --max-request-mib; the same command goes on where it stopped"
    )


def one_line(text: str | None) -> str:
    """Return a server's words in one line of bounded length."""
    return " ".join((text or "").split())[:300]
