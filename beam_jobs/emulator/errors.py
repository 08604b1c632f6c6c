"""RequestError: the emulator's error answer, in Google's JSON."""

from __future__ import annotations

from typing import Any

# Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class RequestError(Exception):
    """An HTTP status with a message.

    Attributes:
        status: HTTP status.
        body: what is sent as JSON.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def body(self) -> dict[str, Any]:
        """The error in Google's form."""
        name = _STATUS_NAMES.get(self.status, "UNKNOWN")
        return {"error": {"code": self.status, "message": str(self), "status": name}}
