"""Verbs on models, from `run` to `serve-check`.

Each reads its options and the environment, and calls functions of this package.
TensorFlow and TFX are imported inside the verbs, after settings and input files are
checked: a wrong setting then costs a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import click
import yaml

from beam_jobs.contracts import object_store, settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import DataError
from beam_jobs.storage import locks
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import as_usage, check_groups, config_option, verb
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from models.public_weights.catalog import KNOWN, find_weights
from pipeline.config import RunConfig, load_run_config, load_text
from pipeline.cross_validation.choice import choose_tasks
from pipeline.kubeflow.parameters import Parameters, parse_parameters
from pipeline.metadata_store import Place, check_place, find_place
from pipeline.runners import root, whole_run
from pipeline.runners.node_record import BEGIN, REPORT, RunFolder
from pipeline.runners.whole_run import Finished, SpanRule
from pipeline.service import notification

_EARTH_ENGINE = ("earthengine",)
_PIPELINE = ("pipeline",)
CONFIGS_DIR = Path(__file__).parent / "configs"
"""The shipped configs."""
_run_config = config_option("the settings of the run, or a shipped one by name, e.g. demo", True)
_data_option = click.option(
    "--data",
    type=click.Path(),
    help="Folder of real data: what lies in it replaces the catalogs of the config.",
)
_verify_option = click.option(
    "--verify",
    "verify_files",
    is_flag=True,
    help="Compare the content of all input files and shards, also of those whose size and time "
    "are as before.",
)


@verb("run", needs=_PIPELINE)
@_run_config
@_data_option
@_verify_option
@click.option(
    "--new-span",
    is_flag=True,
    help="Build the scenes that no earlier span used as a new span; exit code 5 if there are none.",
)
def run(
    session: Session,
    config_path: str,
    overrides: tuple[str, ...],
    data: str | None,
    verify_files: bool,
    new_span: bool,
) -> ExitCode:
    """Run the whole pipeline on this machine.

    It builds the data, pretrains, trains the tasks, publishes, and shows the report.
    With `encoder: <published folder>` in place of `pretrain:`, it builds no pairs and
    trains the tasks at once. Exit code 0 means that every model is published, 4 that a
    gate refused one. What has not changed since the last run is taken from the cache.

    \b
    Example:
      terrapair run --config pipeline/configs/demo.yaml
      terrapair run --config pipeline/configs/local.yaml --data exports
      terrapair run --config local.yaml --data exports --new-span --set spans.last=6
    """
    config = _load(config_path, overrides)
    root.check_names(config)
    _check_inputs(config, data)
    config = _with_data(config, data)
    place = _find_metadata(config)
    with root.hold(config):
        finished = whole_run.run_whole(
            config, place, session, "new" if new_span else "newest", verify_files=verify_files
        )
    return _show(session, finished)


@verb("retrain", needs=_PIPELINE)
@_run_config
@_data_option
@_verify_option
def retrain(
    session: Session,
    config_path: str,
    overrides: tuple[str, ...],
    data: str | None,
    verify_files: bool,
) -> ExitCode:
    """Bring new scenes into service, if there are any: `run --new-span` on a schedule.

    If the config names places for Earth Engine, newer scenes are fetched first.
    Exit code 0 means that every model of the run is in service, 4 that a gate refused
    data or a model, 5 that no scene is new. A model leaves service only for one that
    its gate blessed. If another process works on the run, this one leaves at once with
    exit code 1. After an attempt that was killed, the next one goes on. `terrapair
    history` shows the attempts. docs/retraining.md tells how to be notified.

    \b
    Example:
      terrapair retrain --config pipeline/configs/local.yaml --data exports
    """
    config = _load(config_path, overrides)
    root.check_names(config)
    _check_local_root(config)
    notify = config.notify
    secret = b"" if notify is None else notification.read_secret(notify, os.environ)
    place = _find_metadata(config)
    from pipeline.service import retraining

    if config.earth_engine is not None:
        check_groups("retrain", _EARTH_ENGINE)

    def run_it(spans: SpanRule) -> Finished:
        # In the attempt, because a missing catalog is told and recorded, too.
        _check_inputs(config, data)
        given = _with_data(config, data)
        if given.earth_engine is not None:
            _fetch_new(session, given, given.earth_engine.places)
        return whole_run.run_whole(given, place, session, spans, verify_files=verify_files)

    with root.hold(config):
        ended = retraining.retrain(config, run_it)
    if notify is not None:
        for line in notification.tell(notify, retraining.message(config, ended.attempt), secret):
            # Also with --quiet: a schedule has no other witness.
            click.echo(f"warning: {line}", err=True)
    if isinstance(ended.result, Exception):
        raise ended.result
    return _show(session, ended.result)


def _fetch_new(session: Session, config: RunConfig, places: str) -> None:
    """Fetch what is new at the places of the config.

    Raises:
        DataError: see `new_scenes.fetch_new`.
    """
    inputs.check_file(places, "places")
    from beam_jobs.earth_engine import connection
    from pipeline.service import new_scenes

    today = datetime.datetime.now(datetime.timezone.utc).date()
    with session.stage("fetch from Earth Engine") as update:
        summary = new_scenes.fetch_new(
            config, connection.from_environment(os.environ, "fetch"), today, update
        )
    if summary is not None:
        session.note(f"{summary.state.num_done} pairs are in {summary.catalog}")


@verb("config")
@_run_config
def config(session: Session, config_path: str, overrides: tuple[str, ...]) -> None:
    """Show the settings of a run, with all defaults, as YAML or JSON; run nothing.

    \b
    Example:
      terrapair config --config demo --set pretrain.num_steps=50
    """
    values = settings.to_dict(_load(config_path, overrides))
    session.result(values, yaml.safe_dump(values, sort_keys=False).rstrip())


@verb("report", needs=_PIPELINE)
@_run_config
def report(session: Session, config_path: str, overrides: tuple[str, ...]) -> ExitCode:
    """Show the report of the last run again; exit codes are those of `run`.

    \b
    Example:
      terrapair report --config pipeline/configs/demo.yaml
    """
    config = _load(config_path, overrides)
    place = _find_metadata(config)
    if config.metadata is None:
        inputs.check_file(config.metadata_path, "metadata of the last run")
    check_place(place, is_written=False)
    _quiet_absl(session)
    return _show(session, whole_run.read_finished(config, place))


@verb("node", needs=_PIPELINE)
@config_option("the settings of the run, or a shipped one by name, e.g. demo")
@click.option(
    "--run", "run_root", help="Root of the run, in place of --config: after --node begin."
)
@click.option("--run-id", required=True, help="Id of the run; all its nodes have the same.")
@click.option(
    "--node", "name", required=True, help="Id of a node, such as Trainer-flood; begin or report."
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
    --run. `report` writes the report at the end. docs/kubeflow.md describes the record.

    \b
    Example:
      terrapair node --config demo --run-id monday --node begin
      terrapair node --run runs/demo --run-id monday --node ImportExampleGen-flood
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
        config = parameters.applied(lambda more: _load(str(config_path), (*overrides, *more)))
        folder = RunFolder(config.root, run_id)
        if folder.read_config() is not None:
            folder.keep_config(whole_run.resolved_text(config))
    root.check_names(config)
    place = _find_metadata(config)
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
    # Only now: importing TFX takes seconds that a wrong setting should not cost.
    from pipeline.runners import local, one_node

    _quiet_absl(session)
    if name == BEGIN or folder.read_config() is None:
        one_node.begin_run(config, place, folder)
    if name == BEGIN:
        session.result({"node": name, "outcome": "done"}, f"{name}: {folder.path}")
        return "done", ExitCode.DONE
    if name == REPORT:
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
        record = one_node.run_node(nodes, folder, name, hearing)
    why = f": {record.origin}: {record.reason}" if record.reason else ""
    session.result(settings.to_dict(record), f"{name}: {record.outcome}{why}")
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


@verb("compile", needs=_PIPELINE)
@_run_config
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

    Each node is one task; kubeflow.pods of the config sets what its pod gets.
    docs/kubeflow.md describes tasks, parameters and settings.

    \b
    Example:
      terrapair compile --config pipeline/configs/kubeflow.yaml --output run.yaml
    """
    config = _load(config_path, overrides)
    root.check_names(config)
    if target == "kubeflow":
        from pipeline.kubeflow.compiling import compile_pipeline as compile_it
    else:
        from pipeline.runners.vertex import compile_vertex as compile_it

    _quiet_absl(session)
    compile_it(config, Path(output))
    session.result({"specification": output}, f"Pipeline specification: {output}")


