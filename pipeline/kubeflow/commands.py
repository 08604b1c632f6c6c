"""The verbs of the cluster: `submit`, `schedule`, `training-job`, `follow`."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.text import Text

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import staged
from beam_jobs.terminal import failures
from beam_jobs.terminal.options import as_usage, config_option, verb
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from pipeline.kubeflow.connection import ENDPOINT, Api, connection_from
from pipeline.kubeflow.crons import parse_cron
from pipeline.kubeflow.package import Package, read_package, values
from pipeline.kubeflow.runs import Clock, Ending, Run, ending, read_record, run_of, wait

if TYPE_CHECKING:
    from pipeline.kubeflow.backend import Backend, Job, Version

_DAY_S = 86400.0
_SECONDS = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of both verbs, by the names that click gives them."""

    file: Path | None
    pipeline: str | None
    version: str | None
    params: tuple[str, ...]
    name: str | None
    experiment: str
    create_experiment: bool
    service_account: str
    endpoint: str | None
    namespace: str
    ca_file: str
    insecure: bool
    request_timeout: float

    def check(self) -> Package | None:
        """Return the pipeline of a file, None for one that is on the server.

        Raises:
            DataError: the file is wrong.
            SettingsError: a parameter is wrong.
            UsageError: the options contradict each other.
        """
        if self.version is not None and self.pipeline is None:
            raise click.UsageError("--version belongs to --pipeline")
        if self.file is None:
            return None
        package = read_package(self.file)
        values(package, self.params)
        return package

    def api(self) -> Api:
        """Return the connection, after a first request."""
        api = Api(
            connection_from(
                os.environ,
                self.endpoint,
                namespace=self.namespace,
                ca_file=self.ca_file,
                is_verified=not self.insecure,
                timeout_s=self.request_timeout,
            )
        )
        api.check()
        return api

    def job(self, backend: Backend, package: Package | None, name: str) -> Job:
        """Return what is to run, after the upload of a file.

        Args:
            backend: where it is to run.
            package: of the file; None = `pipeline` is on the server.
            name: put behind the name of the pipeline, unless --name is given.

        Raises:
            KubeflowError: the server refuses the file, or knows no such thing.
            SettingsError: a parameter is wrong.
        """
        from pipeline.kubeflow.backend import Job

        # First: nothing is uploaded for an experiment that is misspelled.
        experiment_id = backend.find_experiment(self.experiment, self.create_experiment)
        version: Version = (
            backend.upload(package)
            if package is not None
            else backend.find_version(str(self.pipeline), self.version)
        )
        return Job(
            name=self.name or f"{version.package.name}{name}",
            version=version,
            experiment_id=experiment_id,
            values=values(version.package, self.params),
            service_account=self.service_account,
        )


