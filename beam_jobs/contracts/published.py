"""Folders of published models: their cards, their versions and the labels of these.

A version is `<serving folder>/<model>/<version>/`: a SavedModel, and beside it
`assets.extra/model_card.json`. The card is written last, so a folder with a card holds
a complete model. `models.published` writes models; all packages find and describe them
by this module.

`serve-config` gives versions labels, such as `stable`, in TensorFlow Serving's own
file. Whoever makes maps without a server reads the same file.
"""

from __future__ import annotations

import json
import os
from typing import Any

from beam_jobs.contracts.locations import Location, content_of, locate

ASSETS_DIR = "assets.extra"
CARD_NAME = "model_card.json"
CURE = "copy the model back from where it was published, or publish it again"
"""The cure for a damaged part of a published model."""
SERVER_DIR = "server"
"""Usual folder of a server's files, beside the serving folder."""
CONFIG_DIR, MODELS_FILE = "config", "models.config"
"""Where a server's folder lists the models and the labels of their versions."""


def read_card(saved_model_dir: str) -> dict[str, Any]:
    """Return the card of a published model.

    Raises:
        FileNotFoundError: there is no card, so the model is not complete.
        DamagedFileError: it is not the card that was written.
    """
    path = locate(saved_model_dir) / ASSETS_DIR / CARD_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no model card, so this is no finished model")
    with content_of(path, CURE):
        card = json.loads(path.read_text())
        # Every card has it; a JSON document without it is something else.
        card["inputs"]
    return card


def versions(model_dir: str | os.PathLike[str]) -> list[Location]:
    """Return the folders of a model's complete versions, the oldest first."""
    found = [path.parent.parent for path in locate(model_dir).glob(f"*/{ASSETS_DIR}/{CARD_NAME}")]
    return sorted((path for path in found if path.name.isdigit()), key=lambda path: int(path.name))


def models_file(server_dir: str | os.PathLike[str]) -> Location:
    """Return the list of models in a folder that `serve-config` wrote."""
    return locate(server_dir) / CONFIG_DIR / MODELS_FILE


def version_labels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Return model -> version label -> version, as a server's list of models has it.

    Args:
        path: of the list, see `models_file`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is no list of models.

    Source: TensorFlow Serving, model_server_config.proto.
    """
    # Only now: most readers of cards need no server.
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    text = locate(path).read_text()
    with content_of(path, "write it again by `terrapair serve-config`"):
        try:
            text_format.Parse(text, config)
        except text_format.ParseError as error:
            raise ValueError(str(error)) from error
    return {
        model.name: {label: int(version) for label, version in model.version_labels.items()}
        for model in config.model_config_list.config
    }
