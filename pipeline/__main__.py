"""`python -m pipeline <verb>`: run, compile, report, serve-check, claim-check, embed, search, import-weights, data-service.

Command line -> the functions of this package. The only module here that reads the environment and prints. TensorFlow and
TFX are imported inside the verbs: so `--help` and bad settings answer at once, and silencing comes before their import.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from beam_jobs.contracts import object_store, settings
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.layout import SPLITS
from models.public_weights.catalog import KNOWN, find_weights
from pipeline.config import RunConfig, load_run_config
from pipeline.console import RunProgress, choose_keras_3, silence_absl, silence_libraries

# Without a terminal rich assumes 80 columns, which folds the tables.
console = Console(width=None if sys.stdout.isatty() else 120)


def _config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--config", "config_path", required=True, help="YAML file of the run, e.g. pipeline/configs/demo.yaml."
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="A.B=C", help="Override one setting; may be repeated."
        ),
        click.option("--verbose", is_flag=True, help="Show the log of TensorFlow, Beam and TFX."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ):
        function = option(function)
    return function


def _guarded(debug: bool, work: Callable[[], int]) -> None:
    """Runs `work`, ends the process with its code; an error is one line, unless `debug`."""
    try:
        code = work()
    # ValueError holds SettingsError and DataError; RuntimeError what Beam and TensorFlow raise for the user's input.
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        click.echo(f"error: {lines[0]}" + ("" if len(lines) == 1 else "  (--debug shows all)"), err=True)
        code = 1
    sys.exit(code)


def _load(config_path: str, overrides: tuple[str, ...], data: str | None = None) -> RunConfig:
    config = load_run_config(config_path, overrides, os.environ)
    # ML Metadata remembers paths: relative ones would point elsewhere when the next run starts from another folder.
    if "://" not in config.root:
        config = dataclasses.replace(config, root=str(Path(config.root).resolve()))
    if config.local_root:
        config = dataclasses.replace(config, local_root=str(Path(config.local_root).resolve()))
    if data is None:
        return config
    from beam_jobs.catalogs import discover

    return dataclasses.replace(config, catalogs=discover(data))


def _prepare_libraries(verbose: bool) -> None:
    choose_keras_3(os.environ)
    object_store.complete_environment(os.environ)
    if not verbose:
        silence_libraries(os.environ)


@click.group()
def main() -> None:
    """Pretrain on Sentinel-1/2 pairs, train the tasks, check and publish the models."""


@main.command()
@_config_options
@click.option("--data", type=click.Path(), help="Folder of real data: replaces the catalogs by what lies in it.")
def run(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, data: str | None) -> None:
    """Run everything locally: data, pretraining, tasks, evaluation, publishing, report."""
    _prepare_libraries(verbose)

    def work() -> int:
        config = _load(config_path, overrides, data)
        _write_resolved(config)
        from pipeline.data_build import build_data

        with RunProgress(console) as progress:
            build_data(config, progress.stage, progress.update)
            # Only now, since importing TFX takes seconds that bad data should not cost.
            with progress.stage("import TFX"):
                from pipeline.local_runner import run_local
            if not verbose:
                silence_absl()

            def on_step(_: str, step: int, total: int, values: Mapping[str, float]) -> None:
                progress.update(step, total, values)

            run_local(config, progress.start, on_step, progress.note)
        return _report(config)

    _guarded(debug, work)


@main.command()
@_config_options
def report(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool) -> None:
    """Show the report of the last run again."""
    _prepare_libraries(verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        if not verbose:
            silence_absl()
        return _report(config)

    _guarded(debug, work)


@main.command("compile")
@_config_options
@click.option("--output", required=True, type=click.Path(dir_okay=False), help="JSON file to write.")
def compile_(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, output: str) -> None:
    """Write the pipeline's specification for Kubeflow Pipelines v2; needs no cluster."""
    _prepare_libraries(verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        from pipeline.kubeflow_runner import compile_pipeline

        if not verbose:
            silence_absl()
        compile_pipeline(config, Path(output))
        console.print(f"Pipeline specification: {output}", highlight=False, soft_wrap=True)
        return 0

    _guarded(debug, work)


@main.command("serve-check")
@_config_options
def serve_check(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool) -> None:
    """Load every published model in a fresh process and compare it with its Keras model."""
    _prepare_libraries(verbose)

    def work() -> int:
        config = _load(config_path, overrides)
        from pipeline.serving.check import check_published, render

        results = check_published(config.serving_dir, os.environ)
        console.print(render(results))
        return 0 if all(result.is_ok for result in results) else 1

    _guarded(debug, work)


@main.command("claim-check")
@_config_options
@click.option("--data", type=click.Path(), help="Folder of real data: replaces the catalogs by what lies in it.")
def claim_check(config_path: str, overrides: tuple[str, ...], verbose: bool, debug: bool, data: str | None) -> None:
    """Does pretraining on pairs help, by how much, with how few labels? See docs/claim_check.md.

    Example: python -m pipeline claim-check --config pipeline/configs/claim.yaml
    """
    _prepare_libraries(verbose)

    def work() -> int:
        config = _load(config_path, overrides, data)
        from pipeline.claim_check import claim, page
        from pipeline.data_build import build_data

        claim.claim_of(config)
        _write_resolved(config)
        with RunProgress(console) as progress:
            built = build_data(config, progress.stage, progress.update)
            document = claim.check_claim(config, built, progress.stage, progress.update)
        console.print(page.sentence(document), soft_wrap=True)
        console.print(f"Page: {config.claim_dir}/{claim.PAGE_FILE}", highlight=False, soft_wrap=True)
        return 0

    _guarded(debug, work)


@main.command("data-service")
@click.option("--dispatcher", default="", metavar="GRPC://HOST:PORT", help="Start a worker of this dispatcher.")
@click.option("--host", default=socket.gethostname(), help="Name under which trainers reach the worker.")
@click.option("--port", default=0, help="Port to listen on; 0 takes any free one.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def data_service(dispatcher: str, host: str, port: int, debug: bool) -> None:
    """Serve input to trainers whose config names it (input.data_service): a dispatcher, or one of its workers."""
    _prepare_libraries(verbose=False)

    def work() -> int:
        from models.reading import data_service as service

        if dispatcher:
            # A trainer sends its graph, but not the file systems that the graph opens.
            object_store.load_filesystem("s3://")
            server = service.start_worker(dispatcher, host, port)
            console.print(f"worker of {dispatcher} on {host}", highlight=False)
        else:
            server = service.start_dispatcher(port)
            console.print(f"dispatcher {server.target}", highlight=False)
        # Not the server's own join: an interrupt would wait for it.
        threading.Event().wait()
        return 0

    _guarded(debug, work)


@main.command("import-weights")
@click.option("--file", "path", required=True, type=click.Path(), help=".pth of torch.save, or .safetensors.")
@click.option(
    "--weights", required=True, metavar="NAME|YAML", help=f"What the file is: {', '.join(KNOWN)}; or a YAML file."
)
@click.option("--output", required=True, type=click.Path(), help="New folder for the published encoder.")
@click.option("--bands", help="Bands of your shards, in their order, e.g. B2,B3,B4. Default: all that the file knows.")
@click.option("--prefix", help="What stands before conv1.weight in the file, when it holds several networks.")
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def import_weights(
    path: str, weights: str, output: str, bands: str | None, prefix: str | None, verbose: bool, debug: bool
) -> None:
    """Publish an encoder from the public weights of a PyTorch ResNet; see docs/public_weights.md.

    Example, for shards of level 2A: python -m pipeline import-weights --file B13_rn50_moco.pth --weights
    ssl4eo-s12-s2-moco-resnet50 --bands B1,B2,B3,B4,B5,B6,B7,B8,B8A,B9,B11,B12 --output encoders/s2
    """
    _prepare_libraries(verbose)

    def work() -> int:
        known = find_weights(weights)
        from models.public_weights.importing import import_encoder

        imported = import_encoder(known, path, output, bands=bands.split(",") if bands else None, prefix=prefix)
        for line in imported.lines(known):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"Encoder: {output}  (segment.encoder_paths: {{{known.sensor}: {output}}})", soft_wrap=True)
        return 0

    _guarded(debug, work)


@main.command()
@click.option("--encoder", required=True, help="Published encoder of both sensors: a SavedModel folder.")
@click.option("--pairs", required=True, help="Version directory, as build-pairs writes it; no catalog, no scenes.")
@click.option("--split", type=click.Choice([*SPLITS, "all"]), default="eval", show_default=True)
@click.option("--output", required=True, help="Folder for the index; one that exists is never overwritten.")
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1), help="Patches at a time.")
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def embed(encoder: str, pairs: str, split: str, output: str, batch_size: int, verbose: bool, debug: bool) -> None:
    """Embed the patches of a version with a published encoder: an index for `search`; see docs/neighbours.md.

    Scenes of a catalog become a version by `python -m beam_jobs build-pairs`.

    \b
    Example:
      python -m pipeline embed --encoder runs/demo/serving/encoder/<version> \\
        --pairs runs/demo/data/pairs/span-1/version-1 --output runs/demo/index
    """
    _prepare_libraries(verbose)

    def work() -> int:
        from models.neighbours.embedding import embed_version
        from pipeline.neighbours import describe_recall

        splits = SPLITS if split == "all" else (split,)
        with RunProgress(console) as progress, progress.stage(f"embed {', '.join(splits)}"):
            info = embed_version(
                encoder, pairs, output, splits=splits, batch_size=batch_size, on_progress=progress.update
            )
        left_out = info.source.num_records - info.num_patches
        told = f"{info.num_patches} patches of {', '.join(info.source.splits)}, {info.embedding_dim} dimensions"
        if left_out:
            told += f"; {left_out} without data in one sensor left out"
        for line in (f"Index: {output}  ({told})", *describe_recall(info)):
            console.print(line, highlight=False, soft_wrap=True)
        return 0

    _guarded(debug, work)


