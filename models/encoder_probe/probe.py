"""Probes a published encoder: measures it, checks it, and compares it with an untrained one and with the last one in service.

SavedModel directories and shards -> ProbeReport. Called by `components/encoder_probe`; runs without TFX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from beam_jobs.contracts.bands import Sensor
from models.card import read_card
from models.dual_encoder import DualEncoder, build_dual_encoder
from models.encoder_probe import checks
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import (
    LabeledSplits,
    ProbeData,
    classify,
    embed_labels,
    embed_pairs,
    why_unfit,
    why_unusable,
)
from models.encoder_probe.report import Check, ProbeReport
from models.encoders import SensorEncoder
from models.health.embeddings import EmbeddedSplit, Embedder, load_dual_encoder
from models.health.retrieval import cross_modal_ranks
from models.objectives.registry import trained_sensors


@dataclass(frozen=True, kw_only=True)
class _View:
    """The data as one encoder sees them; no `labels` when there is nothing to fit a linear probe on."""

    pairs: EmbeddedSplit
    labels: LabeledSplits | None

    def is_finite(self, sensor: Sensor) -> Check:
        splits = [self.pairs] if self.labels is None else [self.pairs, self.labels.train, self.labels.judged]
        rows = [np.concatenate([split.features[sensor], split.embeddings[sensor]], axis=1) for split in splits]
        return checks.check_finite(np.concatenate(rows), sensor)


def probe_encoder(config: ProbeConfig, encoder_dir: str, last_dir: str, data: ProbeData) -> ProbeReport:
    """Every check of one encoder; a sensor that its objective does not train is not held against it.

    Args:
        config: thresholds.
        encoder_dir: SavedModel of `run_pretraining`.
        last_dir: the encoder in service, which this one must not fall behind on the same patches; empty: none.
        data: what both are probed on.

    Raises:
        ValueError: the data do not fit the encoder, or no patch has data in both sensors.
        FileNotFoundError: a directory holds no whole encoder.
    """
    model = load_dual_encoder(encoder_dir)
    objective = read_card(encoder_dir)["config"]["objective"]
    sensors = trained_sensors(objective)
    notes = []
    if len(sensors) == 1:
        notes.append(f"{objective} trains {sensors[0]} alone: retrieval and the other sensor are left out")
    view = _look(model, data, config)
    if data.labels is None:
        notes.append("no labelled task: no linear probe, retrieval and collapse alone decide")
    elif view.labels is not None and (reason := why_unusable(view.labels)):
        notes.append(f"no linear probe on the labels of {data.labels.task}: {reason}")
        data, view = dataclasses.replace(data, labels=None), dataclasses.replace(view, labels=None)
    found = [view.is_finite(sensor) for sensor in sensors]
    # What is not finite cannot be ranked, and needs no further reasons.
    if all(check.passed for check in found):
        found += _check_alone(view, sensors, config)
        found += _compare_with_untrained(model, view, sensors, data, config)
        compared, reason = _compare_with_last(last_dir, view, sensors, data, config)
        found += compared
        notes += [reason] if reason else []
    return ProbeReport(
        encoder=encoder_dir,
        last_encoder=last_dir,
        labels=data.labels.task if data.labels else "",
        num_pairs=len(view.pairs),
        num_train_patches=len(view.labels.train) if view.labels else 0,
        num_eval_patches=len(view.labels.judged) if view.labels else 0,
        checks=tuple(found),
        notes=tuple(notes),
    )


def _look(model: DualEncoder, data: ProbeData, config: ProbeConfig) -> _View:
    embedder = Embedder(model)
    return _View(
        pairs=embed_pairs(embedder, data, config),
        labels=embed_labels(embedder, data.labels, config) if data.labels else None,
    )


def _check_alone(view: _View, sensors: Sequence[Sensor], config: ProbeConfig) -> list[Check]:
    """Checks against thresholds."""
    found = [
        check for sensor in sensors for check in checks.check_collapse(view.pairs.embeddings[sensor], sensor, config)
    ]
    if len(sensors) == 2:
        ranks = cross_modal_ranks(view.pairs.embeddings)
        found += [checks.check_recall(item, direction, config) for direction, item in ranks.items()]
    if view.labels is not None:
        classified = classify(view.labels, sensors)
        found += [checks.check_accuracy(classified, sensor, config) for sensor in sensors]
    return found


def _compare_with_untrained(
    model: DualEncoder, view: _View, sensors: Sequence[Sensor], data: ProbeData, config: ProbeConfig
) -> list[Check]:
    """The linear probe against that on an encoder of the same architecture and normalization with new weights."""
    if view.labels is None or data.labels is None:
        return []
    keras.utils.set_random_seed(config.seed)
    encoders = {sensor: SensorEncoder.from_config(encoder.get_config()) for sensor, encoder in model.encoders.items()}
    untrained = build_dual_encoder(encoders, model.heads["s1"].embedding_dim)
    labels = embed_labels(Embedder(untrained), data.labels, config)
    ours, theirs = classify(view.labels, sensors), classify(labels, sensors)
    return [checks.compare_accuracy(ours, theirs, sensor, "random", config) for sensor in sensors]


def _compare_with_last(
    last_dir: str, view: _View, sensors: Sequence[Sensor], data: ProbeData, config: ProbeConfig
) -> tuple[list[Check], str]:
    """Recall and linear probe against those of the encoder in service, and why there is no comparison."""
    if not last_dir:
        return [], "no encoder is published yet: nothing to compare with"
    model = load_dual_encoder(last_dir)
    for manifest in (data.manifest, *([data.labels.manifest] if data.labels else [])):
        if reason := why_unfit(model, manifest):
            return [], f"not compared with {last_dir}: {reason}"
    last = _look(model, data, config)
    found = []
    if len(sensors) == 2:
        ours, theirs = cross_modal_ranks(view.pairs.embeddings), cross_modal_ranks(last.pairs.embeddings)
        found += [
            checks.compare_recall(ours[direction], theirs[direction], direction, view.pairs.block, config)
            for direction in ours
        ]
    if view.labels is not None and last.labels is not None:
        classified = classify(view.labels, sensors), classify(last.labels, sensors)
        found += [checks.compare_accuracy(*classified, sensor, "last", config) for sensor in sensors]
    return found, ""