def _shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both verbs share."""
    for option in (
        click.option(
            "--request-timeout",
            default=30.0,
            show_default=True,
            type=_SECONDS,
            help="Longest wait for an answer of the server.",
        ),
        click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
        click.option("--ca-file", default="", help="Certificates to trust, PEM. [the system's]"),
        click.option(
            "--namespace", default="", help="Namespace, where Kubeflow has several users."
        ),
        click.option("--endpoint", help=f"URL of Kubeflow Pipelines. [{ENDPOINT}]"),
        click.option(
            "--service-account", default="", help="Of the pods. [the default of the server]"
        ),
        click.option("--create-experiment", is_flag=True, help="Make it if there is none."),
        click.option("--experiment", default="Default", show_default=True, help="Its name."),
        click.option("--name", help="Of the run or schedule, for people. [from the pipeline]"),
        click.option(
            "--param",
            "params",
            multiple=True,
            metavar="NAME=VALUE",
            help="Value of a parameter of the pipeline. Repeatable.",
        ),
        click.option("--version", help="Version of --pipeline. [the newest]"),
        click.option("--pipeline", help="Name of a pipeline that is on the server."),
        click.option(
            "--file",
            type=click.Path(path_type=Path),
            help="Compiled pipeline, YAML. It is uploaded unless it is there.",
        ),
    ):
        command = option(command)
    return command


@verb("submit", needs=("pipeline",))
@_shared_options
@click.option("--run-id", help="Show this run, or wait for it, in place of starting one.")
@click.option(
    "--root",
    help="Root of the run, path or URI, whose record tells why models are not published. "
    "[that of the pipeline]",
)
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for the end of the run.")
@click.option(
    "--timeout",
    "timeout_s",
    default=_DAY_S,
    show_default=True,
    type=_SECONDS,
    help="Longest wait for the end of the run.",
)
@click.option(
    "--poll",
    "poll_s",
    default=5.0,
    show_default=True,
    type=_SECONDS,
    help="Time between two looks at the run.",
)
def submit(
    session: Session, run_id: str | None, root: str | None, is_waiting: bool, **given: Any
) -> ExitCode:
    """Run a compiled pipeline on Kubeflow; --wait ends with the run's exit code.

    Credentials come from the environment: TERRAPAIR_KFP_TOKEN, TERRAPAIR_KFP_TOKEN_FILE
    or TERRAPAIR_KFP_COOKIE. Exit codes with --wait: 0 done, 1 failed, 3 bad data,
    4 refused by a gate, 5 nothing new.

    \b
    Example:
      terrapair submit --file run.yaml --endpoint http://127.0.0.1:8888 --wait
      terrapair submit --file run.yaml --param span=3
      terrapair submit --pipeline flood-monthly --wait --timeout 7200
      terrapair submit --run-id 5e1c6d2a-3b0f-4d8e-9c1a-2f7b8e6d4c3b --wait
    """
    clock = Clock(timeout_s=given.pop("timeout_s"), poll_s=given.pop("poll_s"))
    options = _Options(**given)
    sources = [one for one in (options.file, options.pipeline, run_id) if one is not None]
    if len(sources) != 1:
        raise click.UsageError("name one of --file, --pipeline and --run-id")
    package = options.check()
    from pipeline.kubeflow.backend import Backend

    backend = Backend(options.api())
    lines = []
    if run_id is None:
        now = datetime.datetime.now(datetime.timezone.utc)
        job = options.job(backend, package, f" {now:%Y-%m-%d %H:%M:%S}")
        answer, package = backend.start(job), job.version.package
        lines = [_pipeline_line(job.version), f"Run: {job.name} ({answer['run_id']})"]
    else:
        answer = backend.read_run(run_id)
        package = backend.package_of_run(answer)
    run = run_of(answer, package.tasks)
    lines.append(f"Page: {backend.run_page(run.run_id)}")
    if is_waiting:
        # Before a long wait: the run goes on if this program is interrupted. As text:
        # what the server says may hold brackets.
        session.note(*map(Text, lines))
        read = functools.partial(_read, backend, run.run_id, package.tasks)
        run = wait(read, clock, lambda line: session.note(Text(line)))
        lines = []
    else:
        lines += [f"{name}: {state}" for name, state in run.tasks.items()]
    end = ending(run, _find_record(session, root or package.root, run))
    lines += [*_largest(end), *end.reasons, _outcome_line(run, end)]
    session.result(_document(run, end, backend), *lines)
    return end.exit_code


@verb("schedule", needs=("pipeline",))
@_shared_options
@click.option(
    "--cron",
    required=True,
    help="Five fields, e.g. '17 3 5 * *': at 3:17 on the fifth of each month.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Remove schedules of the same name, or stop one whose run goes on.",
)
@click.option("--dry-run", is_flag=True, help="Only show the dates; needs no server.")
def schedule(session: Session, cron: str, replace: bool, dry_run: bool, **given: Any) -> None:
    """Run a compiled pipeline on Kubeflow again and again, at the dates of a cron.

    One run at a time; of missed dates, only the last one is made up for. The dates are
    in UTC, unless the server's CRON_SCHEDULE_TIMEZONE says otherwise. Credentials are
    those of submit.

    \b
    Example:
      terrapair schedule --file run.yaml --cron "17 3 5 * *" --name flood-monthly
      terrapair schedule --file run.yaml --cron "0 4 * * MON" --dry-run
      terrapair schedule --pipeline flood-monthly --cron "0 4 * * *" --replace
    """
    options = _Options(**given)
    if (options.file is None) == (options.pipeline is None):
        raise click.UsageError("name either --file or --pipeline")
    parsed = parse_cron(cron, datetime.datetime.now(datetime.timezone.utc))
    package = options.check()
    dates = [f"{date:%Y-%m-%d %H:%M} UTC" for date in parsed.dates]
    document = {"cron": parsed.text, "kubeflow_cron": parsed.kubeflow, "next": dates}
    lines = [f"Cron: {parsed.text}  (Kubeflow's, with seconds: {parsed.kubeflow})"]
    lines += [f"Next: {', '.join(dates)}"]
    if dry_run:
        session.result(document, *lines)
        return
    from pipeline.kubeflow.backend import Backend

    backend = Backend(options.api())
    job = options.job(backend, package, "")
    earlier = backend.find_schedules(job.name, job.experiment_id)
    if earlier and not replace:
        raise click.UsageError(
            f"--name {job.name}: there is such a schedule ({', '.join(earlier)}), and both would "
            "run: use --replace, or another --name"
        )
    schedule_id = backend.schedule(job, parsed.kubeflow)
    is_removed = {one: backend.retire_schedule(one, job.experiment_id) for one in earlier}
    removed = [one for one, is_gone in is_removed.items() if is_gone]
    stopped = [one for one, is_gone in is_removed.items() if not is_gone]
    session.result(
        document
        | {"schedule_id": schedule_id, "name": job.name, "removed": removed, "stopped": stopped},
        _pipeline_line(job.version),
        f"Schedule: {job.name} ({schedule_id})",
        *[f"Removed: {one}" for one in removed],
        *[
            f"Stopped: {one}, whose run goes on; use --replace again to remove it"
            for one in stopped
        ],
        *lines,
        f"Page: {backend.schedule_page(schedule_id)}",
    )


@verb("training-job", needs=("pipeline",))
@config_option("the settings of the run", required=True)
@click.option("--run-id", required=True, help="Id of the run, as for `terrapair node`.")
@click.option("--node", required=True, help="Trainer of the run, such as Trainer-flood.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="YAML file.")
@click.option("--num-workers", default=2, show_default=True, help="Machines.")
@click.option("--name", default="", help="Of the objects. [from the node]")
@click.option(
    "--kind",
    type=click.Choice(["job", "jobset"]),
    default="job",
    show_default=True,
    help="jobset: a JobSet, which restarts all workers at once; needs its controller.",
)
def training_job(
    session: Session,
    config_path: str,
    overrides: tuple[str, ...],
    output: Path,
    **given: Any,
) -> None:
    """Write the manifests of a training on several machines.

    An Indexed Job with a headless Service, or a JobSet: worker 0 runs the Trainer as
    `terrapair node`, the others follow it. The nodes before it must have ended. Image,
    resources, secrets and volumes are those of the run's YAML. Needs Kubernetes 1.31 or
    newer.

    \b
    Example:
      terrapair training-job --config run.yaml --run-id monday \\
        --node Trainer-pretrain --num-workers 4 --output job.yaml
      terrapair training-job --config run.yaml --run-id monday \\
        --node Trainer-flood --kind jobset --output jobset.yaml
    """
    from pipeline.kubeflow.training_job import job_of, manifests
    from pipeline.run_settings import load

    config = load(config_path, overrides)
    with as_usage():
        job = job_of(config, **given)
    with staged(output) as file:
        file.write_text(yaml.safe_dump_all(manifests(job), sort_keys=False))
    session.result(
        {"manifests": str(output), "name": job.name, "hosts": job.hosts},
        f"Manifests: {output}  (kubectl apply -f {output})",
    )


@verb("follow", needs=("pipeline",))
@click.option("--workers", "folder", help="Folder of the training. [TERRAPAIR_WORKERS_DIR]")
@click.option(
    "--poll",
    "poll_s",
    default=2.0,
    show_default=True,
    type=_SECONDS,
    help="Time between two looks whether the first worker trains.",
)
def follow(session: Session, folder: str | None, poll_s: float) -> None:
    """Train beside the first worker of several, as soon as it does.

    TF_CONFIG names all workers and says which one this is. The first worker runs the
    Trainer of the pipeline with the same TF_CONFIG and TERRAPAIR_WORKERS_DIR. It alone
    writes checkpoints and the model.

    \b
    Example:
      terrapair follow --workers s3://bucket/run/runs/monday/workers/Trainer-flood
    """
    from components.trainers import workers

    folder = folder or os.environ.get(workers.FOLDER, "")
    index = workers.worker_index(os.environ)
    if not folder:
        raise click.UsageError(f"set {workers.FOLDER} or --workers to the folder of the training")
    if index == 0:
        raise click.UsageError(
            "TF_CONFIG says that this is the first or only worker, which runs the Trainer itself: "
            "follow is for the others"
        )
    if not session.verbose:
        silence_absl()
    session.note(Text(f"worker {index} waits for the first one in {folder}"))
    run_fn = workers.follow(folder, index, poll_s)
    session.result({"worker": index, "run_fn": run_fn}, f"Trained: {run_fn}, worker {index}")


def _read(backend: Backend, run_id: str, known: frozenset[str]) -> Run:
    return run_of(backend.read_run(run_id), known)


def _find_record(session: Session, root: str, run: Run) -> Ending | None:
    """Return what a run that ended wrote below its root, None if that cannot be read.

    The machine that submits runs may have no access to the store of the pods. Then only
    the server's word is left.
    """
    if not root or not run.has_ended:
        return None
    try:
        return read_record(root, run.run_id)
    except Exception as error:  # noqa: BLE001 - each store has errors of its own
        why = failures.failure_of(error, "submit").message
        session.note(Text(f"why models are not published cannot be read ({why})"))
        return None


def _pipeline_line(version: Version) -> str:
    how = "uploaded" if version.is_new else "on the server before"
    return f"Pipeline: {version.package.name}, version {version.name} ({how})"


def _largest(end: Ending) -> list[str]:
    """Return a line with the node that needed most memory, if that is known."""
    most = max(end.nodes, key=lambda one: one.peak_mib, default=None)
    return [f"Most memory: {most.node}, {most.peak_mib:.0f} MiB"] if most else []


def _outcome_line(run: Run, end: Ending) -> str:
    # A pipeline may let a task fail to say that a gate refused.
    is_failure = end.exit_code == ExitCode.CRASH and run.failed
    return f"Outcome: {end.outcome}" + (f" ({', '.join(run.failed)})" if is_failure else "")


def _document(run: Run, end: Ending, backend: Backend) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "page": backend.run_page(run.run_id),
        "state": run.state,
        "outcome": end.outcome,
        "reasons": end.reasons,
        "tasks": run.tasks,
        "failed": run.failed,
        "nodes": [settings.to_dict(one) for one in end.nodes],
    }
