"""Verbs on Earth Engine: sample, plan, fetch, export.

Each reads its options and the environment, and calls one job. The jobs know nothing of
the terminal. They are imported inside the verbs, because they import Beam and the
client of Earth Engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from beam_jobs.collect.config import FetchConfig
from beam_jobs.contracts import settings
from beam_jobs.places.config import SampleConfig
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import check_groups, config_option, load_config, verb
from beam_jobs.terminal.session import Session

OVERVIEW_PIXEL_DEGREES = 0.05
_EARTH_ENGINE = ("earthengine",)


@verb("sample")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="GeoJSON file of places to write.",
)
@config_option("sample settings")
def sample(
    session: Session, output: Path, config_path: str | None, overrides: tuple[str, ...]
) -> None:
    """Draw places on Earth to collect pairs at.

    They are drawn over land, by land cover or around cities, or come from a file.
    \b
    Example:
      terrapair sample --output places.geojson --set num_places=1000
    """
    config = load_config(SampleConfig, config_path, overrides)
    from beam_jobs.places import place, sampling

    with session.stage("sample") as update:
        found = sampling.sample(config, _overview, update)
        number = place.write_places(found, output, settings.to_dict(config))
    session.note(f"{number} places")
    session.result({"places": output, "num_places": number}, str(output))


def _job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that plan, fetch and export share."""
    command = config_option("fetch settings")(command)
    return click.option(
        "--places", required=True, help="File of places that `sample` wrote; path or URI."
    )(command)


def _load(places: str, config_path: str | None, overrides: tuple[str, ...]) -> FetchConfig:
    config: FetchConfig = load_config(FetchConfig, config_path, overrides)
    inputs.check_file(places, "places")
    return config


@verb("plan")
@_job_options
@click.option("--output", help="Folder of the fetch, path or URI; a pilot is fetched into it.")
@click.option(
    "--pilot",
    type=click.IntRange(min=0),
    default=0,
    help="Pairs to fetch first, to measure time and compute.",
)
def plan(
    session: Session,
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str | None,
    pilot: int,
) -> None:
    """Estimate what a fetch asks for and costs.

    The exit code is 2 if Earth Engine would refuse such requests.
    Without --pilot nothing is asked of Earth Engine, and time and compute are rough.

    \b
    Example:
      terrapair plan --places places.geojson --output runs/ee --pilot 20
    """
    if pilot and output is None:
        raise click.UsageError("--pilot needs --output, the folder that it fetches into")
    config = _load(places, config_path, overrides)
    if pilot:
        check_groups("plan", _EARTH_ENGINE)
    from beam_jobs.collect import plan as planning

    if pilot:
        with session.stage("pilot") as update:
            found = planning.plan(
                config,
                places,
                folder=output,
                num_pilot=pilot,
                connection=_connection("fetch"),
                on_progress=update,
            )
    else:
        found = planning.plan(config, places, folder=output)
    session.result(found.to_dict(), _plan_table(found, places))
    for warning in found.warnings:
        session.note(f"warning: {warning}")


@verb("fetch", needs=_EARTH_ENGINE)
@_job_options
@click.option("--output", required=True, help="Folder of the job; path or URI (s3://, gs://).")
@click.option("--retry-rejected", is_flag=True, help="Ask again for what was rejected.")
@click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]")
def fetch(
    session: Session,
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str,
    retry_rejected: bool,
    beam_options: tuple[str, ...],
) -> None:
    """Fetch pairs of places from Earth Engine; run it again to go on after a stop.

    What follows -- goes to Beam, with the lines of a file in place of @FILE. Without a
    --runner there, the fetch runs on this machine. See docs/runners.md.

    \b
    Example:
      terrapair fetch --places places.geojson --output runs/ee --set quota.num_workers=4
      terrapair fetch --places gs://b/places.geojson --output gs://b/ee \\
        --set quota.num_workers=4 -- --runner=DataflowRunner --project=p --region=r \\
        --temp_location=gs://b/tmp --sdk_container_image=IMAGE
    """
    config = _load(places, config_path, overrides)
    from beam_jobs.collect import fetch as fetching
    from beam_jobs.collect.job import CollectJob

    job = CollectJob(
        config=config,
        connection=_connection("fetch"),
        places=places,
        retry_rejected=retry_rejected,
    )
    with session.stage("fetch") as update:
        summary = fetching.fetch(job, output, on_progress=update, beam_options=beam_options)
    _show(session, summary)