@verb("serve-check")
@_run_config
def serve_check(session: Session, config_path: str, overrides: tuple[str, ...]) -> ExitCode:
    """Compare published models with Keras; exit code 4 if an answer differs.

    Each model is loaded in a process of its own, as a server would load it.

    \b
    Example:
      terrapair serve-check --config pipeline/configs/demo.yaml
    """
    config = _load(config_path, overrides)
    inputs.check_folder(config.serving_dir, "published models")
    from pipeline.serving.check import check_published, render

    results = check_published(config.serving_dir, os.environ)
    document = [{**dataclasses.asdict(result), "is_ok": result.is_ok} for result in results]
    session.result(document, render(results))
    return ExitCode.DONE if all(result.is_ok for result in results) else ExitCode.REFUSED


@verb("serve-config")
@click.option("--run", "run_root", required=True, help="Folder of a run, with serving/ in it.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder of the files."
)
@click.option(
    "--stable", multiple=True, metavar="MODEL=VERSION", help="Version to serve. [the newest]"
)
@click.option(
    "--canary", multiple=True, metavar="MODEL=VERSION", help="Second version to serve beside it."
)
@click.option(
    "--models-uri",
    default="/models",
    show_default=True,
    help="Where the models are: a mounted folder, s3:// or gs://, of which servers copy them.",
)
@click.option("--secret", default="", help="Kubernetes Secret with credentials as variables.")
@click.option("--batching", is_flag=True, help="Join requests; all must have one size.")
def serve_config(
    session: Session,
    run_root: str,
    output: Path,
    stable: tuple[str, ...],
    canary: tuple[str, ...],
    models_uri: str,
    secret: str,
    batching: bool,
) -> None:
    """Write the files of a model server: TensorFlow Serving for a run's models.

    They are the server's own files, a compose file and Kubernetes manifests. Clients
    ask for the version labels `stable` and `canary`.

    \b
    Example:
      terrapair serve-config --run runs/demo --output runs/demo/server
      terrapair serve-config --run runs/demo --output server --canary flood=1796011622
    """
    serving_dir = f"{run_root.rstrip('/')}/serving"
    inputs.check_folder(serving_dir, "published models")
    from pipeline.serving import serve_config as serving
    from pipeline.serving.server_files import Batching, Deployment

    models = serving.find_models(serving_dir, serving.parse_versions(stable, canary))
    with as_usage():
        deployment = Deployment(
            models_uri=models_uri, secret=secret, batching=Batching() if batching else None
        )
    written = serving.write_files(models, deployment, serving_dir, output)
    document = {"models": {one.name: dict(one.versions) for one in models}, "files": written}
    session.result(document, *map(str, written))


