"""EarthEngineError: what went wrong with a request, and whether asking again can help. Knows nothing of `ee`.

Input: HTTP status and message of the server, or what the network raised. Output: an
error with a reason that ledgers keep.
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
help. truncated: the answer is no whole GeoTIFF of what was asked. refused: any other
4xx."""

RETRIABLE: frozenset[Reason] = frozenset(
    {"quota_exceeded", "server_error", "timeout", "connection", "truncated"}
)
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


# Substrings of Earth Engine's messages, lower case. Sources: google/Xee issues 50 and
# 85 (sizes); the warning that earthengine-api 1.7 gives for a project in restricted
# mode (compute quota).
_EXHAUSTED_SIGNS = ("compute quota", "noncommercial", "eecu", "monthly", "per month")
_SIZE_SIGNS = (
    "must be less than or equal to",
    "memory limit exceeded",
    "payload size exceeds",
    "too many pixels",
)


def from_status(what: str, status: int, message: str) -> EarthEngineError:
    """The error of an HTTP answer; where one status has several causes the server's message decides.

    Args:
        what: what was asked for, to begin the line with.
        status: HTTP status, 400 or above.
        message: the server's.
    """
    lower = message.lower()
    reason: Reason
    if status == 401:
        return no_credentials(f"Earth Engine refused the credentials ({message})", status)
    if status == 429 or "quota" in lower or "too many concurrent" in lower:
        reason = (
            "quota_exhausted"
            if any(sign in lower for sign in _EXHAUSTED_SIGNS)
            else "quota_exceeded"
        )
    elif status >= 500:
        reason = "server_error"
    elif "timed out" in lower or status == 408:
        reason = "timeout"
    elif status == 413 or any(sign in lower for sign in _SIZE_SIGNS):
        reason = "too_large"
    elif status == 404 or ("not found" in lower and "asset" in lower):
        reason = "not_found"
    else:
        reason = "refused"
    return EarthEngineError(f"{what}: Earth Engine answered {status}: {message}", reason, status)


def no_credentials(cause: str, status: int | None = None) -> EarthEngineError:
    """The error of missing or expired credentials, with what to run."""
    return EarthEngineError(
        f"{cause}: run `earthengine authenticate` and set GOOGLE_CLOUD_PROJECT to a project registered for Earth Engine",
        "no_credentials",
        status,
    )
