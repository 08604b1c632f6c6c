"""DataError: bad input said in one line, with file, rule and value."""

from __future__ import annotations

from typing import Any

from beam_jobs.contracts.reasons import Reason


class DataError(ValueError):
    """Input that breaks a rule: a catalog, a raster, a label, an output that exists.

    Attributes:
        reason: machine-readable name of the rule, as in `rejected/*.ndjson`.
    """

    def __init__(self, message: str, reason: Reason = "bad_input") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DataError], tuple[Any, ...]]:
        # Beam workers send exceptions as pickles, which would otherwise lose the
        # reason.
        return DataError, (str(self), self.reason)
