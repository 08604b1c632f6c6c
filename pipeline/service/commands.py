"""The verbs `rollback`, `history`, `gc` and `drift`, all about what is in service."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import yaml
from rich.console import RenderableType
from rich.text import Text

from beam_jobs.contracts import locations
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import content_of, locate
from beam_jobs.contracts.settings import from_dict
from beam_jobs.errors import DataError
from beam_jobs.storage import locks
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import verb
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from pipeline.config import RunConfig, load_stored_config
from pipeline.metadata_store import Database, MetadataConfig, Place, check_place, find_place
from pipeline.runners.root import LOCK_NAME

_run_option = click.option(
    "--run", "run_root", required=True, help="Folder of a run, with serving/ in it."
)


@verb("rollback")
@_run_option
@click.option("--model", required=True, help="Name of the model, such as flood.")
@click.option("--to", required=True, type=click.IntRange(min=1), help="Version to serve again.")
@click.option("--reason", required=True, help="Why; it stands in the history.")
@click.option(
    "--server",
    "servers",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of serve-config that follows; may be repeated. [<run>/server if it exists]",
)
def rollback(
    session: Session, run_root: str, model: str, to: int, reason: str, servers: tuple[Path, ...]
) -> None:
    """Put an earlier version of a model in service again.

    The version is loaded and compared with Keras first; if it fails, nothing changes.
    Servers that read the files of serve-config follow within a minute. Without them,
    newer versions are moved to <model>/.withdrawn, so that a server which takes the
    largest number follows.

    \b
    Example:
      terrapair rollback --run runs/demo --model flood --to 3 --reason "misses rivers"
    """
    serving_dir = _serving_dir(run_root)
    inputs.check_folder(f"{serving_dir}/{model}", "versions of the model")
    from pipeline.service.rolling_back import Request, serve_again
    from pipeline.serving.following import server_folders

    folders = server_folders(run_root, servers)
    request = Request(serving_dir=serving_dir, model=model, to=to, reason=reason, servers=folders)
    with locks.hold(f"{run_root.rstrip('/')}/{LOCK_NAME}", run_root):
        version = serve_again(request, os.environ)
    follow = [
        f"Server: {folder}/config/models.config has the new label; in a cluster, apply "
        f"{folder}/kubernetes/config.yaml"
        for folder in folders
    ]
    session.result(
        {"model": model, "version": to, "folder": str(version), "servers": folders},
        f"In service: {version}",
        *(follow or ["Newer versions are in .withdrawn; a server of the largest number follows"]),
    )


@verb("history", needs=("pipeline",))
@_run_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="HTML page. [<run>/report/history.html]"
)
def history(session: Session, run_root: str, output: Path | None) -> None:
    """Show what ran, what was published and refused, and what was served when.

    \b
    Example:
      terrapair history --run runs/demo
    """
    inputs.check_folder(run_root, "run")
    name, place = _pipeline(run_root)
    check_place(place, is_written=False)
    from pipeline.refused_spans import read_refused
    from pipeline.report.run_record import read_all_runs
    from pipeline.service import history as history_lib
    from pipeline.service.attempts import read_attempts

    has_runs = isinstance(place, Database) or Path(place).exists()
    runs = read_all_runs(place, name) if has_runs else []
    found = history_lib.read_history(
        _serving_dir(run_root), runs, read_attempts(run_root), read_refused(run_root)
    )
    path = str(output or f"{run_root.rstrip('/')}/report/history.html")
    with locations.staged(path) as file:
        file.write_text(history_lib.page(found, f"History of {name}"))
    session.result(history_lib.document(found), *history_lib.tables(found), f"Page: {path}")


@verb("gc")
@_run_option
@click.option(
    "--keep-versions",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Newest versions of each model that stay.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
def gc(session: Session, run_root: str, keep_versions: int, dry_run: bool) -> None:
    """Remove old published versions that nobody needs.

    What is in service stays, what has a label, the version before it, and the encoders
    that models in service started from.

    \b
    Example:
      terrapair gc --run runs/demo --keep-versions 2 --dry-run
    """
    serving_dir = _serving_dir(run_root)
    inputs.check_folder(serving_dir, "published models")
    from pipeline.service.cleaning import clean

    with locks.hold(f"{run_root.rstrip('/')}/{LOCK_NAME}", run_root):
        removed = clean(serving_dir, keep_versions, is_dry=dry_run)
    word = "would be removed" if dry_run else "removed"
    lines = [f"{one.model} {one.version}: {word}" for one in removed]
    session.result({"removed": [vars(one) for one in removed]}, *(lines or ["nothing to remove"]))


@verb("drift", needs=("pipeline",))
@_run_option
@click.option("--span", required=True, type=click.IntRange(min=1), help="Span to look at.")
@click.option(
    "--set", "overrides", multiple=True, metavar="A.B=C", help="Override one setting. Repeatable."
)
def drift(session: Session, run_root: str, span: int, overrides: tuple[str, ...]) -> ExitCode:
    """Compare a span with the data of the models in service; exit code 4 if refused.

    The settings are those of the last run in the folder. Nothing is trained or changed.
    A score of 1 is at the limit.

    \b
    Example:
      terrapair drift --run runs/demo --span 2
    """
    config = _last_config(run_root, overrides)
    if not session.verbose:
        silence_absl()
    from pipeline.report.drift import drift_lines, drift_table
    from pipeline.service.drift import check_span

    reports = check_span(config, span, session.stage)
    parts: list[RenderableType] = []
    for report in reports:
        parts += [Text.from_markup(str(line)) for line in drift_lines(report)]
        parts += filter(None, [drift_table(report)])
    session.result({"data": [json.loads(report.to_json()) for report in reports]}, *parts)
    is_refused = any(report.outcome == "refused" for report in reports)
    return ExitCode.REFUSED if is_refused else ExitCode.DONE


def _serving_dir(run_root: str) -> str:
    return f"{run_root.rstrip('/')}/serving"


def _last_config(run_root: str, overrides: tuple[str, ...]) -> RunConfig:
    """Return the settings of the last run in a folder, which may have been moved since.

    Raises:
        DataError: nothing ran there.
        SettingsError: an override, or what the file says, is wrong.
    """
    path = locate(run_root) / "config.yaml"
    if not path.exists():
        raise DataError(
            f"{path}: no settings of a run: --run must name the root of one", "missing_file"
        )
    root = str(path.parent.resolve() if isinstance(path, Path) else path.parent)
    return load_stored_config(path, (*overrides, f"root={root}"), os.environ)


def _pipeline(run_root: str) -> tuple[str, Place]:
    """Return the name of a run's pipeline and where its metadata are."""
    path = locate(run_root) / "config.yaml"
    if not path.exists():
        return Path(run_root).name, f"{run_root.rstrip('/')}/metadata.sqlite"
    with content_of(path, "run the pipeline again, which writes it"):
        values = yaml.safe_load(path.read_text())
        local = values.get("local_root") or run_root
        database = values.get("metadata") and from_dict(MetadataConfig, values["metadata"])
        name = str(values["name"])
    return name, find_place(database, f"{local.rstrip('/')}/metadata.sqlite", os.environ)
