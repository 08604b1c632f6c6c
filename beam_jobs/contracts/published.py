"""Folders of published models: their cards, their versions, and what is in service.

A version is `<serving folder>/<model>/<version>/`: a SavedModel, and beside it
`assets.extra/model_card.json`. The card is written last, so a folder with a card holds
a complete model. `<serving folder>/<model>/labels.json` says which version each label
means: clients ask for `stable`. `models.published` writes models and
`models.publishing` puts them in service; all packages find and describe them by this
module.

`serve-config` writes the labels into TensorFlow Serving's own list of models. Whoever
makes maps without a server may read that list, too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from beam_jobs.contracts.locations import Location, content_of, locate

ASSETS_DIR = "assets.extra"
CARD_NAME = "model_card.json"
GRAPH_NAME = "saved_model.pb"
CURE = "copy the model back from where it was published, or publish it again"
"""The cure for a damaged part of a published model."""
LABELS_NAME = "labels.json"
ENCODER_NAME = "encoder"
"""Model of a run's pretraining; tasks must have other names."""
Label = Literal["stable", "canary"]
STABLE: Label = "stable"
"""The version that clients get."""
CANARY: Label = "canary"
"""A second version that is served beside it, to be tried."""

_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
SERVER_DIR = "server"
"""Usual folder of a server's files, beside the serving folder."""
CONFIG_DIR, MODELS_FILE = "config", "models.config"
"""Where a server's folder lists the models and the labels of their versions."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a model's versions.

    Attributes:
        versions: label -> version.
        since: identifier of what was in service before `stable` was set. A gate that
            runs again with the same one needs not judge again.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    since: str = ""


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


def version_number(name: str) -> int | None:
    """Return the version that a folder's name stands for; None: it stands for none."""
    number = server_number(name)
    return number if number is not None and number >= 0 and str(number) == name else None


def server_number(name: str) -> int | None:
    """Return the version that a server reads from a folder's name; None: none.

    TensorFlow Serving also takes names that no version of ours has, like `01` and `-1`.

    Source: ParseVersionNumber in file_system_storage_path_source.cc, which is
    absl::SimpleAtoi for int64.
    """
    number = int(name) if _WHOLE_NUMBER.fullmatch(name) else None
    return number if number is not None and -(1 << 63) <= number < 1 << 63 else None


def versions(model_dir: str | os.PathLike[str]) -> list[Location]:
    """Return the folders of a model's complete versions, the oldest first."""
    found = {
        number: path.parent.parent
        for path in locate(model_dir).glob(f"*/{ASSETS_DIR}/{CARD_NAME}")
        if (number := version_number(path.parent.parent.name)) is not None
    }
    return [found[number] for number in sorted(found)]


def read_labels(model_dir: str | os.PathLike[str]) -> Labels:
    """Return the labels of a model's versions; none are set in older serving folders.

    Raises:
        DamagedFileError: the file is not what was written.
    """
    path = locate(model_dir) / LABELS_NAME
    if not path.exists():
        return Labels()
    with content_of(path, "remove it: then the newest version is in service"):
        read = json.loads(path.read_text())
        return Labels(
            versions={label: int(version) for label, version in read["versions"].items()},
            since=str(read["since"]),
        )


def in_service(model_dir: str | os.PathLike[str], label: str = STABLE) -> Location | None:
    """Return the folder of the version that a label means; None: there is none.

    Without labels, `stable` means the newest complete version.

    Raises:
        DamagedFileError: see `read_labels`.
    """
    complete = {int(path.name): path for path in versions(model_dir)}
    wanted = read_labels(model_dir).versions.get(label)
    if wanted is None:
        return complete[max(complete)] if complete and label == STABLE else None
    return complete.get(wanted)


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
