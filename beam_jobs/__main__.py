"""`python -m beam_jobs <job>`: the jobs on data, from a list of places to shards, their audit and their data card.

Reads options, shows progress, turns errors into one line. The jobs themselves know
nothing of the terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

# Before TensorFlow is imported: its start-up messages are noise to a person.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import click
from rich.table import Table

from beam_jobs.collect.commands import COMMANDS
from beam_jobs.config import BuildConfig, CatalogConfig, FolderLayout, SimulateConfig
from beam_jobs.contracts import object_store
from beam_jobs.errors import DataError
from beam_jobs.terminal import CONSOLE, load_config, progress

if TYPE_CHECKING:
    from beam_jobs.contracts.locations import Location

_SPOOL_HELP = "Folder for what is cut before it is sharded; by default beside the output, where all workers see it."
_GOOGLE_ON_PYTHON = "You are using a non-supported Python version"
_SET_HELP = "Override one setting, as in --set patch.size_px=128. Repeatable."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error and all log messages.")
def main(debug: bool) -> None:
    """Turn Earth Engine exports, public data sets or simulated scenes into shards of Sentinel-1/2 pairs."""
    # Google's clients, which Beam imports, announce one after the other that Python
    # 3.10 ends; TFX runs on no later one.
    warnings.filterwarnings("ignore", _GOOGLE_ON_PYTHON, FutureWarning)
    os.environ.setdefault("PYTHONWARNINGS", f"ignore:{_GOOGLE_ON_PYTHON}:FutureWarning")
    logging.basicConfig(
        level=logging.INFO if debug else logging.ERROR, format="%(levelname)s %(name)s: %(message)s"
    )
    object_store.complete_environment(os.environ)


@main.command("simulate")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for scenes and catalog.",
)
@click.option(
    "--config", "config_path", type=click.Path(), help="YAML file with simulator settings."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    help="Override one setting, as in --set num_places=2. Repeatable.",
)
def simulate_command(output: Path, config_path: str | None, overrides: tuple[str, ...]) -> None:
    """Write simulated scenes with a STAC catalog, like an export of the real collections.

    Results on simulated scenes prove nothing about the real world.

    \b
    Example:
      python -m beam_jobs simulate --output runs/sim --set num_places=2 --set nuisance=augmentable
    """
    from beam_jobs.simulation.simulate import simulate

    config = load_config(SimulateConfig, config_path, overrides)
    with progress("scenes") as update:
        catalog = simulate(config, output, update)
    click.echo(catalog)


@main.command("catalog")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(get_args(FolderLayout)),
    required=True,
    help="Layout of the folder.",
)
@click.option("--output", required=True, help="Catalog file to write; path or URI.")
@click.option(
    "--split-list",
    "split_lists",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Text file of held-out SEN12MS scenes or patches; those in the folder are found. Repeatable.",
)
def catalog_command(folder: Path, layout: Any, output: str, split_lists: tuple[Path, ...]) -> None:
    """Write a STAC catalog of a folder in a public data set's layout, or of Earth Engine exports.

    docs/data.md says what each layout expects.

    \b
    Example:
      python -m beam_jobs catalog data/terramind --layout terramesh --output runs/terramesh/items.ndjson
    """
    from beam_jobs.catalogs import layouts
    from beam_jobs.catalogs.catalog import write_items

    # The config refuses lists that the layout does not have.
    CatalogConfig(layout=layout, path=str(folder), split_lists=tuple(map(str, split_lists)))
    click.echo(write_items(layouts.read(layout, folder.resolve(), split_lists), output))


def _build_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both builds share."""
    for option in (
        # Beam programs take runner options on the command line; after -- none of them
        # can be mistaken for one of ours.
        click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]"),
        click.option(
            "--version",
            type=int,
            help="Version number to build; by default the next one that is needed.",
        ),
        click.option(
            "--new-span",
            is_flag=True,
            help="Begin the next span; it takes no scene of an earlier one.",
        ),
        click.option("--span", type=int, help="Number of the data span. [1]"),
        click.option("--set", "overrides", multiple=True, help=_SET_HELP),
        click.option(
            "--config", "config_path", type=click.Path(), help="YAML file with build settings."
        ),
        click.option("--spool", "spool_root", help=_SPOOL_HELP),
        click.option(
            "--output",
            required=True,
            help="Folder that holds the spans; path or URI (s3://, gs://).",
        ),
        click.option(
            "--catalog", "catalogs", required=True, multiple=True, help="Path or URI. Repeatable."
        ),
    ):
        command = option(command)
    return command


