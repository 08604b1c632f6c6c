"""DriftReport: what differs between a new span and the reference, and the outcome.

Input: the findings of all comparisons. Output: JSON, and the report read back.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Literal

from beam_jobs.contracts import settings
from models.drift.config import SENSOR_RULES, Rule, Severity

Outcome = Literal["no_reference", "same_data", "passed", "accepted", "refused"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of the reference and of the new data, held against a rule.

    Attributes:
        rule: name of the rule.
        about: band, feature or sensor that the figure is about.
        reference: figure of the reference; None = it is no single number.
        found: figure of the new data; None like `reference`.
        value: what the rule limits.
        limit: largest value that passes, noise included.
        severity: what happens above it.
        reason: the result in one sentence, with the figures and the rule.
    """

    rule: Rule
    about: str
    reference: float | None
    found: float | None
    value: float
    limit: float
    severity: Severity
    reason: str

    @property
    def is_exceeded(self) -> bool:
        """Whether the value is above the limit."""
        return self.value > self.limit


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The comparison of one data set with its reference.

    Attributes:
        data: "pairs" or the task's name.
        span: number of the new data's span.
        version: number of the version within the span.
        reference: folder of the published version that the reference lies with; "" =
            there is none.
        reference_span: "span.version" of the reference's data; "" = there is none.
        outcome: "no_reference": nothing to compare with, so it passes. "same_data": the
            model in service was trained on it. "accepted": `drift.accept_spans` names
            the span, so nothing is refused.
        findings: of all rules but those that are off.
        refusals: why it is refused, one sentence each.
        refused_spans: "span.version" of the spans that windows leave out from now on.
            Empty when the settings are at fault, as for other bands.
        notes: what was not compared, and why; one sentence each.
    """

    data: str
    span: int
    version: int
    reference: str
    reference_span: str
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    refusals: tuple[str, ...] = ()
    refused_spans: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.outcome == "refused") != bool(self.refusals):
            raise ValueError(
                f"a refused report, and no other, has refusals, got {self.outcome!r} with "
                f"{len(self.refusals)}"
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons of limits that were exceeded without a refusal."""
        return tuple(
            one.reason
            for one in self.findings
            if one.is_exceeded and one.reason not in self.refusals
        )

    @property
    def score(self) -> float:
        """Largest `ratio` of the rules that refuse.

        Above 1 the data are refused, unless their span is accepted. 0 = they are equal,
        or nothing was compared.
        """
        return max((ratio(one) for one in self.findings if one.severity == "refuse"), default=0.0)

    def to_json(self) -> str:
        """Return indented JSON with sorted keys, with the score for other readers."""
        values = {**settings.to_dict(self), _SCORE: self.score}
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


_SCORE = "score"
_LARGEST = 1e6


def ratio(finding: Finding) -> float:
    """Return the value as a multiple of the limit, at most a million.

    Spreads are compared by their quotient, which is 1 for equal data. The logarithms of
    quotient and limit are taken then, so that 0 means equal for all rules.
    """
    value, limit = finding.value, finding.limit
    if finding.rule in SENSOR_RULES["spread"].values():
        value, limit = math.log(value), math.log(limit)
    if limit <= 0.0:
        return _LARGEST if value > 0.0 else 0.0
    return min(value / limit, _LARGEST)


def from_json(text: str) -> DriftReport:
    """Return the report that `DriftReport.to_json` wrote."""
    values = json.loads(text)
    values.pop(_SCORE, None)
    return settings.from_dict(DriftReport, values, "drift")
