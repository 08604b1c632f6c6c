"""Connection to Earth Engine: which project, which server, whose credentials.

Input: project, URL and token. Output: an initialized `ee` client in this process. It
also turns errors of the client into `EarthEngineError`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import google.auth.exceptions
from google.oauth2.credentials import Credentials

from beam_jobs.earth_engine import errors
from beam_jobs.earth_engine.client import ee

Purpose = Literal["fetch", "export"]

HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
STANDARD_URL = "https://earthengine.googleapis.com"
_CONNECT_RETRIES = 1
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where requests go and which project pays; it pickles, for Beam workers.

    Attributes:
        project: Google Cloud project that is registered for Earth Engine.
        url: server; None = Google's: the high-volume endpoint if `purpose` is fetch,
            the standard one if it is export.
        token: access token; None = the credentials that `earthengine authenticate`
            saved.
        purpose: what the connection is for.
        deadline_s: a request without an answer after so many seconds is a timeout.
    """

    project: str
    url: str | None = None
    token: str | None = None
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

    EARTHENGINE_PROJECT or GOOGLE_CLOUD_PROJECT names the project. TERRAPAIR_EE_URL and
    TERRAPAIR_EE_TOKEN are optional: another server (the emulator) and a token for it.

    Raises:
        EarthEngineError: reason no_credentials; no project is named.
    """
    project = environment.get("EARTHENGINE_PROJECT") or environment.get("GOOGLE_CLOUD_PROJECT")
    if not project:
        raise errors.no_credentials(
            "neither EARTHENGINE_PROJECT nor GOOGLE_CLOUD_PROJECT names a project"
        )
    return Connection(
        project=project,
        url=environment.get("TERRAPAIR_EE_URL") or None,
        token=environment.get("TERRAPAIR_EE_TOKEN") or None,
        purpose=purpose,
    )


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
            _initialize(connection)
            is_connected = True
        finally:
            if not is_connected:
                # The attempt has already replaced the connection before it, so forget
                # that one too.
                _initialize.cache_clear()


# A process has one client, so one connection is remembered. A failed attempt is not.
@lru_cache(maxsize=1)
def _initialize(connection: Connection) -> None:
    credentials = "persistent" if connection.token is None else Credentials(token=connection.token)
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
