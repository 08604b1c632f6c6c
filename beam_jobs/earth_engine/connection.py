"""Connection to Earth Engine: which project, which server, whose credentials. Made in `__main__` from the environment.

Input: project, URL and token. Output: an initialized `ee` client in this process, and Earth Engine's errors as ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
STANDARD_URL = "https://earthengine.googleapis.com"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where requests go and who pays. Pickles, so that Beam workers connect by themselves.

    Attributes:
        project: Google Cloud project that is registered for Earth Engine.
        url: server; None = Google's, the high-volume endpoint for `purpose` fetch and the standard one for export.
        token: access token; None = the credentials that `earthengine authenticate` saved.
        purpose: what the connection is for.
        deadline_s: seconds after which a request without an answer is a timeout.
    """

    project: str
    url: str | None = None
    token: str | None = None
    purpose: Literal["fetch", "export"] = "fetch"
    deadline_s: float = 120.0

    @property
    def server(self) -> str:
        """URL that requests go to."""
        if self.url is not None:
            return self.url
        return HIGH_VOLUME_URL if self.purpose == "fetch" else STANDARD_URL


def from_environment(environment: Mapping[str, str], purpose: Literal["fetch", "export"]) -> Connection:
    """The connection that the environment describes; only `__main__` calls this.

    EARTHENGINE_PROJECT or GOOGLE_CLOUD_PROJECT names the project; TERRAPAIR_EE_URL and TERRAPAIR_EE_TOKEN, both optional,
    another server (the emulator) and a token for it.

    Raises:
        EarthEngineError: reason no_credentials; no project is named.
    """
    raise NotImplementedError


def connect(connection: Connection) -> None:
    """Initializes `ee` in this process; the same connection again does nothing, another one replaces the first.

    The client's own retries are off: jobs retry, so that the ledger sees every failure.

    Raises:
        EarthEngineError: reason no_credentials, with the command to run, when credentials are missing or expired; others
            when the server does not answer.
    """
    raise NotImplementedError
