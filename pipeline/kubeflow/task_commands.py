"""The verbs of a compiled pipeline: `compile` writes it, its tasks run `node`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import DataError
from beam_jobs.terminal.options import config_option, verb
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from pipeline.config import RunConfig, load_text
from pipeline.kubeflow.parameters import Parameters, parse_parameters
from pipeline.metadata_store import Place
from pipeline.run_settings import find_metadata, load, run_config_option
from pipeline.runners import root, whole_run
from pipeline.runners.node_record import BEGIN, REPORT, NodeRecord, RunFolder


@verb("node", needs=("pipeline",))
@config_option("the settings of the run, or a shipped one by name, e.g. demo")
@click.option(
    "--run", "run_root", help="Root of the run, in place of --config: after --node begin."
)
@click.option("--run-id", required=True, help="Id of the run; all its nodes have the same.")
@click.option(
    "--node",
    "name",
    required=True,
    help="Id of a node, such as build-pairs or Trainer-flood; begin or report.",
)
@click.option("--overrides", "json_overrides", default="[]", help="As --set: a JSON list of A.B=C.")
@click.option(
    "--thresholds",
    "json_thresholds",
    default="{}",
    help='With --config: JSON such as {"flood": {"min_mean_iou": 0.7}}; probe for the encoder.',
)
@click.option(
    "--span", type=click.IntRange(min=0), default=0, help="With --config: span to read; 0 = newest."
)
@click.option(
    "--outcome-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the outcome, one word; refusals then end with exit code 0, too.",
)
def node(
    session: Session,
    config_path: str | None,
    overrides: tuple[str, ...],
    run_root: str | None,
    run_id: str,
    name: str,
    json_overrides: str,
    json_thresholds: str,
    span: int,
    outcome_file: Path | None,
) -> ExitCode:
    """Run one node of the pipeline in this process, as a task of Kubeflow does.

    The nodes before it must have ended under the same --run-id, in any process. A node
    after one that was refused is skipped. After a kill, the same command goes on.
    `begin` checks and keeps the settings of the run, so that later nodes need only
    --run. Next come the data jobs, `build-pairs` and `build-labels-<task>`. `report`
    writes the report at the end. docs/kubeflow.md describes the record.

    \b
    Example:
      terrapair node --config demo --run-id monday --node begin
      terrapair node --run runs/demo --run-id monday --node build-labels-flood
    """
    if bool(config_path) == bool(run_root):
        raise click.UsageError("give --config or --run, one of them")
    # Kubeflow starts programs with umask 0, so that anybody could write the files.
    os.umask(os.umask(0o022) | 0o022)
    parameters = parse_parameters(json_overrides, json_thresholds, span)
    if run_root:
        folder = RunFolder(run_root, run_id)
        if overrides or parameters != Parameters():
            raise click.UsageError("a run that was begun keeps its settings: they need --config")
        config = _load_begun(folder)
    else:
        config = parameters.applied(lambda more: load(str(config_path), (*overrides, *more)))
        folder = RunFolder(config.root, run_id)
        if folder.read_config() is not None:
            folder.keep_config(whole_run.resolved_text(config))
    root.check_names(config)
    place = find_metadata(config)
    if isinstance(place, str) and "://" in place:
        raise settings.SettingsError(
            f"metadata: a run whose root is an object store needs a database, got root "
            f"{config.root!r} and neither metadata nor local_root: set metadata.host"
        )
    outcome, code = _run_node(session, config, place, folder, name)
    if outcome_file is not None:
        outcome_file.parent.mkdir(parents=True, exist_ok=True)
        outcome_file.write_text(outcome)
        # The scheduler goes by the outcome; the last task's exit code ends the run.
        return code if name == REPORT and code != ExitCode.NOTHING_NEW else ExitCode.DONE
    return code


def _run_node(
    session: Session, config: RunConfig, place: Place, folder: RunFolder, name: str
) -> tuple[str, ExitCode]:
    """Run a node or a task around the nodes; return its outcome and exit code."""
    # Only now: importing Beam and TFX takes seconds that a wrong setting should not
    # cost. A data job needs no TFX.
    from pipeline.runners import data_jobs

    jobs = data_jobs.data_jobs(config)
    if name in jobs and folder.read_config() is not None:
        return _run_data_job(session, config, folder, name)
    from components.trainers import workers
    from pipeline.runners import local, one_node

    if not session.verbose:
        silence_absl()
    if name == BEGIN or folder.read_config() is None:
        with root.hold_node(config.root, folder.run_id, BEGIN):
            one_node.begin_run(config, place, folder)
    if name == BEGIN:
        session.result({"node": name, "outcome": "done"}, f"{name}: {folder.path}")
        return "done", ExitCode.DONE
    if name in jobs:
        return _run_data_job(session, config, folder, name)
    if name == REPORT:
        with root.hold_node(config.root, folder.run_id, REPORT):
            ended = one_node.end_run(config, place, folder)
        for reason in ended.reasons:
            session.note(f"{ended.outcome}: {reason}")
        parts = ended.finished.parts if ended.finished else ()
        document = ended.finished.document if ended.finished else {}
        session.result({**document, "outcome": ended.outcome}, *parts, f"{name}: {ended.outcome}")
        return ended.outcome, ended.exit_code
    with session.progress() as progress:

        def on_step(_: str, step: int, total: int, values: Mapping[str, float]) -> None:
            progress.update(step, total, values)

        progress.start(name)
        nodes = local.compile_nodes(config, place, folder.run_id, progress.note)
        hearing = one_node.Hearing(on_step=on_step, on_notice=progress.note)
        record = one_node.run_node(nodes, folder, name, hearing, tuple(jobs))
    workers.tell_end(os.environ)
    return _told(session, record)


def _run_data_job(
    session: Session, config: RunConfig, folder: RunFolder, name: str
) -> tuple[str, ExitCode]:
    """Run a data job of a run that was begun; return its outcome and exit code."""
    from pipeline.runners import data_jobs

    with session.progress() as shown:
        progress = data_jobs.JobProgress(
            stage=shown.stage, on_progress=shown.update, on_notice=shown.note
        )
        record = data_jobs.run_job(config, folder, name, progress)
    return _told(session, record)


def _told(session: Session, record: NodeRecord) -> tuple[str, ExitCode]:
    """Show how a node ended; return its outcome and exit code."""
    why = f": {record.origin}: {record.reason}" if record.reason else ""
    version = f", version {record.version}" if record.version else ""
    session.result(settings.to_dict(record), f"{record.node}: {record.outcome}{version}{why}")
    return record.outcome, ExitCode(record.exit_code)


def _load_begun(folder: RunFolder) -> RunConfig:
    """Return the settings of a run that was begun.

    Raises:
        DataError: it was not.
    """
    text = folder.read_config()
    if text is None:
        raise DataError(
            f"{folder.config_path}: no settings: begin the run first, --config C --run-id "
            f"{folder.run_id} --node {BEGIN}",
            "missing_file",
        )
    return load_text(text, folder.config_path, (), os.environ)


@verb("compile", needs=("pipeline",))
@run_config_option
@click.option("--output", required=True, type=click.Path(dir_okay=False), help="File to write.")
@click.option(
    "--target",
    type=click.Choice(["kubeflow", "vertex"]),
    default="kubeflow",
    show_default=True,
    help="kubeflow: YAML of Kubeflow Pipelines; vertex: JSON of Vertex AI.",
)
def compile_(
    session: Session, config_path: str, overrides: tuple[str, ...], output: str, target: str
) -> None:
    """Write the pipeline's specification for Kubeflow Pipelines 2; needs no cluster.

    The first tasks build the data, each other node is one task. kubeflow.pods of the
    config sets what its pod gets.
    docs/kubeflow.md describes tasks, parameters and settings.

    \b
    Example:
      terrapair compile --config pipeline/configs/kubeflow.yaml --output run.yaml
    """
    config = load(config_path, overrides)
    root.check_names(config)
    if target == "kubeflow":
        from pipeline.kubeflow.compiling import compile_pipeline as compile_it
    else:
        from pipeline.runners.vertex import compile_vertex as compile_it

    if not session.verbose:
        silence_absl()
    compile_it(config, Path(output))
    session.result({"specification": output}, f"Pipeline specification: {output}")
