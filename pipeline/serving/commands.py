"""The verbs of model servers: `serve-check`, `serve-config`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import as_usage, verb
from beam_jobs.terminal.session import Session
from pipeline.run_settings import load, run_config_option


@verb("serve-check")
@run_config_option
def serve_check(session: Session, config_path: str, overrides: tuple[str, ...]) -> ExitCode:
    """Compare published models with Keras; exit code 4 if an answer differs.

    All models are loaded in a new process, as a server would load them.

    \b
    Example:
      terrapair serve-check --config pipeline/configs/demo.yaml
    """
    config = load(config_path, overrides)
    inputs.check_folder(config.serving_dir, "published models")
    from pipeline.serving.check import check_published, render

    results = check_published(config.serving_dir, os.environ)
    document = [{**dataclasses.asdict(result), "is_ok": result.is_ok} for result in results]
    session.result(document, render(results))
    return ExitCode.DONE if all(result.is_ok for result in results) else ExitCode.REFUSED


@verb("serve-config")
@click.option("--run", "run_root", required=True, help="Folder of a run, with serving/ in it.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder of the files."
)
@click.option(
    "--stable", multiple=True, metavar="MODEL=VERSION", help="Version to serve. [the newest]"
)
@click.option(
    "--canary", multiple=True, metavar="MODEL=VERSION", help="Second version to serve beside it."
)
@click.option(
    "--models-uri",
    default="/models",
    show_default=True,
    help="Where the models are: a mounted folder, s3:// or gs://, of which servers copy them.",
)
@click.option("--secret", default="", help="Kubernetes Secret with credentials as variables.")
@click.option("--batching", is_flag=True, help="Join requests; all must have one size.")
def serve_config(
    session: Session,
    run_root: str,
    output: Path,
    stable: tuple[str, ...],
    canary: tuple[str, ...],
    models_uri: str,
    secret: str,
    batching: bool,
) -> None:
    """Write the files of a model server: TensorFlow Serving for a run's models.

    They are the server's own files, a compose file and Kubernetes manifests. Clients
    ask for the version labels `stable` and `canary`.

    \b
    Example:
      terrapair serve-config --run runs/demo --output runs/demo/server
      terrapair serve-config --run runs/demo --output server --canary flood=1796011622
    """
    serving_dir = f"{run_root.rstrip('/')}/serving"
    inputs.check_folder(serving_dir, "published models")
    from pipeline.serving import serve_config as serving
    from pipeline.serving.server_files import Batching, Deployment

    models = serving.find_models(serving_dir, serving.parse_versions(stable, canary))
    with as_usage():
        deployment = Deployment(
            models_uri=models_uri, secret=secret, batching=Batching() if batching else None
        )
    written = serving.write_files(models, deployment, serving_dir, output)
    document = {"models": {one.name: dict(one.versions) for one in models}, "files": written}
    session.result(document, *map(str, written))