@main.command()
@click.option("--index", "folder", required=True, help="Folder that `embed` wrote.")
@click.option("--patch", "wanted", metavar="ID|LON,LAT", help="The query: a patch id, or the patch nearest to a place.")
@click.option(
    "--random", "num_random", type=click.IntRange(1, 100), metavar="N", help="N queries drawn by lot instead."
)
@click.option("--seed", default=0, show_default=True, help="Of the lot.")
@click.option("--from", "query_sensor", type=click.Choice(SENSORS), default="s1", show_default=True)
@click.option("--to", "answer_sensor", type=click.Choice(SENSORS), default="s2", show_default=True)
@click.option("--k", default=5, show_default=True, type=click.IntRange(1, 20), help="Answers to each query.")
@click.option("--output", required=True, help="PNG to write.")
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def search(
    folder: str,
    wanted: str | None,
    num_random: int | None,
    seed: int,
    query_sensor: Sensor,
    answer_sensor: Sensor,
    k: int,
    output: str,
    verbose: bool,
    debug: bool,
) -> None:
    """Find the patches whose embedding is nearest to that of a patch in the other sensor, as a table and a picture.

    \b
    Examples:
      python -m pipeline search --index runs/demo/index --random 8 --output neighbours.png
      python -m pipeline search --index runs/demo/index --patch 12.5,41.9 --from s2 --to s1 --output rome.png
    """
    _prepare_libraries(verbose)

    def work() -> int:
        if (wanted is None) == (num_random is None):
            raise ValueError("a search needs either --patch or --random, got both or none")
        from models.neighbours.index import read_index
        from models.neighbours.search import draw_patches, find_patch
        from models.neighbours.search import search as search_index

        index = read_index(folder)
        if wanted is None:
            rows = draw_patches(len(index.patches), num_random or 1, seed)
        else:
            rows = [find_patch(index.patches, wanted)]
        # Only now, since importing TensorFlow takes seconds that a wrong id should not cost.
        from pipeline.neighbours import describe_recall, draw_search, make_table

        results = search_index(index, rows, query_sensor=query_sensor, answer_sensor=answer_sensor, k=k)
        console.print(make_table(index, results))
        for line in describe_recall(index.info):
            console.print(line, highlight=False, soft_wrap=True)
        draw_search(index, results, query_sensor, answer_sensor, output)
        console.print(f"Picture: {output}", highlight=False, soft_wrap=True)
        return 0

    _guarded(debug, work)


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
    console.print(f"[bold]{config.name}[/bold]: config {path}, sha256 {digest[:12]}", highlight=False)


def _report(config: RunConfig) -> int:
    from pipeline.report import render_report
    from pipeline.results import collect_results

    results = collect_results(config)
    for part in render_report(config, results):
        console.print(part, soft_wrap=True)
    return 0 if results.is_published else 1


if __name__ == "__main__":
    object_store.run_to_exit(main)
