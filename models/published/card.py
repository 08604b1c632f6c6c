"""The model card: what a published model is, what it was trained on and how good it was.

Input: config, manifest, metrics. Output: JSON in assets.extra/model_card.json, written
last, so that a card means a whole model. Written by `export.py` and
`public_weights/importing.py`; read by the publishing components, the report and the
serving checks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.manifest import CODE_VERSION, Manifest

CARD_NAME = "model_card.json"
FORMAT_VERSION = 1


def make_card(
    *,
    name: str,
    task: str,
    sensors: Sequence[Sensor],
    stride: int,
    signatures: Sequence[str],
    config: Any,
    manifest: Manifest,
    metrics: Mapping[str, float],
    label_schema: str | None,
    started_from: Mapping[Sensor, str],
    health: Mapping[str, Any] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """The card as plain JSON values; a metric that is NaN (a class that never occurred) becomes null.

    `started_from` names the encoder that each sensor's training began with; empty =
    from scratch. `health` holds what the checks of pretraining found: `alarms`, one
    line each, and `not_measured`, figure -> why; null for other models. `threshold` is
    the probability above which a segmenter of two classes takes a pixel for the second
    one; null for other models.
    """
    bands = {"s1": manifest.s1_bands, "s2": manifest.s2_bands}
    return {
        **_describe(
            name, task, {sensor: bands[sensor] for sensor in sensors}, stride, signatures, config
        ),
        "data_manifest_sha256": manifest.sha256,
        "data_span": manifest.span,
        "data_version": manifest.version,
        # JSON has no NaN; Python's own writer would emit one that other readers refuse.
        "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.items()},
        "threshold": threshold,
        "health": health,
        "started_from": dict(started_from),
        "label_schema": label_schema,
        "class_names": list(get_schema(label_schema).class_names) if label_schema else None,
        "s2_processing_level": manifest.s2_processing_level if "s2" in sensors else None,
        "pixel_size_m": manifest.pixel_size_m,
    }


def make_imported_card(
    *,
    bands: Mapping[Sensor, Sequence[str]],
    stride: int,
    signatures: Sequence[str],
    config: Any,
    s2_processing_level: str | None,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of an encoder whose weights others trained: `source` says where they come from, on which terms."""
    return {
        **_describe("encoder", "pretraining", bands, stride, signatures, config),
        # Not ours to know: the data of others has no manifest.
        "data_manifest_sha256": None,
        "data_span": None,
        "data_version": None,
        "metrics": {},
        "threshold": None,
        "health": None,
        "started_from": {},
        "label_schema": None,
        "class_names": None,
        "s2_processing_level": s2_processing_level,
        "pixel_size_m": None,
        "source": dict(source),
    }


def _describe(
    name: str,
    task: str,
    bands: Mapping[Sensor, Sequence[str]],
    stride: int,
    signatures: Sequence[str],
    config: Any,
) -> dict[str, Any]:
    """What every card holds, wherever the weights come from."""
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "task": task,
        "config_sha256": settings.sha256(config),
        "config": settings.to_dict(config),
        # Units and bands travel with the model: a caller that sends power instead of dB
        # gets no error, only wrong maps.
        "inputs": {
            sensor: {"bands": list(names), "unit": BANDS[sensor][names[0]].unit, "nodata": "NaN"}
            for sensor, names in bands.items()
        },
        "stride": stride,
        "signatures": list(signatures),
        "code_version": CODE_VERSION,
    }


def write_card(assets_dir: str, card: Mapping[str, Any]) -> None:
    """Writes the card below `assets_dir`."""
    with tf.io.gfile.GFile(f"{assets_dir}/{CARD_NAME}", "w") as file:
        file.write(json.dumps(card, indent=2, sort_keys=True) + "\n")


def read_card(saved_model_dir: str) -> dict[str, Any]:
    """The card of a SavedModel of `export.py`.

    Raises:
        FileNotFoundError: there is none: the model was not written to the end.
    """
    path = f"{saved_model_dir}/assets.extra/{CARD_NAME}"
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no model card, so this is no finished model")
    with tf.io.gfile.GFile(path) as file:
        return json.loads(file.read())
