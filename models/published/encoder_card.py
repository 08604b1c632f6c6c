"""The card of a published encoder: sensors, bands, architecture and training data.

Input: folder that a run or `import-weights` published. Output: an `EncoderCard`, or an
error of one line. Only the JSON is read, so this needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.contracts import windows
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.locations import content_of, locate
from beam_jobs.contracts.manifest import WindowEntry
from beam_jobs.contracts.published import ASSETS_DIR, CARD_NAME, CURE, read_card
from beam_jobs.contracts.settings import SettingsError
from models.config import EncoderConfig

TASK = "pretraining"
"""The card's task of every encoder, also of public weights."""
CONTROL = "none"
"""Objective of encoders that were not trained."""


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """The part of an encoder's card that a run needs.

    Attributes:
        encoder: architecture of the encoders of all its sensors.
        bands: sensor -> bands that the encoder takes, in order.
        is_control: whether the encoders are untrained.
        manifest_sha256: hash of the manifest of its pairs; None: public weights.
        data_span: span of these pairs; of several, the newest.
        data_version: version of these pairs.
        data: all versions of these pairs; empty: public weights.
        started_from: folders of the published encoders that its training began with.
    """

    encoder: EncoderConfig
    bands: Mapping[Sensor, tuple[str, ...]]
    is_control: bool = False
    manifest_sha256: str | None = None
    data_span: int | None = None
    data_version: int | None = None
    data: tuple[WindowEntry, ...] = ()
    started_from: tuple[str, ...] = ()


def read_encoder_card(folder: str) -> EncoderCard:
    """Return the card of the encoder that is published in `folder`.

    Raises:
        FileNotFoundError: there is no card, so the model is not complete.
        DamagedFileError: it is not the card that was written.
        SettingsError: the model is no encoder.
    """
    card = read_card(folder)
    with content_of(locate(folder) / ASSETS_DIR / CARD_NAME, CURE):
        task = card["task"]
        if task == TASK:
            return _parse(card)
    raise SettingsError(f"{folder} must be a published encoder, got a model of {task}")


def _parse(card: Mapping[str, Any]) -> EncoderCard:
    config = card["config"]
    # The config of public weights names the backbone only.
    described = config.get("encoder", {"backbone": config.get("backbone")})
    started_from = card.get("started_from") or {}
    return EncoderCard(
        encoder=EncoderConfig(
            backbone=described["backbone"],
            norm=described.get("norm", "batch"),
            embedding_dim=described.get("embedding_dim", EncoderConfig.embedding_dim),
        ),
        bands={
            sensor: tuple(card["inputs"][sensor]["bands"])
            for sensor in SENSORS
            if sensor in card["inputs"]
        },
        is_control=config.get("objective") == CONTROL,
        manifest_sha256=card.get("data_manifest_sha256"),
        data_span=card.get("data_span"),
        data_version=card.get("data_version"),
        data=windows.of_card(card),
        started_from=tuple(dict.fromkeys(started_from.values())),
    )
