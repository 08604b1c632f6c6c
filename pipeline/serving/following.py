"""Make the files of `serve-config` follow the labels of a serving folder.

TensorFlow Serving looks at the folder of each model every second, and loads the
versions that it finds. Every minute it reads `models.config`, and moves the labels to
versions that are loaded. Until then labels mean what they meant before. So requests go
on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import content_of, locate, staged
from pipeline.serving import server_files

_CURE = "write the folder again by terrapair serve-config"


def server_folders(run_root: str, named: tuple[Path, ...]) -> list[Path]:
    """Return the folders that `serve-config` wrote: those named, or the usual one."""
    usual = Path(run_root) / published.SERVER_DIR
    return list(named) or ([usual] if (usual / published.CONFIG_DIR).is_dir() else [])


def follow_all(run_root: str, serving_dir: str) -> None:
    """Rewrite the labels of all models in the usual folder of a run, if it is there.

    Raises:
        DamagedFileError: see `follow_labels`.
    """
    for folder in server_folders(run_root, ()):
        for path in locate(serving_dir).iterdir():
            follow_labels(folder, path.name, published.read_labels(path).versions)


def follow_labels(folder: Path, model: str, labels: Mapping[str, int]) -> bool:
    """Rewrite the labels of one model in a folder of `serve-config`.

    Both `models.config` and the ConfigMap that holds it change. A cluster follows when
    the ConfigMap is applied. A model that the server does not load is left out. Servers
    that copy their models from a store start anew with other versions, so their files
    are for `serve-config` to write; nothing changes then.

    Args:
        folder: output of `serve-config`.
        model: name of the model.
        labels: version label -> version; empty changes nothing.

    Returns:
        Whether the files follow.

    Raises:
        DamagedFileError: a file is not what `serve-config` wrote.
    """
    kubernetes = folder / server_files.KUBERNETES_FOLDER
    if not (kubernetes / server_files.VOLUME_FILE).exists():
        return False
    path = folder / published.CONFIG_DIR / published.MODELS_FILE
    with content_of(path, _CURE):
        text = relabel(path.read_text(), model, labels)
    config_map = kubernetes / server_files.CONFIG_MAP_FILE
    with content_of(config_map, _CURE):
        document = yaml.safe_load(config_map.read_text())
        document["data"][published.MODELS_FILE] = text
    with staged(config_map) as file:
        file.write_text(server_files.as_yaml(document))
    # Last: the server reads this one.
    with staged(path) as file:
        file.write_text(text)
    return True


def relabel(text: str, model: str, labels: Mapping[str, int]) -> str:
    """Return a `models.config` whose model has other labels.

    Raises:
        ValueError: the text is no such file.
    """
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise ValueError(f"no models.config: {error}") from error
    for entry in config.model_config_list.config:
        if entry.name == model and labels:
            entry.ClearField("version_labels")
            for label, version in sorted(labels.items()):
                entry.version_labels[label] = version
    return str(text_format.MessageToString(config))