@verb("claim-check")
@_run_config
@_data_option
@_verify_option
def claim_check(
    session: Session,
    config_path: str,
    overrides: tuple[str, ...],
    data: str | None,
    verify_files: bool,
) -> None:
    """Measure whether pretraining helps: by how much, and with how few labels.

    docs/claim_check.md describes how it compares, and what the page shows.

    \b
    Example:
      terrapair claim-check --config pipeline/configs/claim.yaml
    """
    config = _load(config_path, overrides)
    _check_inputs(config, data)
    if config.claim is None:
        raise settings.SettingsError(
            f"{config_path}: claim: required by claim-check, but not given; see docs/claim_check.md"
        )
    if config.window is not None:
        raise settings.SettingsError(
            f"{config_path}: spans: claim-check compares trainings on one span: set spans=null"
        )
    config = _with_data(config, data)
    with root.hold(config):
        _claim_check(session, config, verify_files)


def _claim_check(session: Session, config: RunConfig, verify_files: bool) -> None:
    from pipeline.claim_check import claim, page
    from pipeline.data_build import build_data

    whole_run.write_resolved(session, config)
    with session.progress() as progress:
        built = build_data(config, progress.stage, progress.update, verify_files=verify_files)
        document = claim.check_claim(config, built, progress.stage, progress.update)
    session.result(document, page.sentence(document), f"Page: {config.claim_dir}/{claim.PAGE_FILE}")