@verb("export", needs=_EARTH_ENGINE)
@_job_options
@click.option("--output", required=True, help="Folder of the job, path or URI: ledger and catalog.")
@click.option("--retry-rejected", is_flag=True, help="Export again what was rejected.")
def export(
    session: Session,
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str,
    retry_rejected: bool,
) -> None:
    """Export pairs of places to a bucket with batch tasks, and wait until they end.

    \b
    Example:
      terrapair export --places places.geojson --output runs/export \\
        --set export.bucket=my-bucket
    """
    config = _load(places, config_path, overrides)
    from beam_jobs.collect import export as exporting
    from beam_jobs.collect.job import CollectJob

    job = CollectJob(
        config=config,
        connection=_connection("export"),
        places=places,
        retry_rejected=retry_rejected,
    )
    with session.stage("export") as update:
        summary = exporting.export(job, output, on_progress=update)
    _show(session, summary)


def _show(session: Session, summary: Any) -> None:
    session.note(_fetch_table(summary))
    state = summary.state
    document = {
        "catalog": summary.catalog,
        "num_units": summary.num_units,
        "num_done": state.num_done,
        "num_rejected": dict(state.num_rejected),
        "num_failures": dict(state.num_failures),
        "num_requests": state.num_requests,
        "num_bytes": state.num_bytes,
        "num_requests_of_this_run": summary.num_requests,
        "seconds_of_this_run": summary.seconds,
    }
    session.result(document, summary.catalog)


def _connection(purpose: Any) -> Any:
    from beam_jobs.earth_engine import connection

    return connection.from_environment(os.environ, purpose)


def _overview() -> bytes:
    check_groups("sample", _EARTH_ENGINE)
    from beam_jobs.earth_engine import connection, pixels

    connection.connect(_connection("fetch"))
    return pixels.fetch_overview(OVERVIEW_PIXEL_DEGREES)


def _plan_table(plan: Any, places: str) -> Table:
    table = Table(title=escape(f"plan: {places}"))
    for name, justify in (("what", "left"), ("number", "right"), ("how it is known", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    how = plan.measured
    table.add_row("places", f"{plan.num_places:,}", "counted")
    table.add_row("places x windows", f"{plan.num_units:,}", "counted")
    table.add_row("pairs expected", f"{plan.num_pairs:,}", how["pairs"])
    table.add_row("requests", f"{plan.num_requests:,}", how["requests"])
    table.add_row("largest request", _bytes(plan.request_bytes), "computed; the limit is 50.3 MB")
    table.add_row("pixels, raw", _bytes(plan.raw_bytes), "computed")
    table.add_row("files", _bytes(plan.disk_bytes), how["bytes on disk"])
    table.add_row("shards of 128 MB", f"{plan.num_shards:,}", how["bytes on disk"])
    table.add_row("seconds a request", f"{plan.request_seconds:.2f}", how["seconds a request"])
    table.add_row(
        "requests a second", f"{plan.requests_per_second:.1f}", "min(rate, concurrency / seconds)"
    )
    table.add_row("hours", f"{plan.wall_hours:.2f}", "requests / requests a second")
    table.add_row(
        "EECU-hours", "?" if plan.eecu_hours is None else f"{plan.eecu_hours:,.3f}", how["EECU"]
    )
    limit = "paid by use" if plan.tier_eecu_hours is None else f"{plan.tier_eecu_hours:,.0f}"
    table.add_row("EECU-hours a month", limit, "the account's tier")
    return table


def _fetch_table(summary: Any) -> Table:
    state = summary.state
    table = Table(title=summary.catalog.rpartition("/")[0])
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_row("pairs wanted", f"{summary.num_units:,}")
    table.add_row("pairs there", f"{state.num_done:,}")
    for reason, count in sorted(state.num_rejected.items()):
        table.add_row(f"rejected: {reason}", f"{count:,}")
    table.add_section()
    table.add_row("requests, all runs", f"{state.num_requests:,}")
    for reason, count in sorted(state.num_failures.items()):
        table.add_row(f"failed: {reason}", f"{count:,}")
    table.add_row("bytes received", _bytes(state.num_bytes))
    if summary.num_requests:
        table.add_section()
        table.add_row("requests, this run", f"{summary.num_requests:,}")
        table.add_row(
            "requests a second", f"{summary.num_requests / max(summary.seconds, 1e-6):.1f}"
        )
    return table


def _bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"
