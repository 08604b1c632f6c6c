"""Errors of the data jobs: one line with the file, the rule and the value."""

from __future__ import annotations

from typing import Any

from beam_jobs.contracts.errors import ExitCode, TerrapairError


class DataError(TerrapairError, ValueError):
    """Input breaks a rule: a catalog, a raster, a label, or an output that exists.

    Attributes:
        reason: machine-readable name of the rule, as in `rejected/*.ndjson`.
    """

    exit_code = ExitCode.BAD_DATA

    def __init__(self, message: str, reason: str = "bad_input") -> None:
        super().__init__(message)
        self.reason = reason

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
