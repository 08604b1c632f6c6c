"""The verbs `predict`, `predict-remote` and `flood`: whole scenes -> maps."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.predict.config import PredictConfig
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import as_usage, config_option, load_config, verb
from beam_jobs.terminal.session import Session

if TYPE_CHECKING:
    from beam_jobs.predict.floods import Reference
    from beam_jobs.predict.remote_models.endpoints import Endpoint
    from beam_jobs.predict.segmenters import Segmenter

_MAX_NAMED = 5
"""Rejected scenes that are named on the terminal; `rejected/` lists all."""


@dataclass(frozen=True, kw_only=True)
class _MapOptions:
    """The options of all verbs that make maps, by the names that click gives them."""

    sources: tuple[str, ...]
    output: str
    retry_rejected: bool
    config_path: str | None
    overrides: tuple[str, ...]
    beam_options: tuple[str, ...]

    def check(self) -> PredictConfig:
        """Return the settings, and refuse catalogs that are not there.

        Raises:
            DataError: there is no such catalog.
            SettingsError: the maps would lie among the scenes.
        """
        config: PredictConfig = load_config(PredictConfig, self.config_path, self.overrides)
        for source in self.sources:
            inputs.check_catalog(source)
            if not is_remote(source) and os.path.realpath(source) == os.path.realpath(self.output):
                raise SettingsError(
                    f"--output {self.output}: is the folder of the scenes; maps need one of their "
                    "own, which may lie in it"
                )
        return config


def _map_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all verbs share that make maps."""
    for option in (
        click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]"),
        config_option("settings of the maps"),
        click.option(
            "--retry-rejected",
            is_flag=True,
            help="Try again what was rejected, although it has not changed.",
        ),
        click.option("--output", required=True, help="Folder of the maps; path or URI."),
        click.option(
            "--scenes",
            "sources",
            required=True,
            multiple=True,
            help="Catalog of STAC items, or a folder that `terrapair catalog` reads. Repeatable.",
        ),
    ):
        command = option(command)
    return command


@verb("predict")
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    help="Folder of a published segmenter (the newest version is taken), or of one version. "
    "Given several times, the map is the mean of all.",
)
@click.option(
    "--version",
    "versions",
    type=int,
    multiple=True,
    help="Version of the model; repeatable like --model. [the newest]",
)
@click.option("--label", help="Version label, such as stable or canary.")
@click.option(
    "--server",
    "server_dir",
    help="Folder that serve-config wrote, whose labels --label means. [those of the model]",
)
@_map_options
def predict(
    session: Session,
    models: tuple[str, ...],
    versions: tuple[int, ...],
    label: str | None,
    server_dir: str | None,
    **options: Any,
) -> None:
    """Make maps of whole scenes with a published model.

    Each scene gets a folder with class.tif, probability.tif and uncertainty.tif (Cloud
    Optimized GeoTIFF), and item.json (STAC). Run the same command again to go on after
    a kill, or with new scenes. What follows -- goes to Beam, see docs/runners.md.

    \b
    Example:
      terrapair predict --model runs/demo/serving/flood --scenes exports --output maps
      terrapair predict --model runs/demo/serving/flood --label stable \\
        --scenes exports --output s3://bucket/maps
      terrapair predict --model runs/demo/serving/flood --scenes items.ndjson \\
        --output maps --set num_workers=2
      terrapair predict --model runs/demo/serving/flood --version 1 --version 2 \\
        --scenes exports --output maps --set uncertainty=disagreement
    """
    asked = _MapOptions(**options)
    config = asked.check()
    if label is not None and versions:
        raise SettingsError(
            f"--label and --version exclude each other, got {label!r} and {versions[0]}"
        )
    if versions and len(models) > 1:
        raise click.UsageError(
            "--version belongs to one --model: name the folders of the versions instead"
        )
    for model in models:
        inputs.check_folder(model, "model")
    from beam_jobs.predict import ensembles, segmenters

    if label is not None:
        found = [
            segmenters.find(model, segmenters.labelled_version(model, label, server_dir))
            for model in models
        ]
    else:
        found = [
            segmenters.find(model, version) for model in models for version in versions or (None,)
        ]
    _predict(session, config, asked, ensembles.combine(found))


@verb("predict-remote")
@click.option("--host", required=True, help="Host and port of the server.")
@click.option("--model", required=True, help="Name of the model on the server.")
@click.option(
    "--card",
    required=True,
    help="Folder of the published model, or a copy of its assets.extra/model_card.json there: "
    "bands, units and classes.",
)
@click.option("--label", default="", help="Version label, such as stable. [the newest version]")
@click.option("--version", type=int, help="Version. [the newest]")
@click.option(
    "--protocol",
    type=click.Choice(["grpc", "rest", "kserve"]),
    default="grpc",
    show_default=True,
    help="TensorFlow Serving's two, or version 1 of KServe's.",
)
@click.option(
    "--tls",
    "is_encrypted",
    is_flag=True,
    help="Encrypt. An access token comes from the environment.",
)
@click.option("--ca-file", default="", help="Certificates to trust, PEM. [those of the system]")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds a request.",
)
@click.option(
    "--retry",
    "retry_seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds to wait for a server that is away, overloaded or still loading.",
)
@click.option(
    "--max-in-flight", type=int, default=2, show_default=True, help="Requests a worker at a time."
)
@click.option(
    "--max-request-mib",
    type=float,
    default=32.0,
    show_default=True,
    help="MiB of pixels in a request of several windows.",
)
@_map_options
def predict_remote(session: Session, card: str, **options: Any) -> None:
    """Make maps with a model behind TensorFlow Serving.

    The maps are those of `predict`. Set TERRAPAIR_SERVING_TOKEN if the server wants a
    token.

    \b
    Example:
      terrapair predict-remote --host 127.0.0.1:8500 --model flood --label stable \\
        --card runs/demo/serving/flood --scenes exports --output maps
    """
    asked = _MapOptions(**{field.name: options.pop(field.name) for field in fields(_MapOptions)})
    config = asked.check()
    inputs.check_folder(card, "model card")
    from beam_jobs.predict.remote_models import remote
    from beam_jobs.predict.remote_models.endpoints import Endpoint

    with as_usage():
        endpoint = Endpoint(**options)
    endpoint = remote.pinned(endpoint)
    _predict(session, config, asked, remote.find_card(endpoint, card), endpoint)


