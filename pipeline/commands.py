"""Verbs on models, from `run` to `import-weights`.

Each reads its options and the environment, and calls functions of this package.
TensorFlow and TFX are imported inside the verbs, after settings and input files are
checked: a wrong setting then costs a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading

import click
import yaml

from beam_jobs.contracts import object_store, settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.storage import locks
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import as_usage, check_groups, verb
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from models.public_weights.catalog import KNOWN, find_weights
from pipeline.config import RunConfig
from pipeline.cross_validation.choice import choose_tasks
from pipeline.metadata_store import check_place
from pipeline.run_settings import find_metadata, load, run_config_option
from pipeline.runners import root, whole_run
from pipeline.runners.whole_run import FindDrift, Finished, SpanRule
from pipeline.service import notification

_EARTH_ENGINE = ("earthengine",)
_PIPELINE = ("pipeline",)
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
@run_config_option
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
    config = load(config_path, overrides)
    root.check_names(config)
    _check_inputs(config, data)
    config = _with_data(config, data)
    place = find_metadata(config)
    spans: SpanRule = "new" if new_span or config.data.new_span else "newest"
    with root.hold(config):
        finished = whole_run.run_whole(config, place, session, spans, verify_files=verify_files)
    return _show(session, finished)


@verb("retrain", needs=_PIPELINE)
@run_config_option
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

    If the config names places for Earth Engine, newer scenes are fetched first. Without
    a new scene, it trains only if the newest span, which no published model knows, has
    drifted from the data of the models in service. Exit code 0 means that every model
    of the run is in service, 4 that a gate refused data or a model, 5 that there was
    nothing to do. A model leaves service only for one that its gate blessed. If another
    process works on the run, this one leaves at once with exit code 1. After an attempt
    that was killed, the next one goes on. `terrapair history` shows the attempts.
    docs/retraining.md tells how to be notified.

    \b
    Example:
      terrapair retrain --config pipeline/configs/local.yaml --data exports
    """
    config = load(config_path, overrides)
    root.check_names(config)
    _check_local_root(config)
    notify = config.notify
    secret = b"" if notify is None else notification.read_secret(notify, os.environ)
    place = find_metadata(config)
    from pipeline.service import retraining

    if config.earth_engine is not None:
        check_groups("retrain", _EARTH_ENGINE)

    def run_it(spans: SpanRule, find_drift: FindDrift) -> Finished:
        # In the attempt, because a missing catalog is told and recorded, too.
        _check_inputs(config, data)
        given = _with_data(config, data)
        if given.earth_engine is not None:
            _fetch_new(session, given, given.earth_engine.places)
        return whole_run.run_whole(
            given, place, session, spans, verify_files=verify_files, find_drift=find_drift
        )

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
@run_config_option
def config(session: Session, config_path: str, overrides: tuple[str, ...]) -> None:
    """Show the settings of a run, with all defaults, as YAML or JSON; run nothing.

    \b
    Example:
      terrapair config --config demo --set pretrain.num_steps=50
    """
    values = settings.to_dict(load(config_path, overrides))
    session.result(values, yaml.safe_dump(values, sort_keys=False).rstrip())


@verb("report", needs=_PIPELINE)
@run_config_option
def report(session: Session, config_path: str, overrides: tuple[str, ...]) -> ExitCode:
    """Show the report of the last run again; exit codes are those of `run`.

    \b
    Example:
      terrapair report --config pipeline/configs/demo.yaml
    """
    config = load(config_path, overrides)
    place = find_metadata(config)
    if config.metadata is None:
        inputs.check_file(config.metadata_path, "metadata of the last run")
    check_place(place, is_written=False)
    if not session.verbose:
        silence_absl()
    return _show(session, whole_run.read_finished(config, place))


@verb("claim-check")
@run_config_option
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
    config = load(config_path, overrides)
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
@run_config_option
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
    config = load(config_path, overrides)
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
        inputs.check_source(source)
    for task in config.tasks:
        for path in task.segment.encoder_paths.values():
            inputs.check_folder(path, "encoder")


def _with_data(config: RunConfig, data: str | None) -> RunConfig:
    if data is None:
        return config
    from beam_jobs.catalogs.catalog import discover

    return dataclasses.replace(config, catalogs=discover(data))


def _show(session: Session, finished: Finished) -> ExitCode:
    session.result(finished.document, *finished.parts)
    return finished.exit_code
