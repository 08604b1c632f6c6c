"""Vertex AI: compile the pipeline to the PipelineJob that TFX writes for it.

RunConfig -> JSON file with the same components as a local run. Needs neither a cluster
nor the network. Kubeflow's own backend does not load this dialect; `pipeline/kubeflow`
compiles for that.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
    KubeflowV2DagRunner,
    KubeflowV2DagRunnerConfig,
)

from beam_jobs.contracts.locations import staged
from beam_jobs.contracts.settings import SettingsError
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.kubeflow.compiling import check_reachable_by_pods
from pipeline.runners import pod


def compile_vertex(config: RunConfig, output: Path) -> None:
    """Write the PipelineJob of `config` to `output`.

    Raises:
        SettingsError: no container image, or the root or an encoder is a path of this
            machine, which pods cannot read, or the file's name does not end in .json.
    """
    if output.suffix != ".json":
        raise SettingsError(f"--output: must end in .json for Vertex AI, got {output}")
    check_reachable_by_pods(config)
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        written = _write_job(config, Path(scratch))
    with staged(output) as file:
        file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _write_job(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Return the PipelineJob, in which every step starts through our entry point."""
    runner = KubeflowV2DagRunner(
        config=KubeflowV2DagRunnerConfig(default_image=config.container_image),
        output_dir=str(folder),
        output_filename="job.json",
    )
    runner.run(create_pipeline(config), write_out=True)
    specification: dict[str, Any] = json.loads((folder / "job.json").read_text())
    for executor in specification["pipelineSpec"]["deploymentSpec"]["executors"].values():
        container = executor.get("container", {})
        # TFX has a setting for the command of executors, but none for ExampleGen's
        # driver, which reads the object store too.
        driver = container.get("lifecycle", {}).get("preCacheCheck", {})
        for step in (container, driver):
            if step.get("command", [])[:2] == ["python", "-m"]:
                step["command"] = [*pod.COMMAND, *step["command"][2:]]
    return specification
