"""Watched statistics: TFDV's comparison of what the records say about their patches.

Statistics of a new span, and the schema and statistics of the reference -> findings.
TFDV computes and compares; the thresholds are those of `models/drift`, and they are
enforced. NaN-free and continuous features have a drift comparator. Shares that are
mostly exactly 1, such as valid fractions, have none: TFDV gives the largest divergence
to a feature that is constant in one data set and nearly constant in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from beam_jobs.contracts.bands import SENSORS, OrbitState
from models.drift.comparison import divergence_noise
from models.drift.config import DriftConfig, Rule
from models.drift.reference import DataReference
from models.drift.report import Finding

ORBIT = "orbit_state"
COMPARED = (*(f"{s}_{name}" for s in SENSORS for name in ("mean", "std")), "time_gap_hours", ORBIT)
"""The features that have comparators."""
_NUM_BINS = 10
"""Of TFDV's histograms."""


def parse_schema(text: str) -> schema_pb2.Schema:
    """Return the schema that a reference keeps, open for every orbit state.

    Raises:
        ValueError: the text is no schema.
    """
    schema = schema_pb2.Schema()
    try:
        text_format.Parse(text, schema)
    except text_format.ParseError as error:
        raise ValueError(f"no schema of TFDV: {error}") from error
    for domain in schema.string_domain:
        if domain.name == ORBIT:
            # An orbit that the reference has no scene of is no anomaly; the comparator
            # tells whether the shares changed too much.
            domain.value[:] = sorted({*domain.value, *get_args(OrbitState)})
    return schema


def schema_text(schema: schema_pb2.Schema) -> str:
    """Return a schema as a reference keeps it."""
    return text_format.MessageToString(schema)


def parse_statistics(content: bytes) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics that a reference keeps.

    Raises:
        ValueError: they are damaged.
    """
    try:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(content)
    except DecodeError as error:
        raise ValueError(f"no statistics of TFDV: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Comparator:
    """How one feature is compared: by which rule, up to which threshold."""

    rule: Rule
    feature: str
    threshold: float


def compare_statistics(
    reference: DataReference,
    new: DataReference,
    eval_statistics: bytes,
    config: DriftConfig,
) -> tuple[list[Finding], list[str]]:
    """Return the findings of TFDV, and notes about what it cannot judge.

    Args:
        reference: of the data that the model in service was trained on.
        new: of the new data.
        eval_statistics: statistics of the new eval split, for the skew.
        config: limits and severities.

    Raises:
        ValueError: the statistics or the schema of the reference are damaged.
    """
    schema = parse_schema(reference.schema)
    comparators, notes = _comparators(reference, new, config)
    by_feature = {feature.name: feature for feature in schema.feature}
    for one in comparators:
        if one.feature not in by_feature:
            continue
        kinds = by_feature[one.feature]
        kind = kinds.drift_comparator if one.rule == "statistics" else kinds.skew_comparator
        if one.feature == ORBIT:
            kind.infinity_norm.threshold = one.threshold
        else:
            kind.jensen_shannon_divergence.threshold = one.threshold
    anomalies = tfdv.validate_statistics(
        statistics=parse_statistics(new.statistics),
        schema=schema,
        previous_statistics=parse_statistics(reference.statistics),
        serving_statistics=parse_statistics(eval_statistics),
    )
    found = [*_measurements(anomalies, config), *_anomalies(anomalies, config)]
    return [one for one in found if one.severity != "off"], notes


def _comparators(
    reference: DataReference, new: DataReference, config: DriftConfig
) -> tuple[list[_Comparator], list[str]]:
    """Return the comparators, and a note for each rule with too few scenes."""
    units = [max(one.summary.num_units.values()) for one in (reference, new)]
    absent = {
        sensor
        for sensor in SENSORS
        for one in (reference, new)
        if all(band.no_data >= 1.0 for band in one.summary.bands[sensor])
    }
    names = [
        name
        for name in COMPARED
        if name[:2] not in absent and not (name == "time_gap_hours" and absent)
    ]
    found, notes = [], []
    rules: tuple[Rule, ...] = ("statistics", "skew")
    for rule in rules:
        if config.severity_of(rule) == "off":
            continue
        noise = divergence_noise(_NUM_BINS, *(units if rule == "statistics" else units[1:] * 2))
        threshold = config.limit_of(rule) + noise
        # Both measures are at most 1.
        if threshold >= 1.0:
            notes.append(
                f"{rule}: not compared by TFDV: {min(units)} scenes are too few to tell a change "
                "from chance"
            )
            continue
        found += [_Comparator(rule=rule, feature=name, threshold=threshold) for name in names]
    return found, notes


def _measurements(anomalies: anomalies_pb2.Anomalies, config: DriftConfig) -> Iterator[Finding]:
    sides: tuple[tuple[Rule, str, str], ...] = (
        ("statistics", "drift_measurements", "the reference"),
        ("skew", "skew_measurements", "the eval split"),
    )
    for info in anomalies.drift_skew_info:
        name = ".".join(info.path.step)
        for rule, field, other in sides:
            for measured in getattr(info, field):
                word = "above" if measured.value > measured.threshold else "within"
                yield Finding(
                    rule=rule,
                    about=name,
                    reference=None,
                    found=None,
                    value=measured.value,
                    limit=measured.threshold,
                    severity=config.severity_of(rule),
                    reason=(
                        f"{name}: TFDV's {_measure(measured)} of the train split from {other} is "
                        f"{measured.value:.3f}, {word} the limit {measured.threshold:.3g} of the "
                        f"rule {rule}"
                    ),
                )


def _measure(measured: Any) -> str:
    is_share = measured.type == anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY
    return "largest change of a share" if is_share else "Jensen-Shannon divergence"


def _anomalies(anomalies: anomalies_pb2.Anomalies, config: DriftConfig) -> Iterator[Finding]:
    """Yield what contradicts the schema; the comparators have findings of their own."""
    kinds = anomalies_pb2.AnomalyInfo
    for name, info in sorted(anomalies.anomaly_info.items()):
        for reason in info.reason:
            if kinds.Type.Name(reason.type).startswith("COMPARATOR"):
                continue
            yield Finding(
                rule="schema",
                about=name,
                reference=None,
                found=None,
                value=1.0,
                limit=config.limit_of("schema"),
                severity=config.severity_of("schema"),
                reason=(
                    f"{name}: {' '.join(reason.description.split())} (rule schema: the reference's)"
                ),
            )