@verb("cross-validate", needs=_PIPELINE)
@_run_config
@_data_option
@_verify_option
@click.option(
    "--task",
    "names",
    multiple=True,
    metavar="NAME",
    help="Task to validate; may be repeated. [all tasks of the config]",
)
def cross_validate(
    session: Session,
    config_path: str,
    overrides: tuple[str, ...],
    data: str | None,
    verify_files: bool,
    names: tuple[str, ...],
) -> None:
    """Measure a task by cross-validation over blocks: all labels train, all are tested.

    It needs the setting pairs.split.folds. docs/splits.md describes the folds, and what
    the score means. Nothing is published.

    \b
    Example:
      terrapair cross-validate --config demo --set pairs.split.folds=5 --task flood
    """
    config = _load(config_path, overrides)
    _check_inputs(config, data)
    tasks = choose_tasks(config, names)
    config = _with_data(config, data)
    with root.hold(config):
        whole_run.write_resolved(session, config)
        from pipeline.cross_validation import page, validation

        with session.progress() as progress:
            found = validation.cross_validate(config, tasks, progress, verify_files=verify_files)
    session.result(
        found.document,
        *page.terminal_parts(found.document, found.pooled),
        f"Scores: {config.folds_dir}/{validation.DOCUMENT_FILE}",
        f"Page: {config.folds_dir}/{validation.PAGE_FILE}",
    )


@verb("data-service")
@click.option(
    "--dispatcher",
    default="",
    metavar="GRPC://HOST:PORT",
    help="Start a worker of this dispatcher.",
)
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Name under which others reach this server. With localhost it answers this machine "
    "only; with another name it listens on every interface.",
)
@click.option("--port", default=0, help="Port to listen on; 0 takes any free one.")
def data_service(session: Session, dispatcher: str, host: str, port: int) -> None:
    """Serve input to trainers: run a dispatcher, or one of its workers.

    Trainers name it in the setting input.data_service; see docs/input_pipeline.md.

    \b
    Example:
      terrapair data-service --host A --port 5050
      terrapair data-service --host B --dispatcher grpc://A:5050
    """
    from models.reading import data_service as service
    from models.reading.loopback import LOCAL_HOSTS

    remote = dispatcher.removeprefix(service.PROTOCOL).rpartition(":")[0]
    if remote and remote not in LOCAL_HOSTS and host in LOCAL_HOSTS:
        raise click.UsageError(
            f"trainers of {dispatcher} cannot reach a worker on {host}: give its name by --host"
        )
    if dispatcher:
        # A trainer sends its graph, but not the file systems that the graph opens.
        object_store.load_filesystem("s3://")
        server = service.start_worker(dispatcher, host, port)
        session.result(
            {"dispatcher": dispatcher, "host": host}, f"worker of {dispatcher} on {host}"
        )
    else:
        server = service.start_dispatcher(port, host)
        target = f"{service.PROTOCOL}{host}:{server.target.rpartition(':')[2]}"
        session.result({"dispatcher": target}, f"dispatcher {target}")
    # Not the server's own join: an interrupt would wait for it.
    threading.Event().wait()


