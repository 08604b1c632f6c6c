"""The manifest beside the shards of a version.

It says what was built, from which input, how many examples there are, and the
statistics of the train split. A build writes it last. Trainers take normalization and
provenance from it; the report and the model card quote it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from beam_jobs.contracts import layout, sealing, settings
from beam_jobs.contracts.bands import SENSORS, ProcessingLevel, Sensor, Unit
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.labels import LabelClass, LabelSchema, schema_of
from beam_jobs.contracts.locations import locate

FORMAT_VERSION = 4
"""Version of the format of manifests and records.

Since 3 a record names the event. Since 4 a manifest carries its own hash: in an older
one a changed number cannot be noticed, so such a version is built again.
"""
_CURE = "copy the manifest back from where it was made, or build the version again"
CODE_VERSION = "0.1.0"
"""Version of terrapair as in pyproject.toml; stands in manifests and model cards."""


class ManifestError(TerrapairError, ValueError):
    """A manifest that is incomplete, or was changed after it was written; one line."""

    exit_code = ExitCode.BAD_DATA


class FormatError(ManifestError):
    """Data of another format, built by an older or newer terrapair; one line."""


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """Statistics of one band over the valid pixels of the train split.

    Attributes:
        band: name of the band.
        unit: unit of the values below.
        num_pixels: number of valid pixels; 0 = no scene of this sensor.
        mean: mean value.
        std: standard deviation.
        p02: 2nd percentile.
        p50: median.
        p98: 98th percentile.
    """

    band: str
    unit: Unit
    num_pixels: int
    mean: float
    std: float
    p02: float
    p50: float
    p98: float


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard.

    Attributes:
        num_examples: number of examples in the file.
        num_bytes: size of the file.
        sha256: SHA-256 of the file.
    """

    num_examples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """Origin and license of scenes, according to their catalogs.

    Attributes:
        sensor: sensor of the scenes.
        source: data set or collection; "unknown" = the catalog does not say.
        license: SPDX name or text of the license; "unknown" = the catalog does not say.
        num_pairs: number of scene pairs that contain a scene of this origin.
    """

    sensor: Sensor
    source: str
    license: str
    num_pairs: int


