"""EarthEngineError: what went wrong with a request, and whether asking again can help. Knows nothing of `ee`.

Input: HTTP status and message of the server, or what the network raised. Output: an error with a reason that ledgers keep.
"""

from __future__ import annotations

from typing import Literal

from beam_jobs.errors import DataError

Reason = Literal[
    "quota_exceeded",
    "quota_exhausted",
    "server_error",
    "timeout",
    "connection",
    "truncated",
    "too_large",
    "not_found",
    "no_credentials",
    "refused",
]
"""quota_exceeded: too many requests just now (429). quota_exhausted: the compute of the month is used up; waiting does not
help. truncated: the answer is no whole GeoTIFF of what was asked. refused: any other 4xx."""

RETRIABLE: frozenset[Reason] = frozenset({"quota_exceeded", "server_error", "timeout", "connection", "truncated"})
"""Reasons for which the same request may succeed a little later."""


class EarthEngineError(DataError):
    """A request that Earth Engine did not answer as asked.

    Attributes:
        reason: one of `Reason`.
        status: HTTP status; None when no answer came or the answer was cut short.
    """

    reason: Reason

    def __init__(self, message: str, reason: Reason, status: int | None = None) -> None:
        super().__init__(message, reason)
        self.status = status

    @property
    def retriable(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.reason in RETRIABLE

    def __reduce__(self) -> tuple[type[EarthEngineError], tuple[str, Reason, int | None]]:
        return EarthEngineError, (str(self), self.reason, self.status)
