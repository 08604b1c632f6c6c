"""Compile a run to a pipeline of Kubeflow Pipelines 2: one task for each node.

RunConfig -> YAML. Needs neither a cluster nor the network. Every task is `terrapair
node` in the run's image. The first one, `begin`, gets the settings of the run and the
pipeline's parameters, and keeps them in the run's folder, from where the others read
them. The last one, `report`, is the exit handler: its end is that of the run.
"""

# No `from __future__ import annotations` here: kfp reads the annotations of components
# as objects, not as text.

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kfp import compiler, dsl
from tfx.dsl.compiler.compiler import Compiler

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import staged
from beam_jobs.contracts.settings import SettingsError
from models.segment import encoder_starts
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.data_build import check_beam_options
from pipeline.kubeflow import pods
from pipeline.kubeflow.config import DEFAULT, KubeflowConfig, kind_of
from pipeline.runners.data_jobs import data_jobs
from pipeline.runners.node_record import BEGIN, REPORT

COMMAND = ("terrapair", "node")
_EXPANDED = re.compile(r"\{\{|\$\(")
"""What Kubeflow, Argo or Kubernetes would replace in an argument."""


def compile_pipeline(config: RunConfig, output: Path) -> None:
    """Write the pipeline of `config` to `output`.

    Raises:
        SettingsError: see `check`, or the file's name does not end in .yaml.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise SettingsError(
            f"--output: must end in .yaml for Kubeflow Pipelines, got {output}; the JSON of Vertex "
            "AI is --target vertex"
        )
    nodes = _find_nodes(config)
    check(config, nodes)
    with (
        tempfile.TemporaryDirectory(prefix="terrapair-") as scratch,
        staged(output) as file,
        _without_stack_walks(),
    ):
        # kfp looks at the suffix.
        written = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(_make_pipeline(config, nodes), str(written))
        file.write_text(written.read_text())


def check(config: RunConfig, nodes: Mapping[str, object]) -> None:
    """Refuse a run that pods could not do.

    Args:
        config: the run.
        nodes: by id.

    Raises:
        SettingsError: no image, no database, a folder of this machine, wrong options of
            Beam, settings of pods of no node, GPUs without a type, or a password that
            no secret gives.
    """
    check_reachable_by_pods(config)
    if config.metadata is None:
        raise SettingsError(
            "metadata: needed to compile for Kubeflow, whose tasks share ML Metadata: set "
            "metadata.host, and the password by a secret of kubeflow.pods.default"
        )
    for job in data_jobs(config):
        _check_inputs(config, job)
    kubeflow = config.kubeflow
    known = {DEFAULT, BEGIN, REPORT, *nodes, *map(kind_of, nodes)}
    for key in kubeflow.pods:
        if key not in known:
            kinds = sorted(known - set(nodes))
            raise SettingsError(
                f"kubeflow.pods.{key}: no node or kind of node; known: {', '.join(kinds)}, and "
                "ids such as Trainer-flood"
            )
    for node in (BEGIN, *nodes, REPORT):
        _check_pod(kubeflow, node, config.metadata.password_variable)
    if found := _EXPANDED.search(settings.canonical_json(config)):
        raise SettingsError(
            f"{config.name}: no setting may hold {found[0]!r}, which Kubeflow and Kubernetes would "
            "replace in the arguments of a task"
        )


def _check_inputs(config: RunConfig, job: str) -> None:
    """Refuse inputs that the pod of a data job cannot read.

    Raises:
        SettingsError: options of Beam are wrong, places for Earth Engine, or a path
            that is neither on a store nor on a volume of the pod.
    """
    check_beam_options(config)
    if config.earth_engine is not None:
        raise SettingsError(
            "earth_engine: `terrapair retrain` asks there, pods do not: fetch to a store by "
            "`terrapair fetch` and name its catalog in catalogs, or set data.build=false"
        )
    mounts = [one.mount_path for one in config.kubeflow.pod_of(job).volumes or () if one.claim]
    for where, path in settings.input_paths(config):
        # Encoders are checked with the root.
        is_read = where.startswith(("catalogs", "pairs")) or ".label." in where
        is_mounted = any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)
        if is_read and "://" not in path and not is_mounted:
            raise SettingsError(
                f"{where}: pods cannot read {path!r} of this machine: copy it to an object store, "
                f"or mount a claim that has it (kubeflow.pods.{kind_of(job)}.volumes); "
                "data.build=false leaves the data jobs out"
            )


def _check_pod(kubeflow: KubeflowConfig, node: str, password_variable: str) -> None:
    pod = kubeflow.pod_of(node)
    if pod.num_gpus and pod.gpu_type is None:
        raise SettingsError(
            f"kubeflow.pods: {node} has num_gpus {pod.num_gpus} and no gpu_type: set one, such as "
            "nvidia.com/gpu"
        )
    if password_variable not in pod.variables:
        raise SettingsError(
            f"kubeflow.pods: no secret of {node} gives {password_variable}, the password of the "
            "database: add {name: <secret>, env: {<key>: "
            f"{password_variable}}}}} to kubeflow.pods.default.secrets"
        )


def check_reachable_by_pods(config: RunConfig) -> None:
    """Refuse a run without an image, or with folders that pods cannot read.

    Raises:
        SettingsError: the message names the setting.
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


