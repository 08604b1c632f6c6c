"""Connection to Kubeflow Pipelines: address, credentials, TLS, and errors of one line.

Options and environment -> kfp's client. `Api.call` makes one request by it, and turns
whatever goes wrong into a KubeflowError that says what to do.
"""

from __future__ import annotations

import json
import os
import ssl
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.settings import SettingsError

ENDPOINT = "TERRAPAIR_KFP_ENDPOINT"
"""Environment variable with the address of the API."""
TOKEN = "TERRAPAIR_KFP_TOKEN"
"""Environment variable with a bearer token."""
TOKEN_FILE = "TERRAPAIR_KFP_TOKEN_FILE"
"""Environment variable with a file that holds a token, read anew for each request."""
COOKIE = "TERRAPAIR_KFP_COOKIE"
"""Environment variable with the cookie of a login, as `authservice_session=...`."""
_UNUSED = "unused"
_CREDENTIALS = f"{TOKEN}, {TOKEN_FILE} or {COOKIE}"
_MAX_CHARACTERS = 500
_OVERLOADED = 429
_NOT_ALLOWED = (401, 403)
_NOT_FOUND = 404
_SERVER_FAILED = 500


class KubeflowError(TerrapairError):
    """Kubeflow's API refuses, or gives no answer that helps; one line."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.CRASH) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class AwayError(KubeflowError):
    """The server is away, restarts or is overloaded: another try may help."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where Kubeflow's API is, and how it lets us in.

    Attributes:
        endpoint: URL; behind a Kubeflow dashboard it ends with `/pipeline`.
        namespace: of the user, on a server for several; "" on a server for one.
        token: bearer token; "" = none.
        token_file: file with a token that is renewed now and then; "" = none.
        cookie: of a login; "" = none.
        ca_file: certificates that are trusted, PEM; "" = those of the system.
        is_verified: whether the server's certificate is checked.
        timeout_s: longest wait for a connection, and for each answer.
    """

    endpoint: str
    namespace: str = ""
    token: str = ""
    token_file: str = ""
    cookie: str = ""
    ca_file: str = ""
    is_verified: bool = True
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.endpoint:
            raise ValueError(
                f"endpoint: none is given: set {ENDPOINT} or --endpoint to the URL of Kubeflow "
                "Pipelines, such as http://127.0.0.1:8888"
            )
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
            raise ValueError(
                "endpoint: must be an http:// or https:// URL without #, such as "
                f"https://kubeflow.example/pipeline, got {self.endpoint!r}"
            )
        ways = [name for name in ("token", "token_file", "cookie") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(
                f"credentials: set only one of {_CREDENTIALS}, got {' and '.join(ways)}"
            )
        for name, what in (("ca_file", "--ca-file"), ("token_file", TOKEN_FILE)):
            path = getattr(self, name)
            if path and not os.path.isfile(path):
                raise ValueError(f"{what}: there is no file {path}")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, got {self.timeout_s:g}")

    @property
    def url(self) -> str:
        """The endpoint without a slash at its end."""
        return self.endpoint.rstrip("/")


def connection_from(
    environment: Mapping[str, str], endpoint: str | None, **options: Any
) -> Connection:
    """Return the connection of an environment and of options.

    Args:
        environment: see `ENDPOINT`, `TOKEN`, `TOKEN_FILE`, `COOKIE`.
        endpoint: goes before that of the environment.
        options: other attributes of Connection.

    Raises:
        SettingsError: an address or a file is wrong, or there are two credentials.
    """
    try:
        return Connection(
            endpoint=endpoint or environment.get(ENDPOINT, ""),
            token=environment.get(TOKEN, "").strip(),
            token_file=environment.get(TOKEN_FILE, ""),
            cookie=environment.get(COOKIE, "").strip(),
            **options,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


class Api:
    """Makes the requests of one connection.

    Attributes:
        client: kfp's client. Its members `runs`, `experiments`, ... have one function
            for each request. Its own methods, such as `run_pipeline`, have no time-out,
            take a login page for an answer, and print.
    """

    def __init__(self, connection: Connection) -> None:
        """Make the client; nothing is requested yet.

        Raises:
            SettingsError: the certificates cannot be read.
        """
        import kfp.client

        self.connection = connection
        _check_certificates(connection.ca_file)
        credentials = (
            kfp.client.ServiceAccountTokenVolumeCredentials(path=connection.token_file)
            if connection.token_file
            else None
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client: Any = kfp.client.Client(
                host=connection.url,
                # Without a namespace, or with its default, the constructor would ask
                # for the server's health, five times within 25 s, with tracebacks.
                # The requests name namespaces themselves.
                namespace=_UNUSED,
                existing_token=connection.token or None,
                credentials=credentials,
                cookies=connection.cookie,
                ssl_ca_cert=connection.ca_file or None,
                verify_ssl=connection.is_verified,
            )

    def check(self) -> None:
        """Find out that Kubeflow answers and lets us in.

        Raises:
            KubeflowError: it does not, or it has several users and needs a namespace.
        """
        health = self.call(self.client.healthzs.healthz_service_get_healthz)
        if health.get("multi_user") and not self.connection.namespace:
            raise KubeflowError(
                f"{self.connection.url}: this Kubeflow has several users: name your namespace "
                "with --namespace",
                ExitCode.USAGE,
            )

    def call(
        self,
        function: Callable[..., Any],
        *values: Any,
        refused: ExitCode = ExitCode.USAGE,
        what: str = "",
        **arguments: Any,
    ) -> dict[str, Any]:
        """Make one request and return the JSON object of the answer.

        Args:
            function: of a member of `client`.
            values: of the function: the body of the request, which newer clients name
                otherwise.
            refused: exit code of the program if the server refuses what it gets.
            what: it gets, for the message, such as the name of a file.
            arguments: of the function.

        Raises:
            AwayError: the server cannot be reached, is too slow, or fails.
            KubeflowError: it lets us not in, refuses, or is no Kubeflow.
        """
        import kfp_server_api
        import urllib3.exceptions

        url, timeout_s = self.connection.url, self.connection.timeout_s
        try:
            response = function(
                *values,
                **arguments,
                _preload_content=False,
                _request_timeout=(timeout_s, timeout_s),
            )
        except kfp_server_api.ApiException as error:
            raise self._refusal(error.status, error.body, what, refused) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(error) from error
        except UnicodeDecodeError as error:
            raise self._other("a page that is no text") from error
        except OSError as error:
            raise KubeflowError(f"{url}: {error}") from error
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            kind = response.headers.get("content-type", "").partition(";")[0]
            raise self._other("HTML" if kind == "text/html" else f"{kind or 'nothing'}, not JSON")
        return answer

    def _refusal(
        self, status: int, body: str | None, what: str, refused: ExitCode
    ) -> KubeflowError:
        url = self.connection.url
        why = _words(body)
        if status in _NOT_ALLOWED:
            return KubeflowError(
                f"{url}: Kubeflow does not let us in (HTTP {status}{why and ': ' + why}): set "
                f"{_CREDENTIALS} to valid credentials, and --namespace to a namespace of yours",
                ExitCode.USAGE,
            )
        if status == _OVERLOADED or status >= _SERVER_FAILED:
            return AwayError(f"{url}: Kubeflow fails (HTTP {status}): {why or 'no reason given'}")
        if status == _NOT_FOUND and not why:
            return self._other("HTTP 404")
        return KubeflowError(
            f"{url}: Kubeflow refuses {what or 'this'} (HTTP {status}): {why or 'no reason given'}",
            refused,
        )

    def _no_answer(self, error: Exception) -> KubeflowError:
        """Return the error for a request without an answer."""
        import urllib3.exceptions

        url = self.connection.url
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError):
            return KubeflowError(
                f"{url}: no encrypted connection ({_short(reason)}): name the certificate that "
                "signed the server's by --ca-file, and in the URL the name that it has",
                ExitCode.USAGE,
            )
        # A connection that is refused is a time-out for urllib3, too.
        is_refused = isinstance(reason, urllib3.exceptions.NewConnectionError)
        if isinstance(reason, urllib3.exceptions.TimeoutError) and not is_refused:
            return AwayError(
                f"{url}: no answer within {self.connection.timeout_s:g} s: check that the address "
                "is right and that the API server runs"
            )
        return AwayError(
            f"{url}: cannot be reached ({_short(reason)}): check the address, and that the API "
            "server runs"
        )

    def _other(self, what: str) -> KubeflowError:
        return KubeflowError(
            f"{self.connection.url}: answers with {what}, so this is a login page or not the "
            f"address of Kubeflow's API: set one of {_CREDENTIALS}, or another --endpoint "
            "(behind a dashboard it ends with /pipeline)",
            ExitCode.USAGE,
        )


def _check_certificates(ca_file: str) -> None:
    """Refuse a file without certificates; urllib3 would call it a bad connection.

    Raises:
        SettingsError: it holds none.
    """
    if not ca_file:
        return
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # Also of the module ssl.
        raise SettingsError(
            f"--ca-file {ca_file}: must hold certificates as PEM ({error})"
        ) from error


def _words(body: str | None) -> str:
    """Return what the server says in the body of an error, "" if that is no JSON."""
    try:
        answer = json.loads(body or "")
    except ValueError:
        return ""
    if not isinstance(answer, dict):
        return ""
    # The details are for the user; `message` repeats them with where they arose.
    details = [
        str(one["message"])
        for one in answer.get("details", [])
        if isinstance(one, dict) and one.get("message")
    ]
    said = details or [str(answer.get("error_message") or answer.get("message") or "")]
    return " ".join(said[0].split())[:_MAX_CHARACTERS]


def _short(error: object) -> str:
    """Return an error of urllib3 without the connection that it names first."""
    return " ".join(str(error).rpartition("): ")[2].split())