@verb("import-weights")
@click.option(
    "--file", "path", required=True, type=click.Path(), help=".pth of torch.save, or .safetensors."
)
@click.option(
    "--weights",
    required=True,
    metavar="NAME|YAML",
    help=f"What the file is: {', '.join(KNOWN)}; or a YAML file.",
)
@click.option(
    "--output", required=True, type=click.Path(), help="New folder for the published encoder."
)
@click.option(
    "--bands",
    help="Bands of your shards, in their order, e.g. B2,B3,B4. [all that the file knows]",
)
@click.option(
    "--prefix", help="What stands before conv1.weight in the file, if it holds several networks."
)
def import_weights(
    session: Session, path: str, weights: str, output: str, bands: str | None, prefix: str | None
) -> None:
    """Publish an encoder of public weights: those of a PyTorch ResNet.

    docs/public_weights.md names the files that are known.

    \b
    Example, for shards of level 2A:
      terrapair import-weights --file B13_rn50_moco.pth --output encoders/s2 \\
        --weights ssl4eo-s12-s2-moco-resnet50 \\
        --bands B1,B2,B3,B4,B5,B6,B7,B8,B8A,B9,B11,B12
    """
    with as_usage():
        known = find_weights(weights)
    inputs.check_file(path, "weights")
    from models.public_weights.importing import import_encoder

    # The folder must not exist before, so the lock lies beside it.
    with locks.hold(f"{output.rstrip('/')}.lock", output):
        imported = import_encoder(
            known, path, output, bands=bands.split(",") if bands else None, prefix=prefix
        )
    session.result(
        {"encoder": output, "sensor": known.sensor},
        *imported.lines(known),
        f"Encoder: {output}  (in a run, in place of pretrain: encoder: {output})",
    )


def _find_config(path: str) -> str:
    """Return the file of a shipped config that is given by its name, else the path."""
    shipped = CONFIGS_DIR / f"{path}.yaml"
    is_name = "/" not in path and not Path(path).exists()
    return str(shipped) if is_name and shipped.is_file() else path


def _load(config_path: str, overrides: tuple[str, ...]) -> RunConfig:
    if config_path.startswith("{"):
        # As `compile` writes them into the first task.
        config = load_text(config_path, "--config", overrides, os.environ)
    else:
        config = load_run_config(_find_config(config_path), overrides, os.environ)
    # ML Metadata remembers paths: relative ones would point elsewhere when the next run
    # starts from another folder.
    if "://" not in config.root:
        config = dataclasses.replace(config, root=str(Path(config.root).resolve()))
    if config.local_root:
        config = dataclasses.replace(config, local_root=str(Path(config.local_root).resolve()))
    return config


def _find_metadata(config: RunConfig) -> Place:
    """Return where the metadata of a run are.

    Raises:
        SettingsError: the password is not set.
    """
    return find_place(config.metadata, config.metadata_path, os.environ)


def _check_local_root(config: RunConfig) -> None:
    """Refuse a run that needs a folder of this machine and names none.

    Raises:
        SettingsError: it does.
    """
    if "://" in config.root and not config.local_root:
        raise settings.SettingsError(
            f"local_root: needed when root is an object store, got root {config.root!r}: name a "
            "folder of this machine for ML Metadata and simulated scenes"
        )


def _check_inputs(config: RunConfig, data: str | None) -> None:
    """Refuse a run whose files are missing, before anything heavy is imported.

    Raises:
        DataError: the folder of `--data`, a catalog, scenes or an encoder is missing.
        SettingsError: see `_check_local_root`.
    """
    _check_local_root(config)
    if data is not None:
        inputs.check_folder(data, "data")
    for source in config.catalogs if data is None else ():
        if source.layout == "stac":
            inputs.check_catalog(source.path)
        elif source.layout != "simulated":
            inputs.check_folder(source.path, "scenes")
        for split_list in source.split_lists:
            inputs.check_file(split_list, "split list")
    for task in config.tasks:
        for path in task.segment.encoder_paths.values():
            inputs.check_folder(path, "encoder")


def _with_data(config: RunConfig, data: str | None) -> RunConfig:
    if data is None:
        return config
    from beam_jobs.catalogs.catalog import discover

    return dataclasses.replace(config, catalogs=discover(data))


def _quiet_absl(session: Session) -> None:
    if not session.verbose:
        silence_absl()


def _show(session: Session, finished: Finished) -> ExitCode:
    session.result(finished.document, *finished.parts)
    return finished.exit_code
