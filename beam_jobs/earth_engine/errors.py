"""EarthEngineError: what went wrong with a request, and whether a retry can help.

Input: HTTP status and message of the server, or an error of the network. Output: an
error with a reason that ledgers keep. Needs no `ee`.
"""

from __future__ import annotations

from beam_jobs.contracts.reasons import RequestReason
from beam_jobs.errors import DataError

RETRIABLE: frozenset[RequestReason] = frozenset(
    {"quota_exceeded", "server_error", "timeout", "connection", "truncated"}
)
"""Reasons for which the same request may succeed a little later."""


class EarthEngineError(DataError):
    """A request that Earth Engine did not answer as asked.

    Attributes:
        reason: one of `RequestReason`.
        status: HTTP status; None when no answer came or the answer was cut short.
    """

    reason: RequestReason

    def __init__(self, message: str, reason: RequestReason, status: int | None = None) -> None:
        super().__init__(message, reason)
        self.status = status

    @property
    def retriable(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.reason in RETRIABLE

    def __reduce__(self) -> tuple[type[EarthEngineError], tuple[str, RequestReason, int | None]]:
        return EarthEngineError, (str(self), self.reason, self.status)


# Substrings of Earth Engine's messages, lower case. Sources: google/Xee issues 50 and
# 85 (sizes); the warning of earthengine-api 1.7 for a project in restricted mode
# (compute quota).
_EXHAUSTED_SIGNS = ("compute quota", "noncommercial", "eecu", "monthly", "per month")
_SIZE_SIGNS = (
    "must be less than or equal to",
    "memory limit exceeded",
    "payload size exceeds",
    "too many pixels",
)


def from_status(what: str, status: int, message: str) -> EarthEngineError:
    """Return the error of an HTTP answer.

    Where one status has several causes, the server's message decides.

    Args:
        what: what was asked for; the message begins with it.
        status: HTTP status, 400 or above.
        message: the server's message.
    """
    lower = message.lower()
    reason: RequestReason
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
    """Return the error of missing or expired credentials, with the command to run."""
    return EarthEngineError(
        f"{cause}: run `earthengine authenticate` and set GOOGLE_CLOUD_PROJECT to a project "
        f"registered for Earth Engine",
        "no_credentials",
        status,
    )
