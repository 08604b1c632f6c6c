"""Kubeflow: compile the pipeline to a Kubeflow Pipelines v2 specification.

RunConfig -> JSON file with the same components as a local run. Needs neither a cluster
nor the network.
"""

from __future__ import annotations

import json
from pathlib import Path

from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
    KubeflowV2DagRunner,
    KubeflowV2DagRunnerConfig,
)

from beam_jobs.contracts.settings import SettingsError
from models.segment import encoder_starts
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.runners import pod


def compile_pipeline(config: RunConfig, output: Path) -> None:
    """Write the specification of `config` to `output`.

    Raises:
        SettingsError: no container image, or the root or an encoder is a path of this
            machine, which pods cannot read.
    """
    if not config.container_image:
        raise SettingsError(
            "container_image: needed to compile for Kubeflow: name an image that holds this "
            "package and its requirements"
        )
    if "://" not in config.root:
        raise SettingsError(
            f"root: must be an object store (s3://, gs://) for Kubeflow, got {config.root!r}"
        )
    for i, task in enumerate(config.tasks):
        for path in encoder_starts(task.segment, None).values():
            if "://" not in path:
                raise SettingsError(
                    f"tasks[{i}] starts from {path!r}, but pods cannot read folders of this "
                    "machine: copy the encoder to an object store (s3://, gs://) and name it there"
                )
    output.parent.mkdir(parents=True, exist_ok=True)
    runner = KubeflowV2DagRunner(
        config=KubeflowV2DagRunnerConfig(default_image=config.container_image),
        output_dir=str(output.parent),
        output_filename=output.name,
    )
    runner.run(create_pipeline(config), write_out=True)
    specification = json.loads(output.read_text())
    for executor in specification["pipelineSpec"]["deploymentSpec"]["executors"].values():
        container = executor.get("container", {})
        # TFX has a setting for the command of executors, but none for ExampleGen's
        # driver, which reads the object store too.
        driver = container.get("lifecycle", {}).get("preCacheCheck", {})
        for step in (container, driver):
            if step.get("command", [])[:2] == ["python", "-m"]:
                step["command"] = [*pod.COMMAND, *step["command"][2:]]
    output.write_text(json.dumps(specification, indent=2, sort_keys=True) + "\n")
