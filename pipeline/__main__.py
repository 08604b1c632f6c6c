"""`python -m pipeline <verb>`: run, compile, report, serve-check, claim-check, embed, search, import-weights, data-service.

Command line -> the functions of this package. Here and in `neighbour_commands.py` alone
the environment is read. TensorFlow and TFX are imported inside the verbs: so `--help`
and bad settings answer at once, and silencing comes before their import.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from beam_jobs.contracts import object_store, settings
from models.public_weights.catalog import KNOWN, find_weights
from pipeline.config import RunConfig, load_run_config
from pipeline.console import CONSOLE, RunProgress, guarded, prepare_libraries, silence_absl
from pipeline.neighbours.commands import COMMANDS


def _config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--config",
            "config_path",
            required=True,
            help="YAML file of the run, e.g. pipeline/configs/demo.yaml.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="A.B=C",
            help="Override one setting; may be repeated.",
        ),
        click.option("--verbose", is_flag=True, help="Show the log of TensorFlow, Beam and TFX."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ):
        function = option(function)
    return function


def _load(config_path: str, overrides: tuple[str, ...], data: str | None = None) -> RunConfig:
    config = load_run_config(config_path, overrides, os.environ)
    # ML Metadata remembers paths: relative ones would point elsewhere when the next run
    # starts from another folder.
    if "://" not in config.root:
        config = dataclasses.replace(config, root=str(Path(config.root).resolve()))
    if config.local_root:
        config = dataclasses.replace(config, local_root=str(Path(config.local_root).resolve()))
    if data is None:
        return config
    from beam_jobs.catalogs.catalog import discover

    return dataclasses.replace(config, catalogs=discover(data))


@click.group()
def main() -> None:
    """Pretrain on Sentinel-1/2 pairs, train the tasks, check and publish the models."""


@main.command()
@_config_options
@click.option(
    "--data",
    type=click.Path(),
    help="Folder of real data: replaces the catalogs by what lies in it.",
)
def run(
    config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, data: str | None
) -> None:
    """Run everything locally: data, pretraining, tasks, evaluation, publishing, report."""
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        config = _load(config_path, overrides, data)
        _write_resolved(config)
        from pipeline.data_build import build_data

        with RunProgress(CONSOLE) as progress:
            build_data(config, progress.stage, progress.update)
            # Only now, since importing TFX takes seconds that bad data should not cost.
            with progress.stage("import TFX"):
                from pipeline.runners.local import run_local
            if not verbose:
                silence_absl()

            def on_step(_: str, step: int, total: int, values: Mapping[str, float]) -> None:
                progress.update(step, total, values)

            run_local(config, progress.start, on_step, progress.note)
        return _report(config)

    guarded(debug, work)


@main.command()
@_config_options
def report(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool) -> None:
    """Show the report of the last run again."""
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        if not verbose:
            silence_absl()
        return _report(config)

    guarded(debug, work)


@main.command("compile")
@_config_options
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False), help="JSON file to write."
)
def compile_(
    config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, output: str
) -> None:
    """Write the pipeline's specification for Kubeflow Pipelines v2; needs no cluster."""
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        from pipeline.runners.kubeflow import compile_pipeline

        if not verbose:
            silence_absl()
        compile_pipeline(config, Path(output))
        CONSOLE.print(f"Pipeline specification: {output}", highlight=False, soft_wrap=True)
        return 0

    guarded(debug, work)


@main.command("serve-check")
@_config_options
def serve_check(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool) -> None:
    """Load every published model in a fresh process and compare it with its Keras model."""
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        from pipeline.serving.check import check_published, render

        results = check_published(config.serving_dir, os.environ)
        CONSOLE.print(render(results))
        return 0 if all(result.is_ok for result in results) else 1

    guarded(debug, work)