@contextlib.contextmanager
def _without_stack_walks() -> Iterator[None]:
    """Let kfp not look at the whole stack for each setting of a task.

    It does so to name the setting in an error about tasks that are no containers. With
    TFX imported that takes a tenth of a second, several hundred times. Source:
    PipelineTask._ensure_container_spec_exists of kfp 2.13.
    """
    name = "_ensure_container_spec_exists"
    checked = getattr(dsl.PipelineTask, name)
    setattr(dsl.PipelineTask, name, lambda _: None)
    try:
        yield
    finally:
        setattr(dsl.PipelineTask, name, checked)


def _find_nodes(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return node -> nodes that it waits for, in topological order.

    The data jobs come first. All others wait for all of them: a run without new scenes
    does nothing, but one data set with new scenes is enough.
    """
    jobs = tuple(data_jobs(config))
    compiled = Compiler().compile(create_pipeline(config))
    nodes = [node.pipeline_node for node in compiled.nodes]
    upstream = {node.node_info.id: tuple(sorted(node.upstream_nodes)) for node in nodes}
    return {
        **{job: () for job in jobs},
        **{node: before or jobs for node, before in upstream.items()},
    }


def _make_pipeline(config: RunConfig, nodes: Mapping[str, tuple[str, ...]]) -> Any:
    """Return the pipeline as kfp compiles it."""
    # Tasks know neither a local folder nor what the scheduler of this machine tells.
    text = settings.canonical_json(dataclasses.replace(config, local_root="", notify=None))
    begun = ["--run", config.root.rstrip("/")]

    def add(component: Callable[..., Any], node: str, **parameters: Any) -> dsl.PipelineTask:
        # Kubeflow replaces the placeholder where it is the whole value of a parameter.
        # In an argument it would arrive as it stands here.
        task = component(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **parameters)
        task.set_display_name(node)
        # TFX has its own cache, which knows what a node reads.
        task.set_caching_options(False)
        pods.apply(task, config.kubeflow.pod_of(node))
        return task

    def run(overrides: list = [], thresholds: dict = {}, span: int = 0) -> None:  # noqa: B006
        report = add(_component(config, REPORT, begun), REPORT)
        with dsl.ExitHandler(report):
            first = add(
                _first_component(config, text),
                BEGIN,
                overrides=overrides,
                thresholds=thresholds,
                span=span,
            )
            tasks: dict[str, dsl.PipelineTask] = {}
            for node, upstream in nodes.items():
                tasks[node] = add(_component(config, node, begun), node)
                tasks[node].after(*(tasks[one] for one in upstream) if upstream else (first,))

    description = f"terrapair {config.name}, config {settings.sha256(config)[:12]}"
    return dsl.pipeline(run, name=config.name, description=description)


def _component(config: RunConfig, node: str, begun: list[str]) -> Callable[..., Any]:
    """Return the component of a node, with a name of its own."""

    def task(run_id: str, outcome: dsl.OutputPath(str)):  # type: ignore[valid-type, no-untyped-def]
        return dsl.ContainerSpec(
            image=config.container_image,
            command=list(COMMAND),
            args=[*begun, "--run-id", run_id, "--node", node, "--outcome-file", outcome],
        )

    task.__name__ = node
    return dsl.container_component(task)


def _first_component(config: RunConfig, text: str) -> Callable[..., Any]:
    """Return the component that gets the settings and the pipeline's parameters."""

    def task(  # type: ignore[no-untyped-def]
        run_id: str,
        overrides: list,
        thresholds: dict,
        span: int,
        outcome: dsl.OutputPath(str),  # type: ignore[valid-type]
    ):
        parameters = ["--overrides", overrides, "--thresholds", thresholds, "--span", span]
        node = ["--run-id", run_id, "--node", BEGIN, "--outcome-file", outcome]
        return dsl.ContainerSpec(
            image=config.container_image,
            command=list(COMMAND),
            args=["--config", text, *parameters, *node],
        )

    task.__name__ = BEGIN
    return dsl.container_component(task)
