"""serve-config: write the files that run TensorFlow Serving for a run's models.

Serving folder and wanted versions -> a folder of files. The texts come from
`server_files.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from pipeline.serving import server_files
from pipeline.serving.server_files import CANARY, STABLE, Deployment, ServedModel


def find_models(serving_dir: str, wanted: Mapping[str, Mapping[str, int]]) -> list[ServedModel]:
    """Return the models of a serving folder with their labelled versions.

    Args:
        serving_dir: folder that holds `<model>/<version>`.
        wanted: model -> version label -> version. A model without the label `stable`
            gets its newest complete version.

    Raises:
        SettingsError: a model or version is not there.
        DataError: the folder holds no complete model.
    """
    folders = sorted(path for path in locate(serving_dir).iterdir() if path.is_dir())
    complete = {
        path.name: [int(one.name) for one in published.versions(os.fspath(path))]
        for path in folders
    }
    complete = {name: versions for name, versions in complete.items() if versions}
    labelled = {name: published.read_labels(f"{serving_dir}/{name}").versions for name in complete}
    if not complete:
        raise DataError(
            f"{serving_dir}: no published model found (<model>/<version>/saved_model.pb): run the "
            "pipeline first",
            "missing_file",
        )
    for name, labels in wanted.items():
        for label, version in labels.items():
            if version not in complete.get(name, []):
                known = ", ".join(f"{model}={v}" for model, vs in complete.items() for v in vs)
                raise SettingsError(
                    f"--{label} {name}={version}: no such version in {serving_dir}; complete "
                    f"versions are: {known}"
                )
    return [
        ServedModel(
            name=name, versions={STABLE: versions[-1], **labelled[name], **wanted.get(name, {})}
        )
        for name, versions in complete.items()
    ]


def parse_versions(stable: Sequence[str], canary: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return model -> version label -> version of options `MODEL=VERSION`.

    Raises:
        SettingsError: an option is not of this form.
    """
    found: dict[str, dict[str, int]] = {}
    for label, options in ((STABLE, stable), (CANARY, canary)):
        for option in options:
            name, _, version = option.partition("=")
            if not name or not version.isdecimal():
                raise SettingsError(f"--{label} must be MODEL=VERSION, got {option!r}")
            found.setdefault(name, {})[label] = int(version)
    return found


def write_files(
    models: Sequence[ServedModel], deployment: Deployment, serving_dir: str, output: Path
) -> list[Path]:
    """Write all files and return their paths.

    Args:
        models: that the server loads.
        deployment: where and how large.
        serving_dir: folder of the models on this machine, for the compose file.
        output: folder of the files.
    """
    config = {
        published.MODELS_FILE: server_files.models_config(models, deployment.models_dir),
        server_files.MONITORING_FILE: server_files.monitoring_config(),
    }
    if deployment.batching is not None:
        config[server_files.BATCHING_FILE] = server_files.batching_config(deployment.batching)
    texts = {f"{published.CONFIG_DIR}/{name}": text for name, text in config.items()}
    published_dir = os.path.abspath(serving_dir)
    texts["compose.yaml"] = server_files.compose_file(models, deployment, config, published_dir)
    manifests = server_files.kubernetes_manifests(models, deployment, config)
    texts |= {f"{server_files.KUBERNETES_FOLDER}/{name}": text for name, text in manifests.items()}
    for name, text in texts.items():
        with staged(output / name) as file:
            file.write_text(text)
    return [output / name for name in texts]
