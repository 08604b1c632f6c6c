"""Verbs on scenes and shards, from `simulate` to `audit`.

Each reads its options, checks that its inputs exist, and calls one job. The jobs know
nothing of the terminal. They are imported inside the verbs, because they import
TensorFlow and Beam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.markup import escape
from rich.table import Table

from beam_jobs.config import BuildConfig, CatalogConfig, FolderLayout, SimulateConfig
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import as_usage, config_option, load_config, verb
from beam_jobs.terminal.session import Session

if TYPE_CHECKING:
    from beam_jobs.contracts.locations import Location

_VERSIONS_HELP = "A version, or a folder of spans: the newest version of each. Repeatable."


@verb("simulate")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for scenes and catalog.",
)
@config_option("simulator settings")
def simulate(
    session: Session, output: Path, config_path: str | None, overrides: tuple[str, ...]
) -> None:
    """Write simulated scenes and their catalog, like an export of the real collections.

    Results on simulated scenes prove nothing about the real world.

    \b
    Example:
      terrapair simulate --output runs/sim --set num_places=2 --set nuisance=augmentable
    """
    config = load_config(SimulateConfig, config_path, overrides)
    from beam_jobs.simulation import simulate as simulator

    with session.stage("simulate") as update:
        catalog = simulator.simulate(config, output, update)
    session.result({"catalog": catalog}, str(catalog))


@verb("catalog")
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
    help="Text file of held-out SEN12MS scenes or patches; lists in the folder are found. "
    "Repeatable.",
)
def catalog(
    session: Session, folder: Path, layout: Any, output: str, split_lists: tuple[Path, ...]
) -> None:
    """Write a STAC catalog of a folder of scenes.

    The folder holds a public data set, or exports of Earth Engine.
    docs/data.md describes what each layout expects.

    \b
    Example:
      terrapair catalog data/terramind --layout terramesh --output runs/items.ndjson
    """
    inputs.check_folder(folder, "scenes")
    with as_usage():
        # The config refuses lists that the layout does not have.
        CatalogConfig(layout=layout, path=str(folder), split_lists=tuple(map(str, split_lists)))
    for path in split_lists:
        inputs.check_file(path, "split list")
    from beam_jobs.catalogs import layouts
    from beam_jobs.catalogs.catalog import check_usable, write_items

    written = write_items(layouts.read(layout, folder.resolve(), split_lists), output)
    check_usable([written])
    session.result({"catalog": written}, str(written))


def _build_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both builds share."""
    for option in (
        # Beam programs take runner options on the command line. After -- none of them
        # can be mistaken for one of ours.
        click.argument("beam_options", nargs=-1, metavar="[-- BEAM OPTIONS]"),
        click.option(
            "--verify",
            "verify_files",
            is_flag=True,
            help="Compare the content of all input files, also of those whose size and time are "
            "as before.",
        ),
        click.option("--version", type=int, help="Version to build. [the next one, if needed]"),
        click.option(
            "--new-span",
            is_flag=True,
            help="Begin the next span; it takes no scene of an earlier one.",
        ),
        click.option("--span", type=int, help="Number of the data span. [1]"),
        config_option("build settings"),
        click.option(
            "--spool",
            "spool_root",
            help="Folder for patches that are cut but not yet in shards; all workers must see it. "
            "[beside the output]",
        ),
        click.option(
            "--output",
            required=True,
            help="Folder that holds the spans; path or URI (s3://, gs://).",
        ),
        click.option(
            "--catalog",
            "catalogs",
            required=True,
            multiple=True,
            help="Catalog file or folder of STAC items; path or URI. Repeatable.",
        ),
    ):
        command = option(command)
    return command


@verb("build-pairs")
@_build_options
def build_pairs(session: Session, **options: Any) -> None:
    """Build shards of unlabeled pairs from STAC catalogs.

    What follows -- goes to Beam, with the lines of a file in place of @FILE. Without a
    --runner there, the build runs on this machine. See docs/runners.md.

    \b
    Example:
      terrapair build-pairs --catalog runs/sim/items.ndjson --output runs/data/pairs
      terrapair build-pairs --catalog gs://b/items.ndjson --output gs://b/pairs -- \\
        @deploy/dataflow/options.txt --project=p --temp_location=gs://b/tmp \\
        --sdk_container_image=IMAGE
    """
    _build(session, "build_pairs", _BuildOptions(**options))


@verb("build-labels")
@_build_options
def build_labels(session: Session, **options: Any) -> None:
    """Build shards of labelled pairs from STAC catalogs with label assets.

    What follows -- goes to Beam, with the lines of a file in place of @FILE. Without a
    --runner there, the build runs on this machine. See docs/runners.md.

    \b
    Example:
      terrapair build-labels --catalog runs/sim/items.ndjson --output runs/data/flood \\
        --set label.schema=water --set label.label_from=s1
    """
    _build(session, "build_labels", _BuildOptions(**options))


