"""Retries inside a node: transient faults of stores and databases pass with time.

A scheduler of pods cannot be trusted with them: it does not always try a program again
that failed, and a new pod starts from nothing. Any other error is raised at once.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from beam_jobs.contracts.object_store import UnreachableStoreError
from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError
from beam_jobs.terminal import failures
from pipeline.metadata_store import UnreachableDatabaseError

T = TypeVar("T")

_TRANSIENT_REASONS: tuple[Reason, ...] = (
    "connection",
    "no_answer",
    "quota_exceeded",
    "server_error",
    "timeout",
    "truncated",
)
_TRANSIENT_ERRNOS = (
    errno.EAGAIN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
)
_TRANSIENT_NAMES = (
    # TensorFlow's, of a store; the second half is ML Metadata's, of its database.
    "tensorflow.python.framework.errors_impl.AbortedError",
    "tensorflow.python.framework.errors_impl.DeadlineExceededError",
    "tensorflow.python.framework.errors_impl.UnavailableError",
    "ml_metadata.errors.AbortedError",
    "ml_metadata.errors.InternalError",
    "ml_metadata.errors.UnavailableError",
    "botocore.exceptions.ConnectTimeoutError",
    "botocore.exceptions.EndpointConnectionError",
    "botocore.exceptions.ReadTimeoutError",
)
"""Classes of libraries that must not be imported for their names alone."""
_NAMES_IN_TEXT = (
    *(name.rpartition(".")[2] for name in _TRANSIENT_NAMES),
    *("BrokenPipeError", "ConnectionError", "ConnectionRefusedError", "ConnectionResetError"),
    *("TimeoutError", "UnreachableStoreError"),
)
_IS_LAST = "is_last_of_retries"
"""Attribute of an error with which `retried` gave up."""
_RAISED = re.compile(r"^(?:RuntimeError: )*(?P<name>[A-Za-z_][\w.]*): ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """How often a node tries again after a transient fault, and how long it waits.

    Attributes:
        num_retries: after the first try; 0 = none.
        first_wait_seconds: before the first of them; each further wait is twice as
            long.
        longest_wait_seconds: limit of a wait.
    """

    num_retries: int = 5
    first_wait_seconds: float = 2.0
    longest_wait_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.num_retries < 0:
            raise ValueError(f"num_retries must be at least 0, got {self.num_retries}")
        if not 0 <= self.first_wait_seconds <= self.longest_wait_seconds:
            raise ValueError(
                "first_wait_seconds must be within 0 and longest_wait_seconds "
                f"{self.longest_wait_seconds:g}, got {self.first_wait_seconds:g}"
            )

    def waits(self) -> Iterator[float]:
        """Yield the seconds before each retry."""
        for number in range(self.num_retries):
            yield min(self.longest_wait_seconds, self.first_wait_seconds * 2.0**number)


def is_transient(error: BaseException) -> bool:
    """Return whether the same work may succeed a moment later.

    The error with which `retried` gave up is not transient any more.
    """
    if getattr(error, _IS_LAST, False):
        return False
    if isinstance(error, (UnreachableStoreError, UnreachableDatabaseError)):
        return True
    if isinstance(error, DataError):
        return error.reason in _TRANSIENT_REASONS
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError):
        return error.errno in _TRANSIENT_ERRNOS
    if f"{type(error).__module__}.{type(error).__qualname__}" in _TRANSIENT_NAMES:
        return True
    if not isinstance(error, RuntimeError):
        return False
    # Beam reports what a step raised as text.
    names = [match["name"].rpartition(".")[2] for match in _RAISED.finditer(str(error))]
    return bool(names) and names[-1] in _NAMES_IN_TEXT


def retried(
    work: Callable[[], T],
    config: RetryConfig,
    what: str,
    on_notice: Callable[[str, bool], None],
) -> T:
    """Return what `work` returns; try again after a transient fault.

    Args:
        work: what is done; it must stand being done twice.
        config: how often, and how long to wait.
        what: what is done, for the notice.
        on_notice: called with one line for each retry, and True for a warning.

    Raises:
        Exception: any other fault, or the last one when the retries are used up.
    """
    for number, wait in enumerate(config.waits(), start=1):
        try:
            return work()
        except Exception as error:
            if not is_transient(error):
                raise
            reason = failures.failure_of(error).message
            on_notice(
                f"{what}: {reason}; retry {number} of {config.num_retries} in {wait:g} s", True
            )
        time.sleep(wait)
    try:
        return work()
    except Exception as error:
        # Otherwise a retry around this one would begin all of them anew.
        setattr(error, _IS_LAST, True)
        raise
