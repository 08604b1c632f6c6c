"""Probes a published encoder: measures it, checks it, and compares it with others.

Input: SavedModel directories and shards. Output: a `ProbeReport`. The encoder is
compared with an untrained one and with the one in service. Runs without TFX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import keras

from beam_jobs.contracts.errors import TerrapairError
from beam_jobs.contracts.published import read_card
from models.dual_encoder import DualEncoder, build_dual_encoder
from models.encoder_probe import checks
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import (
    ProbeData,
    View,
    classify,
    embed_labels,
    look,
    why_one_sided,
    why_unusable,
)
from models.encoder_probe.report import Check, ProbeReport, failed_check
from models.encoders import SensorEncoder
from models.health.embeddings import Embedder, load_dual_encoder, why_unfit
from models.objectives.registry import trained_sensors
from models.published.encoder_card import CONTROL

CONTROL_NOTE = "objective none leaves the encoders untrained, as a control: never published"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A probed encoder.

    Attributes:
        report: all checks.
        view: what the encoder computed for the data.
    """

    report: ProbeReport
    view: View


def probe_encoder(config: ProbeConfig, encoder_dir: str, last_dir: str, data: ProbeData) -> Probed:
    """Run every check on one encoder.

    A sensor that the encoder's objective does not train is not judged. Untrained
    encoders (objective "none") are judged as any other, but never blessed.

    Args:
        config: limits.
        encoder_dir: SavedModel of the pretraining.
        last_dir: SavedModel of the encoder in service. The new encoder must not be
            worse on the same patches. Empty: there is none.
        data: data to probe both on.

    Raises:
        ValueError: the data do not fit the encoder, or no patch has data in both
            sensors.
        FileNotFoundError: a directory holds no complete encoder.
    """
    model = load_dual_encoder(encoder_dir)
    objective = read_card(encoder_dir)["config"]["objective"]
    sensors = trained_sensors(objective)
    notes = []
    if objective == CONTROL:
        notes.append(CONTROL_NOTE)
    if len(sensors) == 1:
        notes.append(
            f"{objective} trains only {sensors[0]}: retrieval and the other sensor are not judged"
        )
    if data.labels is None:
        notes.append("no labelled task, so no linear probe: only retrieval and collapse are judged")
    elif reason := why_one_sided(data.labels.manifest):
        notes.append(f"no linear probe on the labels of {data.labels.task}: {reason}")
        data = dataclasses.replace(data, labels=None)
    view = look(model, data, sensors, config)
    if (
        data.labels is not None
        and view.labels is not None
        and (reason := why_unusable(view.labels))
    ):
        notes.append(f"no linear probe on the labels of {data.labels.task}: {reason}")
        data, view = dataclasses.replace(data, labels=None), dataclasses.replace(view, labels=None)
    found = [checks.check_finite(view.rows(sensor), sensor) for sensor in sensors]
    # Values that are not finite cannot be ranked, and this refusal needs no further
    # reason.
    if all(check.passed for check in found):
        found += _check_alone(view, config) + _compare_with_untrained(model, view, data, config)
        compared, reason = _compare_with_last(last_dir, view, data, config)
        found += compared
        notes += [reason] if reason else []
    report = ProbeReport(
        encoder=encoder_dir,
        last_encoder=last_dir,
        labels=data.labels.task if data.labels else "",
        num_pairs=len(view.pairs),
        num_train_patches=len(view.labels.train) if view.labels else 0,
        num_eval_patches=len(view.labels.judged) if view.labels else 0,
        checks=tuple(found),
        notes=tuple(notes),
        is_control=objective == CONTROL,
    )
    return Probed(report=report, view=view)


def _check_alone(view: View, config: ProbeConfig) -> list[Check]:
    """Return the checks against fixed limits."""
    found: list[Check] = []
    for sensor in view.sensors:
        found += checks.check_collapse(view.pairs.embeddings[sensor], sensor, config)
    found += [
        checks.check_recall(ranks, direction, config) for direction, ranks in view.ranks.items()
    ]
    if view.classified is not None:
        found += [checks.check_accuracy(view.classified, sensor, config) for sensor in view.sensors]
    return found


def _compare_with_untrained(
    model: DualEncoder, view: View, data: ProbeData, config: ProbeConfig
) -> list[Check]:
    """Compare the linear probe with that on an untrained encoder.

    The untrained encoder has the same architecture and normalization, and new weights.
    """
    if view.classified is None or data.labels is None:
        return []
    keras.utils.set_random_seed(config.seed)
    encoders = {
        sensor: SensorEncoder.from_config(encoder.get_config())
        for sensor, encoder in model.encoders.items()
    }
    untrained = build_dual_encoder(encoders, model.heads["s1"].embedding_dim)
    theirs = classify(embed_labels(Embedder(untrained), data.labels, config), view.sensors)
    return [
        checks.compare_accuracy(
            view.classified, theirs, sensor=sensor, other_name="random", config=config
        )
        for sensor in view.sensors
    ]


def _compare_with_last(
    last_dir: str, view: View, data: ProbeData, config: ProbeConfig
) -> tuple[list[Check], str]:
    """Compare recall and linear probe with those of the encoder in service.

    Returns:
        The checks, and why there is no comparison; one of the two is empty. An encoder
        that cannot be compared fails a check, unless that is accepted.
    """
    if not last_dir:
        return [], "no encoder is published yet: nothing to compare with"
    try:
        model = load_dual_encoder(last_dir)
    except (OSError, ValueError, TerrapairError) as error:
        # The model in service can be one put there by hand, such as public weights of
        # one sensor.
        return _incomparable(" ".join(str(error).split()), config)
    for manifest in (data.manifest, *([data.labels.manifest] if data.labels else [])):
        if reason := why_unfit(model, manifest):
            return _incomparable(f"{last_dir}: {reason}", config)
    last = look(model, data, view.sensors, config)
    found = [
        checks.compare_recall(
            ranks,
            last.ranks[direction],
            direction=direction,
            block=view.pairs.block,
            config=config,
        )
        for direction, ranks in view.ranks.items()
    ]
    if view.classified is not None and last.classified is not None:
        found += [
            checks.compare_accuracy(
                view.classified, last.classified, sensor=sensor, other_name="last", config=config
            )
            for sensor in view.sensors
        ]
    return found, ""


def _incomparable(why: str, config: ProbeConfig) -> tuple[list[Check], str]:
    """Return a check that fails, or a note if `accept_incomparable` is set."""
    if config.accept_incomparable:
        return [], f"not compared with the encoder in service: {why}"
    reason = (
        f"it cannot be compared with the encoder in service: {why}; to publish it by the other "
        "checks alone, set probe.accept_incomparable=true"
    )
    return [failed_check("comparable_with_last", reason)], ""