def _predict(
    session: Session,
    config: PredictConfig,
    asked: _MapOptions,
    segmenter: Segmenter,
    endpoint: Endpoint | None = None,
) -> None:
    from beam_jobs.predict import driver

    driver.make_folder(asked.output)
    with session.stage("predict") as update:
        made = driver.predict(
            config,
            segmenter,
            _catalogs(asked.sources, asked.output),
            asked.output,
            driver.Execution(
                endpoint=endpoint,
                beam_options=asked.beam_options,
                retry_rejected=asked.retry_rejected,
                on_progress=update,
            ),
        )
    session.note(_table(asked.output, len(made.maps), made.num_rejected))
    for row in made.rejected[:_MAX_NAMED]:
        session.note(escape(f"no map of {row['id']}: {row['detail']}"))
    document = {
        "maps": made.maps,
        "num_rejected": made.num_rejected,
        "collection": made.collection,
        "page": made.page,
    }
    session.result(document, *map(str, made.maps), str(made.page))


def _catalogs(sources: tuple[str, ...], output: str) -> list[str]:
    """Return catalog files; those of folders are written into the output folder."""
    from beam_jobs.catalogs import catalog

    found = []
    for number, source in enumerate(sources):
        if not Path(source).is_dir():
            found.append(source)
            continue
        for place, config in enumerate(catalog.discover(source)):
            work_dir = f"{output}/.catalogs/{number}-{place}"
            found.append(str(catalog.resolve_catalog(config, work_dir)))
    return found


def _table(output: str, num_maps: int, rejected: dict[str, int]) -> Table:
    table = Table(title=escape(f"maps: {output}"))
    table.add_column("scenes")
    table.add_column("number", justify="right")
    table.add_row("with a map", str(num_maps))
    for reason, count in sorted(rejected.items()):
        table.add_row(f"not used: {reason}", str(count))
    return table


@verb("flood")
@click.option(
    "--map",
    "map_dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of a map that `predict` made.",
)
@click.option(
    "--reference",
    help="Permanent water: the folder of the map of a dry date, or a raster.",
)
@click.option(
    "--dry-date",
    help="In place of --reference: the maps of this date (YYYY-MM-DD), or the earliest, that lie "
    "beside the map and cover its place.",
)
@click.option(
    "--reference-values",
    default="1",
    show_default=True,
    help="Values of a raster that mean water, such as 80 or 75-100,200; or worldcover, "
    "jrc-occurrence, jrc-seasonality, jrc-transitions.",
)
@click.option("--water", default="water", show_default=True, help="Class of the map.")
@click.option("--change", is_flag=True, help="Show water that is gone as a class of its own.")
@click.option("--areas", help="Vector file of polygons, whose flooded areas are summed up.")
@click.option("--name-column", default="name", show_default=True, help="Names of the polygons.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder of the results."
)
def flood(
    session: Session,
    map_dir: Path,
    output: Path,
    change: bool,
    areas: str | None,
    name_column: str,
    **options: Any,
) -> None:
    """Subtract permanent water from a map of water: what is left is flooded.

    It writes flood.tif (dry, permanent, flooded) and, with --areas, areas.csv. With
    --change and the map of another date it shows what came and what went.

    \b
    Example:
      terrapair flood --map maps/S1_flood --dry-date 2022-06-01 --output floods/today
      terrapair flood --map maps/S1_flood --reference worldcover.tif \\
        --reference-values worldcover --areas districts.gpkg --output floods/today
    """
    inputs.check_folder(map_dir, "map")
    if areas is not None:
        inputs.check_file(areas, "polygons")
    from beam_jobs.predict import floods
    from beam_jobs.predict.maps import CLASS_FILE

    source = _reference(map_dir, **options)
    output.mkdir(parents=True, exist_ok=True)
    target = output / floods.FLOOD_FILE
    floods.write_flood_map(
        map_dir / CLASS_FILE,
        floods.water_id(map_dir, options["water"]),
        source,
        target,
        change=change,
    )
    written = [target]
    if areas is not None:
        floods.write_areas(target, areas, name_column, output / floods.AREA_FILE)
        written.append(output / floods.AREA_FILE)
    session.result({"files": written}, *map(str, written))


def _reference(
    map_dir: Path, reference: str | None, dry_date: str | None, reference_values: str, water: str
) -> Reference:
    """Return the reference that the options of `flood` name."""
    from beam_jobs.predict import floods

    if (reference is None) == (dry_date is None):
        raise click.UsageError("name either --reference or --dry-date")
    with as_usage():
        mask = floods.mask_of(reference_values)
        if dry_date is not None:
            _check_date(dry_date)
    if reference is not None:
        return floods.reference_of(reference, mask, water)
    return floods.of_date(map_dir, str(dry_date), water)


def _check_date(text: str) -> None:
    """Refuse what is no date of `flood`.

    Raises:
        ValueError: it is neither a day nor "earliest".
    """
    with suppress(ValueError):
        if text == "earliest" or datetime.datetime.strptime(text, "%Y-%m-%d"):
            return
    raise ValueError(f"--dry-date must be YYYY-MM-DD or earliest, got {text!r}")
