"""The manifest beside the shards of a version: what was built, from what, how much, and the statistics of `train`.

Beam jobs write it last; trainers take normalization and provenance from it; the report
and the model card quote it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import locate

FORMAT_VERSION = 3
"""Of the manifest and of the records it stands for; 3: records name the event."""
CODE_VERSION = "0.1.0"
"""Version of terrapair, as in pyproject.toml: manifests and model cards carry it."""


class ManifestError(TerrapairError, ValueError):
    """A manifest that is cut short, lacks a key, or was changed since it was written; one line."""

    exit_code = ExitCode.BAD_DATA


class FormatError(ManifestError):
    """Data that was built by an older or newer terrapair, which names its features otherwise; one line."""


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """Statistics of one band over the valid pixels of the train split, in physical units (dB or reflectance)."""

    band: str
    unit: str
    num_pixels: int
    mean: float
    std: float
    p02: float
    p50: float
    p98: float


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard: number of examples, size in bytes, SHA-256 of the file."""

    num_examples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """Where scenes come from and on which terms, as their catalogs say; "unknown" where they do not.

    Attributes:
        sensor: "s1" or "s2".
        source: data set or collection.
        license: SPDX name or text.
        num_pairs: pairs of scenes with a scene of it.
    """

    sensor: str
    source: str
    license: str
    num_pairs: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader of a version needs to know.

    Attributes:
        kind: "pairs" (unlabeled) or "labels".
        span: number of the data span.
        version: number of the version within the span.
        patch_size_px: height and width of every patch.
        pixel_size_m: ground size of a pixel.
        s1_bands: order of the channels of `s1`.
        s2_bands: order of the channels of `s2`.
        s2_processing_level: "L1C" (top of atmosphere) or "L2A" (surface reflectance).
        label_schema: name of the schema of `label`; None for pairs.
        num_examples: per split.
        num_pixels_per_class: per split and label id (as text), labels only.
        num_rejected: per reason.
        shards: path below the version directory -> entry.
        s1_statistics: of the train split, in the order of `s1_bands`.
        s2_statistics: of the train split, in the order of `s2_bands`.
        config: the resolved config of the job.
        config_sha256: its hash.
        source_sha256: hash over the catalogs and the sizes of the files they name: what
            was read.
        code_sha256: hash over the code that built it.
        code_version: version of the code that built it.
        num_held_out: patches per hold-out and split.
        sources: where the scenes come from.
        num_absent: per sensor and split, patches that have no scene of that sensor; see
            `LabelConfig.partner`.
        format_version: of this file and of the records in the shards.
    """

    kind: str
    span: int
    version: int
    patch_size_px: int
    pixel_size_m: float
    s1_bands: tuple[str, ...]
    s2_bands: tuple[str, ...]
    s2_processing_level: str
    label_schema: str | None
    num_examples: dict[str, int]
    num_pixels_per_class: dict[str, dict[str, int]]
    num_rejected: dict[str, int]
    shards: dict[str, ShardEntry]
    s1_statistics: tuple[BandStatistics, ...]
    s2_statistics: tuple[BandStatistics, ...]
    config: dict[str, Any] = field(repr=False)
    config_sha256: str
    source_sha256: str
    code_sha256: str
    code_version: str
    num_held_out: dict[str, dict[str, int]] = field(default_factory=dict)
    sources: tuple[SourceEntry, ...] = ()
    num_absent: dict[str, dict[str, int]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Return the band names of `sensor`, in the order of its channels."""
        return {"s1": self.s1_bands, "s2": self.s2_bands}[sensor]

    def statistics(self, sensor: Sensor) -> tuple[BandStatistics, ...]:
        """Return the train statistics of `sensor`, one entry per band, in band order."""
        return {"s1": self.s1_statistics, "s2": self.s2_statistics}[sensor]

    def to_json(self) -> str:
        """Indented JSON, keys sorted."""
        return json.dumps(settings.to_dict(self), indent=2, sort_keys=True) + "\n"

    @property
    def sha256(self) -> str:
        """Hash of the manifest itself: the data hash that model cards carry."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def from_json(text: str) -> Manifest:
    """The manifest of `Manifest.to_json`.

    Raises:
        ManifestError: no JSON, an unknown or missing key, a wrong type, or entries that
            contradict each other.
        FormatError: of another format version.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"manifest: must be whole JSON, got {len(text)} characters: {error}"
        ) from error
    # First, so that the message is not about a key that the other format has or lacks.
    if isinstance(values, dict) and values.get("format_version") != FORMAT_VERSION:
        found = values.get("format_version")
        raise FormatError(
            f"data of format {found} cannot be read, only {FORMAT_VERSION}: build the shards again"
        )
    try:
        manifest = settings.from_dict(Manifest, values, "manifest")
    except settings.SettingsError as error:
        raise ManifestError(str(error)) from error
    _check(manifest)
    return manifest


def read(version_path: str | os.PathLike[str]) -> Manifest:
    """The manifest of a version directory.

    Raises:
        FileNotFoundError: there is none: the directory is no finished version.
        ManifestError: see `from_json`; with the path.
        FormatError: the version was built by an older or newer terrapair.
    """
    path = locate(version_path) / layout.MANIFEST_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no manifest, so this is no finished version")
    try:
        return from_json(path.read_text())
    except ManifestError as error:
        raise type(error)(f"{path}: {error}") from error


def _check(manifest: Manifest) -> None:
    """Refuses what a hand has changed: normalization and provenance would be taken from it unseen."""
    sha256 = settings.sha256(manifest.config)
    if manifest.config_sha256 != sha256:
        raise ManifestError(
            f"manifest.config_sha256: must be that of config, {sha256}, got {manifest.config_sha256}"
        )
    for sensor in ("s1", "s2"):
        bands = getattr(manifest, f"{sensor}_bands")
        described = tuple(entry.band for entry in getattr(manifest, f"{sensor}_statistics"))
        if described != bands:
            raise ManifestError(
                f"manifest.{sensor}_statistics: must be of {sensor}_bands {bands}, got {described}"
            )
    for split in {*manifest.num_examples, *(name.split("/")[0] for name in manifest.shards)}:
        in_shards = sum(
            entry.num_examples
            for name, entry in manifest.shards.items()
            if name.startswith(f"{split}/")
        )
        if manifest.num_examples.get(split, 0) != in_shards:
            raise ManifestError(
                f"manifest.num_examples.{split}: must be what its shards hold, {in_shards}, "
                f"got {manifest.num_examples.get(split, 0)}"
            )
