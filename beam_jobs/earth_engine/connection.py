"""Connection to Earth Engine: which project, which server, whose credentials.

Input: project, URL and where the token is. Output: an initialized `ee` client in this
process. It also turns errors of the client into `EarthEngineError`.

A connection holds no secret, since it travels to Beam workers: runners write the graph
of a job to a bucket, and show it on web pages. Each process reads the token from its
own environment, or from a file that its machine has.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import google.auth.exceptions
from google.oauth2.credentials import Credentials

from beam_jobs.earth_engine import errors
from beam_jobs.earth_engine.client import ee

Purpose = Literal["fetch", "export"]
TokenPlace = Literal["saved", "environment", "file"]

HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
STANDARD_URL = "https://earthengine.googleapis.com"
TOKEN_VARIABLE = "TERRAPAIR_EE_TOKEN"
"""Environment variable of an access token, on the driver and on each worker."""
TOKEN_FILE_VARIABLE = "TERRAPAIR_EE_TOKEN_FILE"
"""Environment variable of a file that holds one, such as a mounted secret."""
_CONNECT_RETRIES = 1
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where requests go and which project pays; it pickles, for Beam workers.

    Attributes:
        project: Google Cloud project that is registered for Earth Engine.
        url: server; None = Google's: the high-volume endpoint if `purpose` is fetch,
            the standard one if it is export.
        token_from: where each process finds its access token; see `read_token`. The
            default takes the credentials that `earthengine authenticate` saved.
        token_file: file of the token if `token_from` is file; the path is the same on
            every machine.
        purpose: what the connection is for.
        deadline_s: a request without an answer after so many seconds is a timeout.
    """

    project: str
    url: str | None = None
    token_from: TokenPlace = "saved"
    token_file: str = ""
    purpose: Purpose = "fetch"
    deadline_s: float = 120.0

    @property
    def server(self) -> str:
        """URL that requests go to."""
        if self.url is not None:
            return self.url
        return HIGH_VOLUME_URL if self.purpose == "fetch" else STANDARD_URL


def from_environment(environment: Mapping[str, str], purpose: Purpose) -> Connection:
    """Return the connection that the environment describes; for `__main__` only.

    EARTHENGINE_PROJECT or GOOGLE_CLOUD_PROJECT names the project. TERRAPAIR_EE_URL is
    optional: another server (the emulator). So are TERRAPAIR_EE_TOKEN, an access token,
    and TERRAPAIR_EE_TOKEN_FILE, a file with one, which goes first.

    Raises:
        EarthEngineError: reason no_credentials; no project is named.
    """
    project = environment.get("EARTHENGINE_PROJECT") or environment.get("GOOGLE_CLOUD_PROJECT")
    if not project:
        raise errors.no_credentials(
            "neither EARTHENGINE_PROJECT nor GOOGLE_CLOUD_PROJECT names a project"
        )
    token_file = environment.get(TOKEN_FILE_VARIABLE, "")
    token_from: TokenPlace = "environment" if environment.get(TOKEN_VARIABLE) else "saved"
    return Connection(
        project=project,
        url=environment.get("TERRAPAIR_EE_URL") or None,
        token_from="file" if token_file else token_from,
        token_file=os.path.abspath(token_file) if token_file else "",
        purpose=purpose,
    )


def read_token(connection: Connection) -> str | None:
    """Return the access token of this process; None = the saved credentials.

    Raises:
        EarthEngineError: reason no_credentials; the environment or the file of this
            process has no token.
    """
    if connection.token_from == "saved":
        return None
    if connection.token_from == "environment":
        token, where = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    else:
        where = connection.token_file
        try:
            token = Path(where).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.no_credentials(
                f"the token cannot be read on this machine ({_one_line(error)})"
            ) from error
    if not token:
        raise errors.no_credentials(
            f"{where} holds no token in this process: set it on every worker too"
        )
    return token


def connect(connection: Connection) -> None:
    """Initialize `ee` in this process.

    The same connection again does nothing; another one replaces the first. The client's
    own retries are off afterwards: jobs retry themselves, so that the ledger sees every
    failure.

    Raises:
        EarthEngineError: reason no_credentials, with the command to run, when
            credentials are missing or expired; other reasons when the server does not
            answer.
    """
    with _LOCK, translated(f"connecting to {connection.server}"):
        is_connected = False
        try:
            _initialize(connection, read_token(connection))
            is_connected = True
        finally:
            if not is_connected:
                # The attempt has already replaced the connection before it, so forget
                # that one too.
                _initialize.cache_clear()


# A process has one client, so one connection is remembered. A failed attempt is not.
@lru_cache(maxsize=1)
def _initialize(connection: Connection, token: str | None) -> None:
    credentials = "persistent" if token is None else Credentials(token=token)
    ee.Reset()
    ee.data.setMaxRetries(_CONNECT_RETRIES)
    ee.Initialize(credentials, url=connection.server, project=connection.project)
    ee.data.setDeadline(1000 * connection.deadline_s)
    ee.data.setMaxRetries(0)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever `ee` raises in the block into an EarthEngineError.

    Args:
        what: what is asked for; the message begins with it.

    Raises:
        EarthEngineError: see `RequestReason`.
    """
    try:
        yield
    except ee.EEException as error:
        # The client raises its own exception while it handles the HTTP one, and only
        # the HTTP one has the status.
        response = getattr(error.__context__, "resp", None)
        if response is not None:
            raise errors.from_status(what, int(response.status), _one_line(error)) from error
        if "authenticate" in str(error) or "no project found" in str(error):
            raise errors.no_credentials(
                "Earth Engine has no credentials on this machine"
            ) from error
        raise errors.EarthEngineError(f"{what}: {_one_line(error)}", "refused") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        # The client does not notice that a body ended early, but its parser fails.
        raise _truncated(what, error) from error
    except TypeError as error:
        # Newer releases of google-api-python-client return what is not JSON as text,
        # and the Earth Engine client then looks for a key in it.
        if "string indices" not in str(error):
            raise
        raise _truncated(what, error) from error
    except google.auth.exceptions.TransportError as error:
        raise errors.EarthEngineError(f"{what}: {_one_line(error)}", "connection") from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise errors.no_credentials(
            f"the credentials are missing or expired ({_one_line(error)})"
        ) from error
    except OSError as error:
        # ConnectionError, TimeoutError and the errors of `requests`. Only the message
        # says that a body ended before its declared length, or that it stopped coming.
        if "IncompleteRead" in str(error):
            raise _truncated(what, error) from error
        is_timeout = isinstance(error, TimeoutError) or "timed out" in str(error)
        raise errors.EarthEngineError(
            f"{what}: {_one_line(error)}", "timeout" if is_timeout else "connection"
        ) from error


def _truncated(what: str, error: Exception) -> errors.EarthEngineError:
    return errors.EarthEngineError(
        f"{what}: the answer is incomplete: {_one_line(error)}", "truncated"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
