"""ProbeReport: all checks of an encoder; it is blessed when all of them passed.

An untrained control is never blessed.

Input: the checks of `probe.py`. Output: JSON, and the report read back from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from beam_jobs.contracts import settings


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: name, such as "recall_s1_to_s2" or "accuracy_s2_over_last".
        value: measured value; in a comparison, the difference.
        asked: least value that passes; in a comparison, least `high` that passes.
        low: lower end of the bootstrap interval of a comparison; None without an
            interval.
        high: upper end of the interval.
        passed: whether it passed.
        judged: False: the data are too few to tell, so the check passes.
        reason: the result in one sentence.
    """

    name: str
    value: float
    asked: float
    low: float | None = None
    high: float | None = None
    passed: bool
    reason: str
    judged: bool = True


def failed_check(name: str, reason: str) -> Check:
    """Return a check without a measured value that refuses the encoder."""
    return Check(name=name, value=0.0, asked=1.0, passed=False, reason=reason)


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """All checks of one encoder.

    Attributes:
        encoder: SavedModel that was probed.
        last_encoder: published SavedModel to compare with; empty: there is none.
        labels: task whose labels were used; empty: none.
        num_pairs: number of eval pairs that were embedded.
        num_train_patches: number of labelled patches to fit the linear probe on.
        num_eval_patches: number of labelled patches to score it on.
        checks: checks in the order in which they were made.
        notes: what was left out, and why, one sentence each.
        is_control: whether the encoder is untrained (objective "none"). Such a control
            is never published; tasks may train on it when every check passed.
    """

    encoder: str
    last_encoder: str
    labels: str
    num_pairs: int
    num_train_patches: int
    num_eval_patches: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    is_control: bool = False

    def __post_init__(self) -> None:
        # An empty list would bless the encoder.
        if not self.checks:
            raise ValueError("checks must hold at least one check, got none")

    @property
    def refusals(self) -> tuple[str, ...]:
        """Reasons of the checks that failed."""
        return tuple(check.reason for check in self.checks if not check.passed)

    @property
    def is_blessed(self) -> bool:
        """Whether the encoder may be published: trained, and every check passed."""
        return not self.refusals and not self.is_control

    def to_json(self) -> str:
        """Return indented JSON with sorted keys.

        It also holds `is_blessed` and `refusals`, for readers that do not know the
        rules.
        """
        values = {
            **settings.to_dict(self),
            "is_blessed": self.is_blessed,
            "refusals": self.refusals,
        }
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> ProbeReport:
    """Return the report that `ProbeReport.to_json` wrote."""
    values = json.loads(text)
    # Both are computed from the checks.
    for name in ("is_blessed", "refusals"):
        values.pop(name, None)
    return settings.from_dict(ProbeReport, values, "probe")
