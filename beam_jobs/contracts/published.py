"""Folders of published models: their cards and their versions.

A version is `<serving folder>/<model>/<version>/`: a SavedModel, and beside it
`assets.extra/model_card.json`. The card is written last, so a folder with a card holds
a complete model. `models.published` writes models; all packages find and describe them
by this module.
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
