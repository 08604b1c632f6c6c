"""Read a compiled pipeline as Kubeflow does: tasks in order, values in place of placeholders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its whole command line, and what its pod gets.

    Attributes:
        node: of the run.
        command: program and arguments.
        outcome_file: gets its outcome.
        container: image, environment and resources, as kfp writes them.
        platform: secrets, volumes and the like, as kfp-kubernetes writes them.
        num_retries: of a pod that was killed.
        upstream: nodes that must have ended; those before the exit handler are all.
    """

    node: str
    command: list[str]
    outcome_file: Path
    container: Mapping[str, Any] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)
    num_retries: int = 0
    upstream: frozenset[str] = frozenset()


def tasks(path: Path, run_id: str, folder: Path, **parameters: Any) -> Iterator[Task]:
    """Yield the tasks of a run in an order that their edges allow, the exit handler last.

    Args:
        path: the compiled YAML.
        run_id: of the run.
        folder: where each task writes its outcome.
        parameters: of the pipeline, in place of their defaults.
    """
    spec, more = yaml.safe_load_all(path.read_text())
    platform = more["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    root = spec["root"]
    inner = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    outer = {name: one for name, one in root["dag"]["tasks"].items() if name != "exit-handler-1"}
    given = {
        name: parameters.get(name, one["defaultValue"])
        for name, one in root["inputDefinitions"]["parameters"].items()
    }
    edges = {name: one.get("dependentTasks", []) for name, one in inner.items()}
    nodes = {name: one["taskInfo"]["name"] for name, one in inner.items()}
    for name in (*TopologicalSorter(edges).static_order(), *outer):
        task = {**inner, **outer}[name]
        outcome = folder / run_id / name
        values = {
            f"{{{{$.inputs.parameters['{key}']}}}}": _text(_value(one, given, run_id))
            for key, one in task["inputs"]["parameters"].items()
        }
        values["{{$.outputs.parameters['outcome'].output_file}}"] = str(outcome)
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][label]["container"]
        # Only whole arguments are replaced.
        command = [values.get(one, one) for one in (*container["command"], *container["args"])]
        assert not [one for one in command if "{{$" in one]
        yield Task(
            node=task["taskInfo"]["name"],
            command=command,
            outcome_file=outcome,
            container=container,
            platform=platform.get(label, {}),
            num_retries=int(task.get("retryPolicy", {}).get("maxRetryCount", 0)),
            upstream=frozenset(nodes[one] for one in edges.get(name, nodes)),
        )


def _value(source: Mapping[str, Any], given: Mapping[str, Any], run_id: str) -> Any:
    if "componentInputParameter" in source:
        return given[source["componentInputParameter"].removeprefix("pipelinechannel--")]
    constant = source["runtimeValue"]["constant"]
    return run_id if constant == "{{$.pipeline_job_uuid}}" else constant


def _text(value: Any) -> str:
    """Return a value as the backend writes it: whole numbers without a point, compact JSON."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(int(value)) if isinstance(value, float) else str(value)
