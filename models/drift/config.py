"""DriftConfig: how far a new span may be from the data of the model in service.

Input: the `drift` section of a run's YAML. Output: a checked frozen dataclass. `RULES`
is the table of all rules with their defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from beam_jobs.contracts.bands import Sensor

Severity = Literal["refuse", "warn", "off"]
Rule = Literal[
    "s1_mean",
    "s2_mean",
    "s1_median",
    "s2_median",
    "s1_spread",
    "s2_spread",
    "s1_tails",
    "s2_tails",
    "s2_offset",
    "polarizations",
    "no_data",
    "class_shares",
    "time_gap",
    "schema",
    "statistics",
    "skew",
    "embeddings",
]


@dataclass(frozen=True, kw_only=True)
class RuleDefault:
    """One row of the table of rules.

    Attributes:
        limit: largest value that passes, before noise is added.
        severity: what happens above it.
        what: what the value is, and why the limit is what it is.
    """

    limit: float
    severity: Severity
    what: str


def _rule(limit: float, severity: Severity, what: str) -> RuleDefault:
    return RuleDefault(limit=limit, severity=severity, what=what)


RULES: dict[Rule, RuleDefault] = {
    "s1_mean": _rule(
        1.75,
        "refuse",
        "shift of a band's mean, in spreads of the reference. The months of one field in "
        "Togo differ by up to 1.6, which is more than a season changes many places.",
    ),
    "s2_mean": _rule(
        2.0,
        "refuse",
        "the same. Haze, crops and dry seasons move single fields by up to 1.7; snow on "
        "half of the ground moves more.",
    ),
    "s1_median": _rule(1.75, "refuse", "shift of a band's median, as `s1_mean`."),
    "s2_median": _rule(2.0, "refuse", "shift of a band's median, as `s2_mean`."),
    "s1_spread": _rule(
        1.6,
        "refuse",
        "ratio of a band's standard deviations, the larger by the smaller. Doubled and "
        "halved decibels have exactly 2.",
    ),
    "s2_spread": _rule(
        4.0,
        "refuse",
        "the same. Snow and clouds widen visible bands three times; a wrong factor of 10 "
        "has exactly 10.",
    ),
    "s1_tails": _rule(
        2.5, "refuse", "shift of the 2nd or 98th percentile, in spreads of the reference."
    ),
    "s2_tails": _rule(
        4.0, "warn", "the same. Snow and clouds move the bright end, so it only warns."
    ),
    "s2_offset": _rule(
        0.05,
        "refuse",
        "shift of the darkest 2 %, in reflectance, that all bands have in common. Water "
        "and shadows stay dark in every season, and snow is dark in B11 and B12. An offset "
        "of 1000 that was not subtracted has 0.1.",
    ),
    "polarizations": _rule(
        4.0,
        "refuse",
        "change of the difference of co- and cross-polarized means, in dB. The months of "
        "one field in Togo differ by 3.4. Swapped bands have twice the difference, about 13.",
    ),
    "no_data": _rule(
        3.0,
        "refuse",
        "share of pixels without data, or of patches refused for it, as a multiple of the "
        "reference's. 1 % more always passes.",
    ),
    "class_shares": _rule(
        0.2,
        "refuse",
        "Jensen-Shannon divergence of the shares of the classes, in bits, 0-1. Two classes "
        "of 90 and 10 % against 50 and 50 % have 0.15.",
    ),
    "time_gap": _rule(
        1.5,
        "refuse",
        "shift of the mean hours between the two images, in spreads of the reference "
        "(at least 12 hours).",
    ),
    "schema": _rule(
        0.0,
        "refuse",
        "anomalies that TensorFlow Data Validation finds by the reference's schema.",
    ),
    "statistics": _rule(
        0.5,
        "refuse",
        "TensorFlow Data Validation's drift of a watched feature: Jensen-Shannon "
        "divergence in bits, of orbit states the largest change of a share, 0-1. A shift "
        "of 1.5 spreads has 0.4.",
    ),
    "skew": _rule(
        0.5,
        "warn",
        "TensorFlow Data Validation's skew, the same between the train and eval splits of "
        "the new data. Splits are by place, so they differ in small data sets.",
    ),
    "embeddings": _rule(
        0.12,
        "refuse",
        "energy distance of the embeddings under the encoder in service, 0 equal, 1 far "
        "apart. Summer against winter of simulated places has 0.04, shuffled pixels have "
        "0.15.",
    ),
}
"""All rules with their defaults; docs/drift.md has the same table with measurements."""

SENSOR_RULES: Mapping[str, Mapping[Sensor, Rule]] = {
    "mean": {"s1": "s1_mean", "s2": "s2_mean"},
    "median": {"s1": "s1_median", "s2": "s2_median"},
    "spread": {"s1": "s1_spread", "s2": "s2_spread"},
    "tails": {"s1": "s1_tails", "s2": "s2_tails"},
}
"""Figure -> sensor -> rule."""


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """Limits of the comparison with the data of the model in service.

    Attributes:
        severity: rule -> "refuse", "warn" or "off", where it differs from `RULES`.
        limits: rule -> limit, where it differs from `RULES`.
        accept_spans: spans that may differ from the reference in any way. They are
            compared, nothing is refused, and the next model's reference is their data.
            Name the span of a new region, band list or processing level here.
        noise: standard errors that are added to a limit, since few scenes give
            uncertain figures. Default 2.
        num_patches: train patches that tell the noise of the figures.
        num_embedded: eval patches that are embedded, and kept as reference.
        retrain_score: score of a span, 0-1, from which `retrain` trains on it although
            no scene is new; 1 = the limit of a rule. None = drift alone starts nothing.
            Default 0.5; docs/drift.md has the scores of equal spans and of seasons.
    """

    severity: dict[str, Severity] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    accept_spans: tuple[int, ...] = ()
    noise: float = 2.0
    num_patches: int = 1024
    num_embedded: int = 512
    retrain_score: float | None = 0.5

    def __post_init__(self) -> None:
        for name, keys in (("severity", self.severity), ("limits", self.limits)):
            for key in keys:
                if key not in get_args(Rule):
                    raise ValueError(f"{name}.{key}: no rule; known: {', '.join(get_args(Rule))}")
        for key, limit in self.limits.items():
            if not (math.isfinite(limit) and limit >= 0.0):
                raise ValueError(f"limits.{key} must be at least 0, got {limit}")
            if key.endswith("_spread") and limit < 1.0:
                raise ValueError(f"limits.{key} is a ratio and must be at least 1, got {limit}")
        if not (math.isfinite(self.noise) and self.noise >= 0.0):
            raise ValueError(f"noise must be at least 0, got {self.noise}")
        if self.retrain_score is not None and not 0.0 < self.retrain_score <= 1.0:
            raise ValueError(
                f"retrain_score must be above 0 and at most 1, or null, got {self.retrain_score}"
            )
        if self.num_patches < 2 or self.num_embedded < 2:
            raise ValueError(
                "num_patches and num_embedded must be at least 2, got "
                f"{self.num_patches} and {self.num_embedded}"
            )

    def limit_of(self, rule: Rule) -> float:
        """Return the limit of a rule, before noise is added."""
        return self.limits.get(rule, RULES[rule].limit)

    def severity_of(self, rule: Rule) -> Severity:
        """Return what happens when the rule's limit is exceeded."""
        return self.severity.get(rule, RULES[rule].severity)