@main.command("build-pairs")
@_build_options
def build_pairs_command(**options: Any) -> None:
    """Build shards of unlabeled pairs from STAC catalogs.

    What follows -- goes to Beam unchanged; without a --runner there, this machine does the work. See docs/runners.md.

    \b
    Example:
      python -m beam_jobs build-pairs --catalog runs/sim/items.ndjson --output runs/data/pairs
      python -m beam_jobs build-pairs --catalog gs://b/items.ndjson --output gs://b/pairs -- \\
        --runner=DataflowRunner --project=p --region=r --temp_location=gs://b/tmp --sdk_container_image=IMAGE
    """
    from beam_jobs.build.driver import build_pairs

    _build(build_pairs, **options)


@main.command("build-labels")
@_build_options
def build_labels_command(**options: Any) -> None:
    """Build shards of labelled pairs from STAC catalogs with label assets.

    What follows -- goes to Beam unchanged; without a --runner there, this machine does the work. See docs/runners.md.

    \b
    Example:
      python -m beam_jobs build-labels --catalog runs/sim/items.ndjson --output runs/data/flood \\
        --set label.schema=water --set label.label_from=s1 --set quality.max_cloud_fraction=1.0
    """
    from beam_jobs.build.driver import build_labels

    _build(build_labels, **options)


_VERSIONS_HELP = (
    "Version directory, or a folder of spans, of which the newest versions are taken. Repeatable."
)


@main.command("audit")
@click.option("--pairs", required=True, multiple=True, help=_VERSIONS_HELP)
@click.option("--labels", required=True, multiple=True, help=_VERSIONS_HELP)
@click.option("--output", help="JSON report to write; path or URI.")
@click.option(
    "--buffer-m",
    type=float,
    default=0.0,
    show_default=True,
    help="Patches closer than this overlap.",
)
@click.option(
    "--max-hash-distance",
    type=int,
    help="Bits of 128 in which hashes of the same pixels may differ. [6]",
)
def audit_command(
    pairs: tuple[str, ...],
    labels: tuple[str, ...],
    output: str | None,
    buffer_m: float,
    max_hash_distance: int | None,
) -> None:
    """Check that no unlabeled train patch shows the ground of a labelled eval or test patch; fail where one does.

    Patches are compared by footprint and by a hash of their looks, which finds the same pixels under another place.
    Patches of little texture, as open water, are compared by footprint only.

    \b
    Example:
      python -m beam_jobs audit --pairs runs/data/pairs --labels runs/data/flood --output runs/audit.json
    """
    from beam_jobs.contracts import locations
    from beam_jobs.judging import audit

    limit = audit.MAX_HASH_DISTANCE if max_hash_distance is None else max_hash_distance
    report = audit.audit(pairs, labels, buffer_m, limit)
    if output is not None:
        with locations.staged(output) as file:
            file.write_text(report.to_json())
    if report.num_overlaps:
        raise DataError(report.verdict, "overlap")
    click.echo(report.verdict)


@main.command("verify")
@click.argument("versions", nargs=-1, required=True)
@click.option(
    "--sizes-only", is_flag=True, help="Do not read the shards, compare their sizes only."
)
def verify_command(versions: tuple[str, ...], sizes_only: bool) -> None:
    """Check that the shards of a version are all there and whole, as its manifest names them.

    \b
    Example:
      python -m beam_jobs verify runs/data/pairs/span-1/version-1
    """
    from beam_jobs.build.verify import verify

    for version in versions:
        with progress("shards") as update:
            found = verify(version, not sizes_only, update)
        compared = "sizes" if sizes_only else "sizes and SHA-256"
        click.echo(f"{version}: {len(found.shards)} shards are as the manifest says ({compared})")


