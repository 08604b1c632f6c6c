"""Errors of the data jobs: one line with the file, the rule and the value."""

from __future__ import annotations

from typing import Any

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.reasons import Reason

_EXIT_CODES: dict[Reason, ExitCode] = {
    # What another option or setting mends.
    "no_credentials": ExitCode.USAGE,
    "other_config": ExitCode.USAGE,
    "too_large": ExitCode.USAGE,
    "version_exists": ExitCode.USAGE,
    # What stopped a job whose input may be good: it can run again later.
    "connection": ExitCode.CRASH,
    "folder_in_use": ExitCode.CRASH,
    "input_changed": ExitCode.CRASH,
    "interrupted": ExitCode.CRASH,
    "no_answer": ExitCode.CRASH,
    "not_run": ExitCode.CRASH,
    "orphaned": ExitCode.CRASH,
    "quota_exceeded": ExitCode.CRASH,
    "quota_exhausted": ExitCode.CRASH,
    "refused": ExitCode.CRASH,
    "server_error": ExitCode.CRASH,
    "stopped": ExitCode.CRASH,
    "timeout": ExitCode.CRASH,
    "truncated": ExitCode.CRASH,
}
"""Reason -> exit code, where bad data is not the cause."""


class DataError(TerrapairError, ValueError):
    """Input breaks a rule: a catalog, a raster, a label, or an output that exists.

    Attributes:
        reason: machine-readable name of the rule, as in `rejected/*.ndjson`.
    """

    exit_code = ExitCode.BAD_DATA

    def __init__(self, message: str, reason: Reason = "bad_input") -> None:
        # Ids, paths and values of a catalog may hold line breaks.
        super().__init__(" ".join(message.splitlines()))
        self.reason = reason
        self.exit_code = _EXIT_CODES.get(reason, type(self).exit_code)

    def __reduce__(self) -> tuple[type[DataError], tuple[Any, ...]]:
        # Beam workers send exceptions as pickles, which would otherwise lose the
        # reason.
        return type(self), (str(self), self.reason)


class RefusedError(DataError):
    """A gate refuses the result: train and test overlap, or a model is too weak."""

    exit_code = ExitCode.REFUSED


class NothingNewError(DataError):
    """All input was used before, so there is nothing to build."""

    exit_code = ExitCode.NOTHING_NEW