@dataclass(frozen=True, kw_only=True)
class WindowEntry:
    """One version of a window, which joins several spans; see `windows`.

    Attributes:
        span: number of its span.
        version: its number within the span.
        sha256: hash of its manifest.
        splits: splits that the window takes of it.
    """

    span: int
    version: int
    sha256: str
    splits: tuple[layout.Split, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a reader of a version, or of a window of several spans, needs to know.

    Attributes:
        kind: "pairs" = unlabeled patches; "labels" = labelled patches.
        span: number of the data span; of a window, its newest.
        version: number of the version within the span.
        patch_size_px: height and width of every patch, in pixels.
        pixel_size_m: ground size of a pixel, in metres.
        s1_bands: bands of `s1`, in the order of its channels.
        s2_bands: bands of `s2`, in the order of its channels.
        s2_processing_level: "L1C" = top-of-atmosphere reflectance; "L2A" = surface
            reflectance.
        label_schema: name of the schema of `label`; None for pairs.
        num_examples: split -> number of examples.
        num_pixels_per_class: split -> label id (as text) -> number of pixels; empty for
            pairs.
        num_rejected: reason -> number of rejected scenes or patches.
        shards: path below the version directory -> entry; of a window, path below the
            folder that holds the spans.
        s1_statistics: statistics of the train split, in the order of `s1_bands`.
        s2_statistics: statistics of the train split, in the order of `s2_bands`.
        config: resolved config of the build.
        config_sha256: hash of `config`.
        source_sha256: hash of the catalogs and of the content of the files they name.
        code_sha256: hash of the code that built the version.
        code_version: version of that code.
        num_held_out: hold-out -> split -> number of patches.
        sources: origins of the scenes.
        num_absent: sensor -> split -> number of patches without a scene of that sensor;
            see `LabelConfig.partner`.
        label_classes: ids, names and colors of all classes of `label_schema`; empty for
            pairs.
        num_out_of_range: sensor -> band -> number of pixels, of all pairs that are cut,
            that are no data because no measurement can have their value.
        window: versions that a window joins, the oldest span first; empty = the
            manifest is of one version.
        format_version: version of the format of this file and of the records.
    """

    kind: Literal["pairs", "labels"]
    span: int
    version: int
    patch_size_px: int
    pixel_size_m: float
    s1_bands: tuple[str, ...]
    s2_bands: tuple[str, ...]
    s2_processing_level: ProcessingLevel
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
    label_classes: tuple[LabelClass, ...] = ()
    num_out_of_range: dict[str, dict[str, int]] = field(default_factory=dict)
    window: tuple[WindowEntry, ...] = ()
    format_version: int = FORMAT_VERSION

    def bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Return the band names of `sensor`, in the order of its channels."""
        return {"s1": self.s1_bands, "s2": self.s2_bands}[sensor]

    def statistics(self, sensor: Sensor) -> tuple[BandStatistics, ...]:
        """Return the train statistics of `sensor`, one entry per band in band order."""
        return {"s1": self.s1_statistics, "s2": self.s2_statistics}[sensor]

    @property
    def schema(self) -> LabelSchema | None:
        """The classes of `label`; None for pairs."""
        return schema_of(self.label_schema, self.label_classes) if self.label_schema else None

    def to_json(self) -> str:
        """Return the manifest as indented JSON with sorted keys and its seal."""
        values = settings.to_dict(self)
        if not self.window:
            # The manifest of a version keeps its hash: model cards hold it.
            del values["window"]
        sealed = sealing.seal(values)
        return json.dumps(sealed, indent=2, sort_keys=True) + "\n"

    @property
    def sha256(self) -> str:
        """Hash of the manifest itself; model cards hold it as the hash of the data."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def from_json(text: str) -> Manifest:
    """Return the manifest that `Manifest.to_json` wrote.

    Raises:
        ManifestError: the text is no JSON, has an unknown or missing key or a wrong
            type, its entries contradict each other, or a field was changed since.
        FormatError: the format version is another one.
    """
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ManifestError(
            f"manifest: must be complete JSON, got {len(text)} characters: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ManifestError(f"manifest: must be a JSON object, got {type(values).__name__}")
    # This check comes first. Otherwise the message would be about a key that only one
    # of the two formats has.
    if values.get("format_version") != FORMAT_VERSION:
        found = values.get("format_version")
        raise FormatError(
            f"data of format {found} cannot be read, only {FORMAT_VERSION}: build the shards again"
        )
    try:
        fields = {name: value for name, value in values.items() if name != sealing.SEAL}
        manifest = settings.from_dict(Manifest, fields, "manifest")
    except settings.SettingsError as error:
        raise ManifestError(str(error)) from error
    _check(manifest)
    # Last: the checks before name the field that is wrong.
    if broken := sealing.why_broken(values):
        raise ManifestError(f"manifest.{broken}")
    return manifest


def read(version_path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of a version directory.

    Raises:
        FileNotFoundError: the directory has no manifest, so it is no finished version.
        ManifestError: the file cannot be read, or see `from_json`; the message begins
            with the path and ends with what to do.
        FormatError: an older or newer terrapair built the version.
    """
    path = locate(version_path) / layout.MANIFEST_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no manifest, so this is no finished version")
    try:
        return from_json(path.read_text())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}; {_CURE}") from error
    except IsADirectoryError as error:
        raise ManifestError(f"{path}: must be a JSON file, got a folder; {_CURE}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: must be a JSON file: {error}; {_CURE}") from error


def _check(manifest: Manifest) -> None:
    """Refuse a manifest that was edited: trainers would use its numbers unchecked."""
    sha256 = settings.sha256(manifest.config)
    if manifest.config_sha256 != sha256:
        raise ManifestError(
            f"manifest.config_sha256: must be the hash of config, {sha256}, "
            f"got {manifest.config_sha256}"
        )
    if manifest.label_classes:
        try:
            schema_of(manifest.label_schema or "", manifest.label_classes)
        except ValueError as error:
            raise ManifestError(f"manifest.label_classes: {error}") from error
    for sensor in SENSORS:
        bands = manifest.bands(sensor)
        described = tuple(entry.band for entry in manifest.statistics(sensor))
        if described != bands:
            raise ManifestError(
                f"manifest.{sensor}_statistics: must describe the bands {bands}, got {described}"
            )
    for split in {*manifest.num_examples, *map(_split_of, manifest.shards)}:
        in_shards = sum(
            entry.num_examples
            for name, entry in manifest.shards.items()
            if _split_of(name) == split
        )
        if manifest.num_examples.get(split, 0) != in_shards:
            raise ManifestError(
                f"manifest.num_examples.{split}: must be the sum over its shards, {in_shards}, "
                f"got {manifest.num_examples.get(split, 0)}"
            )


def _split_of(shard: str) -> str:
    """Return the folder of a shard, which is its split."""
    return shard.split("/")[-2] if "/" in shard else shard
