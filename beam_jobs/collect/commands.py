"""Commands on Earth Engine: sample, plan, fetch, export. `__main__.py` adds them to `python -m beam_jobs`.

Reads options and the environment, shows progress and tables. The jobs themselves know
nothing of the terminal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from beam_jobs.collect.config import FetchConfig
from beam_jobs.contracts import settings
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.places.config import SampleConfig
from beam_jobs.terminal import CONSOLE, load_config, progress

OVERVIEW_PIXEL_DEGREES = 0.05
_SET_HELP = "Override one setting, as in --set collect.size_px=128. Repeatable."


class _Refused(click.ClickException):
    """A plan that cannot succeed."""

    exit_code = 2


@click.command("sample")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="GeoJSON file of places to write.",
)
@click.option("--config", "config_path", type=click.Path(), help="YAML file with sample settings.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    help="Override one setting, as in --set num_places=100. Repeatable.",
)
def sample_command(output: Path, config_path: str | None, overrides: tuple[str, ...]) -> None:
    """Draw places: over land, by land cover, around cities, or from your own GeoJSON or CSV.

    \b
    Example:
      python -m beam_jobs sample --output places.geojson --set strategy=cities --set num_places=1000
    """
    from beam_jobs.places import place, sampling

    config = load_config(SampleConfig, config_path, overrides)
    with progress("places") as update:
        found = sampling.sample(config, _overview, update)
        number = place.write_places(found, output, settings.to_dict(config))
    CONSOLE.print(f"{number} places")
    click.echo(output)


def _job_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that plan, fetch and export share."""
    for option in (
        click.option("--set", "overrides", multiple=True, help=_SET_HELP),
        click.option(
            "--config", "config_path", type=click.Path(), help="YAML file with fetch settings."
        ),
        click.option(
            "--places", required=True, help="File of places that `sample` wrote; path or URI."
        ),
    ):
        command = option(command)
    return command


@click.command("plan")
@_job_options
@click.option("--output", help="Folder of the fetch, path or URI; a pilot is fetched into it.")
@click.option(
    "--pilot",
    type=click.IntRange(min=0),
    default=0,
    help="Pairs to fetch first, to measure time and compute.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str | None,
    pilot: int,
    as_json: bool,
) -> None:
    """Say what a fetch will ask for and cost; refuse (exit code 2) what Earth Engine would refuse.

    Without --pilot nothing is asked of Earth Engine, and time and compute are rough.

    \b
    Example:
      python -m beam_jobs plan --places places.geojson --output runs/ee --pilot 20
    """
    from beam_jobs.collect import plan as planning

    config = load_config(FetchConfig, config_path, overrides)
    if pilot and output is None:
        raise click.UsageError("--pilot needs --output, the folder that it fetches into")
    try:
        if pilot:
            with progress("pilot pairs") as update:
                found = planning.plan(config, places, output, pilot, _connection("fetch"), update)
        else:
            found = planning.plan(config, places, output)
    except EarthEngineError as error:
        if error.reason == "too_large":
            raise _Refused(str(error)) from error
        raise
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, sort_keys=True))
        return
    CONSOLE.print(_plan_table(found, places))
    for warning in found.warnings:
        CONSOLE.print(f"[yellow]warning:[/] {warning}")


@click.command("fetch")
@_job_options
@click.option("--output", required=True, help="Folder of the job; path or URI (s3://, gs://).")
@click.option("--retry-rejected", is_flag=True, help="Ask again for what was rejected.")
@click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]")
def fetch_command(
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str,
    retry_rejected: bool,
    beam_options: tuple[str, ...],
) -> None:
    """Fetch Sentinel-1/2 pairs of places, patch by patch; run it again to go on after a stop.

    What follows -- goes to Beam unchanged; without a --runner there, this machine does the work. See docs/runners.md.

    \b
    Example:
      python -m beam_jobs fetch --places places.geojson --output runs/ee --set quota.num_workers=4
      python -m beam_jobs fetch --places gs://b/places.geojson --output gs://b/ee --set quota.num_workers=4 -- \\
        --runner=DataflowRunner --project=p --region=r --temp_location=gs://b/tmp --sdk_container_image=IMAGE
    """
    from beam_jobs.collect import fetch as fetching

    config = load_config(FetchConfig, config_path, overrides)
    with progress("pairs") as update:
        summary = fetching.fetch(
            config, _connection("fetch"), places, output, retry_rejected, update, beam_options
        )
    CONSOLE.print(_fetch_table(summary))
    click.echo(summary.catalog)


@click.command("export")
@_job_options
@click.option("--output", required=True, help="Folder of the job, path or URI: ledger and catalog.")
@click.option("--retry-rejected", is_flag=True, help="Export again what was rejected.")
def export_command(
    places: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    output: str,
    retry_rejected: bool,
) -> None:
    """Export Sentinel-1/2 pairs of places to a bucket with batch tasks, and watch them to their end.

    \b
    Example:
      python -m beam_jobs export --places places.geojson --output runs/export --set export.bucket=my-bucket
    """
    from beam_jobs.collect import export as exporting

    config = load_config(FetchConfig, config_path, overrides)
    with progress("pairs") as update:
        summary = exporting.export(
            config, _connection("export"), places, output, retry_rejected, update
        )
    CONSOLE.print(_fetch_table(summary))
    click.echo(summary.catalog)


COMMANDS = (sample_command, plan_command, fetch_command, export_command)


def _connection(purpose: Any) -> Any:
    from beam_jobs.earth_engine import connection

    return connection.from_environment(os.environ, purpose)


def _overview() -> bytes:
    from beam_jobs.earth_engine import connection, pixels

    connection.connect(_connection("fetch"))
    return pixels.fetch_overview(OVERVIEW_PIXEL_DEGREES)


def _plan_table(plan: Any, places: str) -> Table:
    table = Table(title=f"plan: {places}")
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
