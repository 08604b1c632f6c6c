"""Arms whose encoders are published already: `weights:<folder>`.

Name of the arm -> the encoder of each sensor, its architecture and its hash. A folder
is what `import-weights` or a run published, so users can compare their own pretraining
with public weights. A comma separates the folders of two sensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import file_sha256
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.published import ASSETS_DIR, read_card
from models.config import EncoderConfig
from models.published.encoder_card import read_encoder_card
from pipeline.claim_check.config import PUBLISHED_PREFIX


@dataclass(frozen=True, kw_only=True)
class PublishedEncoders:
    """The encoders of an arm.

    Attributes:
        encoder: architecture of all of them.
        paths: sensor -> folder.
        bands: sensor -> bands that the encoder takes, in order.
        sha256: hash of cards and weights.
    """

    encoder: EncoderConfig
    paths: Mapping[Sensor, str]
    bands: Mapping[Sensor, tuple[str, ...]]
    sha256: str


def read(arm: str) -> PublishedEncoders:
    """Return the encoders of an arm `weights:<folder>[,<folder>]`.

    Raises:
        SettingsError: a folder holds no published encoder, two folders hold one of the
            same sensor, or they have different architectures.
    """
    paths: dict[Sensor, str] = {}
    bands: dict[Sensor, tuple[str, ...]] = {}
    architectures: dict[str, EncoderConfig] = {}
    hashes: list[Any] = []
    for folder in arm.removeprefix(PUBLISHED_PREFIX).split(","):
        try:
            card = read_encoder_card(folder)
        except (FileNotFoundError, settings.SettingsError) as error:
            raise settings.SettingsError(f"claim.arms: {arm}: {error}") from error
        architectures[folder] = card.encoder
        for sensor, names in card.bands.items():
            if sensor in paths:
                raise settings.SettingsError(
                    f"claim.arms: {arm}: {paths[sensor]} and {folder} both hold an encoder of "
                    f"{sensor}: name one folder for each sensor"
                )
            paths[sensor], bands[sensor] = folder, names
            weights = f"{folder}/{ASSETS_DIR}/{sensor}_encoder.keras"
            hashes.append([read_card(folder), file_sha256(weights)])
    first, *others = architectures.values()
    if any(other != first for other in others):
        raise settings.SettingsError(
            f"claim.arms: {arm}: the encoders must have one architecture, got "
            f"{', '.join(f'{found.backbone} ({found.norm})' for found in architectures.values())}"
        )
    return PublishedEncoders(
        encoder=first, paths=paths, bands=bands, sha256=settings.sha256(hashes)
    )


def check(arm: str, sensors: tuple[Sensor, ...], manifest: Manifest) -> None:
    """Refuse an arm that lacks a sensor of a task or knows other bands.

    Raises:
        SettingsError: with what the arm has and what is needed.
    """
    found = read(arm)
    for sensor in sensors:
        if sensor not in found.paths:
            raise settings.SettingsError(
                f"claim.arms: {arm}: holds encoders of {', '.join(found.paths)}, "
                f"a cell needs {sensor}: add the folder of one, or leave out its inputs"
            )
        if found.bands[sensor] != manifest.bands(sensor):
            raise settings.SettingsError(
                f"claim.arms: {arm}: {sensor}: the encoder knows bands {found.bands[sensor]}, "
                f"the shards hold {manifest.bands(sensor)}: import it with --bands"
            )
