"""The verb `predict`: whole scenes -> maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from beam_jobs.predict.config import PredictConfig
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import config_option, load_config, verb
from beam_jobs.terminal.session import Session


@verb("predict")
@click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]")
@click.option(
    "--model",
    required=True,
    help="Folder of a published segmenter (the newest version is taken), or of one version.",
)
@click.option("--version", type=int, help="Version of the model. [the newest]")
@click.option(
    "--scenes",
    "sources",
    required=True,
    multiple=True,
    help="Catalog of STAC items, or a folder that `terrapair catalog` reads. Repeatable.",
)
@click.option("--output", required=True, help="Folder of the maps.")
@config_option("settings of the maps")
def predict(
    session: Session,
    model: str,
    version: int | None,
    sources: tuple[str, ...],
    output: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    beam_options: tuple[str, ...],
) -> None:
    """Make maps of whole scenes with a published model.

    Each scene gets a folder with class.tif, probability.tif and uncertainty.tif (Cloud
    Optimized GeoTIFF), and item.json (STAC). Run the same command again to go on after
    a kill, or with new scenes. What follows -- goes to Beam unchanged.

    \b
    Example:
      terrapair predict --model runs/demo/serving/flood --scenes exports --output maps
      terrapair predict --model runs/demo/serving/flood --scenes items.ndjson \\
        --output maps --set num_workers=2
    """
    config: PredictConfig = load_config(PredictConfig, config_path, overrides)
    inputs.check_folder(model, "model")
    for source in sources:
        inputs.check_catalog(source)
    from beam_jobs.predict import driver

    with session.stage("predict") as update:
        made = driver.predict(
            config,
            model,
            _catalogs(sources, Path(output)),
            output,
            version=version,
            beam_options=beam_options,
            on_progress=update,
        )
    session.note(_table(output, len(made.maps), made.num_rejected))
    document = {
        "maps": made.maps,
        "num_rejected": made.num_rejected,
        "collection": made.collection,
        "page": made.page,
    }
    session.result(document, *map(str, made.maps), str(made.page))


def _catalogs(sources: tuple[str, ...], output: Path) -> list[str]:
    """Return catalog files; those of folders are written into the output folder."""
    from beam_jobs.catalogs import catalog

    found = []
    for number, source in enumerate(sources):
        if not Path(source).is_dir():
            found.append(source)
            continue
        # The catalog of a folder lists what lies in it.
        listed = Path(source) / catalog.CATALOG_NAME
        if listed.is_file():
            found.append(str(listed))
            continue
        for place, config in enumerate(catalog.discover(source)):
            work_dir = output / ".catalogs" / f"{number}-{place}"
            found.append(str(catalog.resolve_catalog(config, work_dir)))
    return found


def _table(output: str, num_maps: int, rejected: dict[str, Any]) -> Table:
    table = Table(title=escape(f"maps: {output}"))
    table.add_column("scenes")
    table.add_column("number", justify="right")
    table.add_row("with a map", str(num_maps))
    for reason, count in sorted(rejected.items()):
        table.add_row(f"not used: {reason}", str(count))
    return table