@main.command("claim-check")
@_config_options
@click.option(
    "--data",
    type=click.Path(),
    help="Folder of real data: replaces the catalogs by what lies in it.",
)
def claim_check(
    config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, data: str | None
) -> None:
    """Does pretraining on pairs help, by how much, with how few labels? See docs/claim_check.md.

    Example: python -m pipeline claim-check --config pipeline/configs/claim.yaml
    """
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        config = _load(config_path, overrides, data)
        from pipeline.claim_check import claim, page
        from pipeline.data_build import build_data

        claim.claim_of(config)
        _write_resolved(config)
        with RunProgress(CONSOLE) as progress:
            built = build_data(config, progress.stage, progress.update)
            document = claim.check_claim(config, built, progress.stage, progress.update)
        CONSOLE.print(page.sentence(document), soft_wrap=True)
        CONSOLE.print(
            f"Page: {config.claim_dir}/{claim.PAGE_FILE}", highlight=False, soft_wrap=True
        )
        return 0

    guarded(debug, work)


@main.command("data-service")
@click.option(
    "--dispatcher",
    default="",
    metavar="GRPC://HOST:PORT",
    help="Start a worker of this dispatcher.",
)
@click.option(
    "--host", default=socket.gethostname(), help="Name under which trainers reach the worker."
)
@click.option("--port", default=0, help="Port to listen on; 0 takes any free one.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def data_service(dispatcher: str, host: str, port: int, debug: bool) -> None:
    """Serve input to trainers whose config names it (input.data_service): a dispatcher, or one of its workers."""
    prepare_libraries(os.environ, verbose=False)

    def work() -> int:
        from models.reading import data_service as service

        if dispatcher:
            # A trainer sends its graph, but not the file systems that the graph opens.
            object_store.load_filesystem("s3://")
            server = service.start_worker(dispatcher, host, port)
            CONSOLE.print(f"worker of {dispatcher} on {host}", highlight=False)
        else:
            server = service.start_dispatcher(port)
            CONSOLE.print(f"dispatcher {server.target}", highlight=False)
        # Not the server's own join: an interrupt would wait for it.
        threading.Event().wait()
        return 0

    guarded(debug, work)


@main.command("import-weights")
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
    help="Bands of your shards, in their order, e.g. B2,B3,B4. Default: all that the file knows.",
)
@click.option(
    "--prefix", help="What stands before conv1.weight in the file, when it holds several networks."
)
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def import_weights(
    path: str,
    weights: str,
    output: str,
    bands: str | None,
    prefix: str | None,
    verbose: bool,
    debug: bool,
) -> None:
    """Publish an encoder from the public weights of a PyTorch ResNet; see docs/public_weights.md.

    Example, for shards of level 2A: python -m pipeline import-weights --file
    B13_rn50_moco.pth --weights ssl4eo-s12-s2-moco-resnet50 --bands
    B1,B2,B3,B4,B5,B6,B7,B8,B8A,B9,B11,B12 --output encoders/s2
    """
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        known = find_weights(weights)
        from models.public_weights.importing import import_encoder

        imported = import_encoder(
            known, path, output, bands=bands.split(",") if bands else None, prefix=prefix
        )
        for line in imported.lines(known):
            CONSOLE.print(line, highlight=False, soft_wrap=True)
        CONSOLE.print(
            f"Encoder: {output}  (segment.encoder_paths: {{{known.sensor}: {output}}})",
            soft_wrap=True,
        )
        return 0

    guarded(debug, work)


def _write_resolved(config: RunConfig) -> None:
    if "://" in config.root and not config.local_root:
        raise settings.SettingsError(
            f"local_root: needed when root is an object store, got root {config.root!r}: a folder of this machine for "
            "ML Metadata and simulated scenes"
        )
    import yaml

    from beam_jobs.contracts import locations

    digest = settings.sha256(config)
    logging.getLogger("terrapair").info("config %s %s", digest, settings.canonical_json(config))
    text = yaml.safe_dump(settings.to_dict(config), sort_keys=False)
    path = locations.parse(config.root) / "config.yaml"
    with locations.staged(path) as file:
        file.write_text(f"# sha256 {digest}\n{text}")
    CONSOLE.print(
        f"[bold]{config.name}[/bold]: config {path}, sha256 {digest[:12]}", highlight=False
    )


def _report(config: RunConfig) -> int:
    from pipeline.report.page import render_report
    from pipeline.report.results import collect_results

    results = collect_results(config)
    for part in render_report(config, results):
        CONSOLE.print(part, soft_wrap=True)
    return 0 if results.is_published else 1


for _command in COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    object_store.run_to_exit(main)
