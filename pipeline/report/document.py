"""The report as one JSON document, for programs: everything that the page shows.

RunConfig and RunResults -> plain values, and `report.json` in the report folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from beam_jobs.contracts import locations, settings
from beam_jobs.terminal.session import plain
from pipeline.config import RunConfig
from pipeline.report.results import DataResult, ModelResult, RunResults, TaskResult

REPORT_FILE = "report.json"


def make_document(config: RunConfig, results: RunResults) -> dict[str, Any]:
    """Return the results of a run as plain values."""
    return {
        "name": config.name,
        "root": config.root,
        "config_sha256": settings.sha256(config),
        "is_published": results.is_published,
        "refusals": list(results.refusals),
        "encoder_is_blessed": None if results.probe is None else results.probe.is_blessed,
        "encoder_probe": None if results.probe is None else json.loads(results.probe.to_json()),
        "published": {
            model.name: None if model.published is None else str(model.published)
            for model in results.models
        },
        "training": {model.name: _model(model) for model in results.models},
        "test_metrics": {task.name: task.test for task in results.tasks},
        "gates": {task.name: _gate(task) for task in results.tasks},
        "refused_teachers": list(results.refused_teachers),
        "data": {one.name: _data(one) for one in results.data},
        "set_aside": [{"data": one.data, **vars(one.record)} for one in results.refused_spans],
        "overlap_audits": dict(results.audits),
        "components": [
            {
                "id": one.component_id,
                "is_cached": one.is_cached,
                "is_complete": one.is_complete,
                "num_seconds": one.num_seconds,
            }
            for one in results.record.components
        ],
        "report": config.report_dir,
    }


def write_document(config: RunConfig, document: Mapping[str, Any]) -> None:
    """Write `report.json` into the report folder."""
    with locations.staged(f"{config.report_dir}/{REPORT_FILE}") as file:
        file.write_text(json.dumps(plain(document), indent=1, sort_keys=True) + "\n")


def _model(model: ModelResult) -> dict[str, Any]:
    return {
        "metrics": dict(model.training),
        "health": dict(model.health),
        "saved_model": str(model.saved_model),
        "log_dir": str(model.log_dir),
        "canary": dataclasses.asdict(model.canary),
    }


def _gate(task: TaskResult) -> dict[str, Any]:
    return {
        **json.loads(task.verdict.to_json()),
        "missed_thresholds": [vars(failure) for failure in task.failures],
    }


def _data(data: DataResult) -> dict[str, Any]:
    return {
        "version_dir": str(data.version_dir),
        "versions": data.versions,
        "manifest_sha256": data.manifest.sha256,
        "num_examples": dict(data.manifest.num_examples),
        "num_rejected": dict(data.manifest.num_rejected),
        "anomalies": {split: list(lines) for split, lines in data.anomalies.items()},
        "drift": None if data.drift is None else json.loads(data.drift.to_json()),
    }
