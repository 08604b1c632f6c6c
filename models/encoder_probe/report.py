"""ProbeReport: every check of an encoder with its value, its bound and a sentence; blessed when all passed.

Made by `verdict.py`; written and read as JSON by `components/encoder_probe`; shown by
the pipeline's report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from beam_jobs.contracts import settings


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: e.g. "recall_s1_to_s2", "accuracy_s2_over_last".
        value: what was measured; of a comparison, the difference.
        asked: least value that passes; of a comparison, `high` must reach it.
        low: lower end of the bootstrap interval of a comparison; None where there is
            none.
        high: its upper end.
        passed: the outcome.
        judged: False = the data are too few to tell, and the check passes for that.
        reason: why, in one plain sentence.
    """

    name: str
    value: float
    asked: float
    low: float | None = None
    high: float | None = None
    passed: bool
    reason: str
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """All checks of one encoder.

    Attributes:
        encoder: SavedModel that was probed.
        last_encoder: published SavedModel that it was compared with; empty: none.
        labels: task whose labels were used; empty: none.
        num_pairs: pairs of the eval split that were embedded.
        num_train_patches: labelled patches that the linear probe was fitted on.
        num_eval_patches: labelled patches that it was scored on.
        checks: in the order in which they were made.
        notes: what was left out, and why; one sentence each.
    """

    encoder: str
    last_encoder: str
    labels: str
    num_pairs: int
    num_train_patches: int
    num_eval_patches: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # An empty list would bless.
        if not self.checks:
            raise ValueError("checks must hold at least one check, got none")

    @property
    def refusals(self) -> tuple[str, ...]:
        """Reasons of the checks that failed."""
        return tuple(check.reason for check in self.checks if not check.passed)

    @property
    def is_blessed(self) -> bool:
        """Whether every check passed."""
        return not self.refusals

    def to_json(self) -> str:
        """Indented JSON with sorted keys, and the outcome for readers that know no more."""
        values = {
            **settings.to_dict(self),
            "is_blessed": self.is_blessed,
            "refusals": self.refusals,
        }
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> ProbeReport:
    """The report of `ProbeReport.to_json`."""
    values = json.loads(text)
    # Both follow from the checks.
    for name in ("is_blessed", "refusals"):
        values.pop(name, None)
    return settings.from_dict(ProbeReport, values, "probe")
