"""The model card: what a model is, what it was trained on and how good it was.

Input: config, manifest, metrics. Output: JSON in assets.extra/model_card.json. The card
is written last, so a folder with a card holds a complete model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.manifest import CODE_VERSION, Manifest
from beam_jobs.contracts.published import CARD_NAME

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a model came about.

    Attributes:
        name: under which the model is served.
        config: of its training.
        manifest: of the shards that it was trained on.
        metrics: of the finished model. NaN (a class that never occurred) becomes null
            in the card.
        started_from: the published model that each sensor's training began with; empty
            = new weights.
        evaluations: scores on the way, and the step whose weights the model has; see
            `Evaluations.describe`. None = it was not evaluated on the way.
    """

    name: str
    config: Any
    manifest: Manifest
    metrics: Mapping[str, float]
    started_from: Mapping[Sensor, str]
    evaluations: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a published model takes and offers.

    Attributes:
        task: "pretraining", "segmentation" or "distillation".
        sensors: inputs of the model.
        stride: height and width of its inputs are multiples of it.
        signatures: names of the SavedModel's signatures; empty = it is not served.
        schema: a segmenter's classes; None for other models.
    """

    task: str
    sensors: Sequence[Sensor]
    stride: int
    signatures: Sequence[str]
    schema: LabelSchema | None = None


def make_card(
    provenance: Provenance,
    interface: Interface,
    *,
    health: Mapping[str, Any] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Return the card of a trained model as plain JSON values.

    Args:
        provenance: how the model came about.
        interface: what it takes and offers.
        health: findings of the checks of pretraining: `alarms`, one line each, and
            `not_measured`, figure -> reason. None for other models.
        threshold: probability above which a segmenter of two classes takes a pixel for
            the second class. None for other models.
    """
    manifest, schema = provenance.manifest, interface.schema
    bands = {sensor: manifest.bands(sensor) for sensor in interface.sensors}
    return {
        **_describe(provenance.name, interface, bands, provenance.config),
        "data_manifest_sha256": manifest.sha256,
        "data_span": manifest.span,
        "data_version": manifest.version,
        "data_window": settings.to_dict(manifest.window),
        # JSON has no NaN; Python's writer would emit one that other readers refuse.
        "metrics": {
            key: value if math.isfinite(value) else None
            for key, value in provenance.metrics.items()
        },
        "threshold": threshold,
        "health": health,
        "started_from": dict(provenance.started_from),
        "evaluations": provenance.evaluations,
        "label_schema": schema.name if schema else None,
        "class_names": list(schema.class_names) if schema else None,
        "class_colors": [entry.color for entry in schema.entries] if schema else None,
        "s2_processing_level": manifest.s2_processing_level if "s2" in bands else None,
        "pixel_size_m": manifest.pixel_size_m,
    }


def make_imported_card(
    bands: Mapping[Sensor, Sequence[str]],
    *,
    stride: int,
    signatures: Sequence[str],
    config: Any,
    s2_processing_level: str | None,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the card of an encoder with public weights.

    Args:
        bands: inputs by sensor, in order.
        stride: height and width of the inputs are multiples of it.
        signatures: names of the SavedModel's signatures.
        config: description of the weights.
        s2_processing_level: of the pixels that the weights were trained on.
        source: where the weights come from and on which terms.
    """
    interface = Interface(
        task="pretraining", sensors=tuple(bands), stride=stride, signatures=signatures
    )
    return {
        **_describe("encoder", interface, bands, config),
        # Unknown: data of others has no manifest.
        "data_manifest_sha256": None,
        "data_span": None,
        "data_version": None,
        "data_window": [],
        "metrics": {},
        "threshold": None,
        "health": None,
        "started_from": {},
        "evaluations": None,
        "label_schema": None,
        "class_names": None,
        "class_colors": None,
        "s2_processing_level": s2_processing_level,
        "pixel_size_m": None,
        "source": dict(source),
    }


def _describe(
    name: str, interface: Interface, bands: Mapping[Sensor, Sequence[str]], config: Any
) -> dict[str, Any]:
    """Return what every card holds, wherever the weights come from."""
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "task": interface.task,
        "config_sha256": settings.sha256(config),
        "config": settings.to_dict(config),
        # Name the units: a caller that sends power instead of dB gets no error, only
        # wrong maps.
        "inputs": {
            sensor: {"bands": list(names), "unit": BANDS[sensor][names[0]].unit, "nodata": "NaN"}
            for sensor, names in bands.items()
        },
        "stride": interface.stride,
        "signatures": list(interface.signatures),
        "code_version": CODE_VERSION,
    }


def write_card(assets_dir: str, card: Mapping[str, Any]) -> None:
    """Write the card into `assets_dir`."""
    text = json.dumps(card, indent=2, sort_keys=True) + "\n"
    (locate(assets_dir) / CARD_NAME).write_text(text)
