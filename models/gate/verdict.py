"""Verdict: what the gate decided about a candidate, and why, with all numbers.

Input: the comparisons of `judgement.py`. Output: JSON, and the verdict read back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from beam_jobs.contracts import settings

Outcome = Literal["blessed", "refused", "in_service"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate and champion on the same patches.

    Attributes:
        name: slice, such as "all", "event=Ghana" or "class=water".
        metric: what was compared.
        candidate: value of the candidate, 0-1.
        champion: value of the champion, 0-1.
        low: lower end of the interval of the difference; None: not computed.
        high: upper end of it.
        margin: how much the candidate may lose.
        num_patches: patches that were compared.
        num_units: independent units among them.
        unit: what a unit is.
        passed: whether the loss is allowed.
        reason: the result in one sentence.
    """

    name: str
    metric: str
    candidate: float
    champion: float
    low: float | None
    high: float | None
    margin: float
    num_patches: int
    num_units: int
    unit: str
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision about one candidate.

    Attributes:
        outcome: "blessed": it may go into service. "in_service": it is there already.
        champion: folder of the version in service; "" = there was none.
        reasons: why it was refused, or what blesses it; one sentence each.
        comparisons: with the champion, the whole test first; empty without champion.
        notes: what could not be compared, and why; one sentence each.
        since: what was in service; see `models.publishing.labels.state_of`.
    """

    outcome: Outcome
    champion: str
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    since: str = ""

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("reasons must hold at least one sentence, got none")

    @property
    def is_blessed(self) -> bool:
        """Whether the Pusher may publish the candidate."""
        return self.outcome == "blessed"

    def to_json(self) -> str:
        """Return indented JSON with sorted keys."""
        values = settings.to_dict(self)
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> Verdict:
    """Return the verdict that `Verdict.to_json` wrote."""
    return settings.from_dict(Verdict, json.loads(text), "gate")