@main.command("card")
@click.argument("version", type=click.Path(path_type=Path))
def card_command(version: Path) -> None:
    """Make the data card of a version again from its shards: data_card.md, data_card.json and two pictures.

    \b
    Example:
      python -m beam_jobs card runs/data/pairs/span-1/version-1
    """
    from beam_jobs.data_card import card as data_card

    with progress("shards") as update:
        card = data_card.remake(version, update)
    click.echo(card)


@main.command("emulate-ee")
@click.option(
    "--scenes",
    type=click.Path(path_type=Path),
    help="Folder of simulated scenes; without it they are made.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for scenes, buckets and log.",
)
@click.option(
    "--port",
    type=int,
    default=0,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes any free one.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="NDJSON of all requests. [OUTPUT/requests.ndjson]",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(),
    help="YAML file with settings of world, faults and exports.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    help="Override one setting, as in --set faults.server_error=0.2.",
)
def emulate_ee_command(
    scenes: Path | None,
    output: Path,
    port: int,
    log: Path | None,
    config_path: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Serve simulated scenes as Earth Engine would, on this machine, until Ctrl-C.

    Export the printed variables in another shell, and every job there talks to this server instead of Google's.

    \b
    Example:
      python -m beam_jobs emulate-ee --output runs/ee --set simulate.num_places=4 --set faults.too_many_requests=0.2
    """
    from beam_jobs.emulator import server
    from beam_jobs.emulator.config import EmulatorConfig
    from beam_jobs.simulation.simulate import simulate

    config = load_config(EmulatorConfig, config_path, overrides)
    if scenes is None:
        scenes = output / "scenes"
        with progress("scenes") as update:
            simulate(config.simulate, scenes, update)
    stopped = server.stop_signal()
    with server.running(scenes, output, config, port, log) as running:
        for name, value in running.environment.items():
            click.echo(f"export {name}={value}")
        CONSOLE.print(
            f"Requests: {running.log_path}  Buckets: {running.buckets_dir}  Ctrl-C ends the server."
        )
        stopped.wait()


def _build(
    job: Callable[..., Location],
    catalogs: tuple[str, ...],
    output: str,
    config_path: str | None,
    overrides: tuple[str, ...],
    span: int | None,
    new_span: bool,
    version: int | None,
    beam_options: tuple[str, ...],
    spool_root: str | None,
) -> None:
    from beam_jobs.contracts import manifest

    if new_span and span is not None:
        raise click.UsageError("--span and --new-span exclude each other")
    if span is None and not new_span:
        span = 1
    config = load_config(BuildConfig, config_path, overrides)
    with progress("scene pairs") as update:
        version_dir = job(
            config,
            catalogs,
            output,
            span=span,
            version=version,
            on_progress=update,
            spool_root=spool_root,
            beam_options=beam_options,
        )
    found = manifest.read(version_dir)
    table = Table(title=f"{found.kind}: {version_dir}")
    table.add_column("patches kept")
    table.add_column("number", justify="right")
    for split, count in found.num_examples.items():
        table.add_row(split, str(count))
    table.add_section()
    for reason, count in found.num_rejected.items():
        table.add_row(f"not used: {reason}", str(count))
    CONSOLE.print(table)
    click.echo(version_dir)


for _command in COMMANDS:
    main.add_command(_command)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; what is wrong with the input is said in one line."""
    # --debug may stand anywhere, before or after the command.
    debug = "--debug" in arguments
    arguments = ["--debug"] * debug + [argument for argument in arguments if argument != "--debug"]
    try:
        main(arguments, prog_name="python -m beam_jobs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    # DataError, SettingsError and what configs refuse are ValueErrors; Beam wraps what
    # a worker raised in a RuntimeError.
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(lambda: run(sys.argv[1:]))