@verb("audit")
@click.option("--pairs", required=True, multiple=True, help=_VERSIONS_HELP)
@click.option("--labels", required=True, multiple=True, help=_VERSIONS_HELP)
@click.option("--output", help="JSON report to write; path or URI.")
@click.option(
    "--buffer-m",
    type=click.FloatRange(min=0.0),
    default=0.0,
    show_default=True,
    help="Patches closer than this overlap.",
)
@click.option(
    "--max-hash-distance",
    type=int,
    help="Bits of 128 in which hashes of the same pixels may differ. [6]",
)
def audit(
    session: Session,
    pairs: tuple[str, ...],
    labels: tuple[str, ...],
    output: str | None,
    buffer_m: float,
    max_hash_distance: int | None,
) -> None:
    """Check that train and test patches do not overlap; exit code 4 if they do.

    Unlabeled train patches are compared with labelled eval and test patches, by
    footprint and by a hash of their pixels. The hash finds the same pixels under
    another place. Patches of little texture, such as open water, are compared by
    footprint only.

    \b
    Example:
      terrapair audit --pairs runs/data/pairs --labels runs/data/flood
    """
    for path in (*pairs, *labels):
        inputs.check_folder(path, "version")
    from beam_jobs.contracts import locations
    from beam_jobs.errors import RefusedError
    from beam_jobs.judging import audit as auditor

    limit = auditor.MAX_HASH_DISTANCE if max_hash_distance is None else max_hash_distance
    report = auditor.audit(pairs, labels, buffer_m, limit)
    if output is not None:
        with locations.staged(output) as file:
            file.write_text(report.to_json())
    if session.as_json or not report.num_overlaps:
        session.result({**asdict(report), "verdict": report.verdict}, report.verdict)
    if report.num_overlaps:
        raise RefusedError(report.verdict, "overlap")


@verb("verify")
@click.argument("versions", nargs=-1, required=True)
@click.option("--sizes-only", is_flag=True, help="Compare the sizes of the shards only.")
def verify(session: Session, versions: tuple[str, ...], sizes_only: bool) -> None:
    """Check the shards of versions against their manifests: all there and unchanged.

    \b
    Example:
      terrapair verify runs/data/pairs/span-1/version-1
    """
    for version in versions:
        inputs.check_version(version)
    from beam_jobs.build import verify as verifier

    compared = "sizes" if sizes_only else "sizes and SHA-256"
    document, lines = [], []
    for version in versions:
        with session.stage(f"verify {version}") as update:
            found = verifier.verify(version, not sizes_only, on_progress=update)
        document.append({"version": version, "num_shards": len(found.shards), "compared": compared})
        lines.append(f"{version}: {len(found.shards)} shards are as the manifest says ({compared})")
    session.result(document, *lines)


@verb("card")
@click.argument("version", type=click.Path(path_type=Path))
def card(session: Session, version: Path) -> None:
    """Write the data card of a version again, from its shards.

    The card is data_card.md, data_card.json and two pictures.

    \b
    Example:
      terrapair card runs/data/pairs/span-1/version-1
    """
    inputs.check_version(version)
    from beam_jobs.data_card import card as data_card

    with session.stage("card") as update:
        written = data_card.remake(version, update)
    session.result({"card": written}, str(written))


@verb("emulate-ee")
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
@config_option("settings of world, faults and exports")
def emulate_ee(
    session: Session,
    scenes: Path | None,
    output: Path,
    port: int,
    log: Path | None,
    config_path: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Serve simulated scenes as Earth Engine would, on this machine, until Ctrl-C.

    Set the printed variables in another shell. Every job there then talks to this
    server instead of Google's.

    \b
    Example:
      terrapair emulate-ee --output runs/ee --set simulate.num_places=4 \\
        --set faults.too_many_requests=0.2
    """
    from beam_jobs.emulator.config import EmulatorConfig

    config = load_config(EmulatorConfig, config_path, overrides)
    if scenes is not None:
        inputs.check_folder(scenes, "scenes")
    from beam_jobs.emulator import server
    from beam_jobs.simulation import simulate as simulator

    if scenes is None:
        scenes = output / "scenes"
        with session.stage("simulate") as update:
            simulator.simulate(config.simulate, scenes, update)
    stopped = server.stop_signal()
    with server.running(scenes, output, config, port, log) as running:
        lines = [f"export {name}={value}" for name, value in running.environment.items()]
        session.result({"environment": dict(running.environment)}, *lines)
        session.note(escape(f"Requests: {running.log_path}  Buckets: {running.buckets_dir}"))
        session.note("Ctrl-C ends the server.")
        stopped.wait()


@dataclass(frozen=True, kw_only=True)
class _BuildOptions:
    """The options of a build, by the names that click gives them."""

    catalogs: tuple[str, ...]
    output: str
    config_path: str | None
    overrides: tuple[str, ...]
    span: int | None
    new_span: bool
    version: int | None
    beam_options: tuple[str, ...]
    spool_root: str | None
    verify_files: bool


def _build(session: Session, job_name: str, options: _BuildOptions) -> None:
    if options.new_span and options.span is not None:
        raise click.UsageError("--span and --new-span exclude each other")
    span = "new" if options.new_span else 1 if options.span is None else options.span
    config = load_config(BuildConfig, options.config_path, options.overrides)
    for path in options.catalogs:
        inputs.check_catalog(path)
    from beam_jobs.build import driver
    from beam_jobs.contracts import manifest

    job: Callable[..., Location] = getattr(driver, job_name)
    with session.stage(job_name.replace("_", "-")) as update:
        version_dir = job(
            config,
            options.catalogs,
            options.output,
            span=span,
            version=options.version,
            execution=driver.Execution(
                on_progress=update,
                spool_root=options.spool_root,
                beam_options=options.beam_options,
                verify_files=options.verify_files,
            ),
        )
    found = manifest.read(version_dir)
    session.note(_build_table(found.kind, version_dir, found.num_examples, found.num_rejected))
    document = {
        "version": version_dir,
        "kind": found.kind,
        "num_examples": found.num_examples,
        "num_rejected": found.num_rejected,
        "manifest_sha256": found.sha256,
    }
    session.result(document, str(version_dir))


def _build_table(kind: str, version_dir: Location, kept: Any, rejected: Any) -> Table:
    table = Table(title=escape(f"{kind}: {version_dir}"))
    table.add_column("patches kept")
    table.add_column("number", justify="right")
    for split, count in kept.items():
        table.add_row(split, str(count))
    table.add_section()
    for reason, count in rejected.items():
        table.add_row(f"not used: {reason}", str(count))
    return table
