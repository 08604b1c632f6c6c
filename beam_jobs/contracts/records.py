"""The records of the shards, and the tf.Example that holds one record.

`FEATURES` is the table of the tf.Example: one row per feature. The codec (`encode` and
`decode`), the parsing spec, the range checks, the features that TFDV watches and the
scores of the data card all follow from it. A new field needs an attribute of
`PairedPatch` and a row in this table.

In memory a record holds physical float32 pixels, and NaN means no data. The tf.Example
holds the integers that `bands.PIXEL_FORMATS` defines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts.bands import PIXEL_FORMATS, SENSORS, OrbitState, Sensor

FloatArray = npt.NDArray[np.float32]
HOLDOUT_MARK = "@"
"""Separator in `block`: it precedes the name of each hold-out of the patch."""

FeatureKind = Literal["bytes", "int64", "float"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One row of the table: a feature of the tf.Example.

    Attributes:
        name: name of the feature.
        kind: which list of the tf.train.Feature holds the values.
        is_field: True = stored from the `PairedPatch` field of the same name and read
            back into it; False = computed when a record is written.
        bands_of: the feature has one value per band of this sensor; None = one value.
        is_watched: TFDV compares the distribution of this feature between splits and
            spans. Ids, event names and pixels are not watched: a new value of those is
            no anomaly.
        is_score: the value lies within 0-1, and the data card shows its distribution. A
            field outside 0-1 is refused.
        may_be_nan: NaN is a legal value of a score and means "not known".
    """

    name: str
    kind: FeatureKind
    is_field: bool = True
    bands_of: Sensor | None = None
    is_watched: bool = False
    is_score: bool = False
    may_be_nan: bool = False


def _table(*rows: Feature) -> dict[str, Feature]:
    return {row.name: row for row in rows}


FEATURES = _table(
    Feature(name="patch_id", kind="bytes"),
    Feature(name="height", kind="int64", is_field=False, is_watched=True),
    Feature(name="width", kind="int64", is_field=False, is_watched=True),
    Feature(name="s1", kind="bytes", is_field=False),
    Feature(name="s2", kind="bytes", is_field=False),
    Feature(name="label", kind="bytes", is_field=False),
    Feature(name="lon", kind="float", is_watched=True),
    Feature(name="lat", kind="float", is_watched=True),
    Feature(name="block", kind="bytes"),
    Feature(name="s1_scene_id", kind="bytes"),
    Feature(name="s2_scene_id", kind="bytes"),
    Feature(name="s1_acquired_at", kind="int64", is_watched=True),
    Feature(name="s2_acquired_at", kind="int64", is_watched=True),
    Feature(name="time_gap_hours", kind="float", is_field=False, is_watched=True),
    Feature(name="orbit_state", kind="bytes", is_watched=True),
    Feature(name="cloud_fraction", kind="float", is_watched=True, is_score=True, may_be_nan=True),
    Feature(name="s1_valid_fraction", kind="float", is_field=False, is_watched=True, is_score=True),
    Feature(name="s2_valid_fraction", kind="float", is_field=False, is_watched=True, is_score=True),
    Feature(name="offset_px", kind="float", is_watched=True),
    Feature(name="quality", kind="float", is_watched=True, is_score=True),
    Feature(name="edge_noise_fraction", kind="float", is_watched=True, is_score=True),
    Feature(name="saturated_fraction", kind="float", is_watched=True, is_score=True),
    Feature(name="weight", kind="float", is_watched=True, is_score=True),
    Feature(name="event", kind="bytes"),
    Feature(name="s1_mean", kind="float", is_field=False, bands_of="s1", is_watched=True),
    Feature(name="s1_std", kind="float", is_field=False, bands_of="s1", is_watched=True),
    Feature(name="s2_mean", kind="float", is_field=False, bands_of="s2", is_watched=True),
    Feature(name="s2_std", kind="float", is_field=False, bands_of="s2", is_watched=True),
)
"""The features of a tf.Example by name. Every record has all of them."""
WATCHED_FEATURES = tuple(row.name for row in FEATURES.values() if row.is_watched)
"""The features whose statistics TFDV computes."""
SCORES = tuple(row.name for row in FEATURES.values() if row.is_score)
"""The features within 0-1 whose distribution the data card shows."""

_FIELDS = tuple(row.name for row in FEATURES.values() if row.is_field)
_CHECKED = tuple(row for row in FEATURES.values() if row.is_field and row.is_score)


@dataclass(frozen=True, kw_only=True)
class PairedPatch:
    """One place seen by both sensors at nearly the same time.

    Attributes:
        patch_id: stable id; see `make_patch_id`.
        s1: backscatter in dB, float32 [H, W, C1]; NaN = no data.
        s2: reflectance (1.0 = 100 %), float32 [H, W, C2]; NaN = no data.
        lon: longitude of the patch centre, degrees.
        lat: latitude of the patch centre, degrees.
        block: id of the spatial block that decides the split, and after each
            `HOLDOUT_MARK` the name of a hold-out.
        s1_scene_id: id of the Sentinel-1 STAC item; "" = no Sentinel-1 scene.
        s2_scene_id: id of the Sentinel-2 STAC item; "" = no Sentinel-2 scene.
        s1_acquired_at: seconds since 1970, UTC.
        s2_acquired_at: seconds since 1970, UTC.
        orbit_state: orbit direction of the Sentinel-1 pass.
        cloud_fraction: share of Sentinel-2 pixels that are cloud, 0-1; NaN = the source
            does not tell.
        offset_px: measured shift between the two images in pixels; NaN = not measured,
            or the measurement has no significant peak.
        quality: quality score of the pair, 0-1; see `quality.score` in
            `beam_jobs/judging`.
        edge_noise_fraction: share of Sentinel-1 pixels that are noise at the edge of
            the swath, 0-1.
        saturated_fraction: share of Sentinel-2 pixels that are saturated, 0-1.
        weight: weight of the pair in training, 0-1; 1 = full weight.
        event: name of the flood or other event that the scenes were chosen for; "" =
            no event is known.
    """

    patch_id: str
    s1: FloatArray
    s2: FloatArray
    lon: float
    lat: float
    block: str
    s1_scene_id: str
    s2_scene_id: str
    s1_acquired_at: int
    s2_acquired_at: int
    orbit_state: OrbitState
    cloud_fraction: float
    offset_px: float
    quality: float
    edge_noise_fraction: float = 0.0
    saturated_fraction: float = 0.0
    weight: float = 1.0
    event: str = ""

    def __post_init__(self) -> None:
        for row in _CHECKED:
            value = getattr(self, row.name)
            # NaN fails the range check, since every comparison with NaN is false.
            if not 0.0 <= value <= 1.0 and not (row.may_be_nan and math.isnan(value)):
                raise ValueError(f"{self.patch_id}: {row.name} must be within 0-1, got {value}")
        if self.s1.ndim != 3 or self.s2.ndim != 3 or self.s1.shape[:2] != self.s2.shape[:2]:
            raise ValueError(
                f"{self.patch_id}: s1 and s2 must be [H, W, C] on one grid, "
                f"got {self.s1.shape} and {self.s2.shape}"
            )

    @property
    def height(self) -> int:
        """Number of rows in pixels."""
        return self.s1.shape[0]

    @property
    def width(self) -> int:
        """Number of columns in pixels."""
        return self.s1.shape[1]

    @property
    def time_gap_hours(self) -> float:
        """Sentinel-2 time minus Sentinel-1 time, in hours."""
        return (self.s2_acquired_at - self.s1_acquired_at) / 3600.0

    def pixels(self, sensor: Sensor) -> FloatArray:
        """Return the pixels of `sensor`, float32 [H, W, C]."""
        return {"s1": self.s1, "s2": self.s2}[sensor]


@dataclass(frozen=True, kw_only=True)
class LabeledPatch(PairedPatch):
    """A PairedPatch with its label, uint8 [H, W], 255 = ignore."""

    label: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label.shape != self.s1.shape[:2] or self.label.dtype != np.uint8:
            raise ValueError(
                f"{self.patch_id}: label must be uint8 on the grid of s1 {self.s1.shape[:2]}, "
                f"got {self.label.dtype} {self.label.shape}"
            )


def make_patch_id(
    s1_scene_id: str, s2_scene_id: str, *, crs: str, xmin: float, ymax: float, size_px: int
) -> str:
    """Return a stable patch id: 20 hex digits of a SHA-256.

    Args:
        s1_scene_id: id of the Sentinel-1 scene.
        s2_scene_id: id of the Sentinel-2 scene.
        crs: coordinate reference system of the patch, such as "EPSG:32633".
        xmin: left edge of the patch in the units of `crs`.
        ymax: upper edge of the patch in the units of `crs`.
        size_px: height and width in pixels.
    """
    text = f"{s1_scene_id}|{s2_scene_id}|{crs}|{xmin:.2f}|{ymax:.2f}|{size_px}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def quantize(pixels: FloatArray, sensor: Sensor) -> npt.NDArray[Any]:
    """Return the stored integers of physical pixels.

    A dark Sentinel-2 pixel that rounds to 0 is stored as 1, because 0 means no data.

    Args:
        pixels: float32 [H, W, C] in dB or reflectance. NaN, infinity and values outside
            the valid range become no data.
        sensor: the sensor whose pixels these are.

    Returns:
        int16 ("s1") or uint16 ("s2") [H, W, C].
    """
    stored_as = PIXEL_FORMATS[sensor]
    low, high = stored_as.valid_range
    # NaN and infinity fail this comparison.
    valid = (pixels >= low) & (pixels <= high)
    all_valid = bool(valid.all())
    stored = np.rint((pixels if all_valid else np.where(valid, pixels, 0.0)) / stored_as.scale)
    if stored_as.min_stored is not None:
        stored = np.maximum(stored, stored_as.min_stored)
    return (stored if all_valid else np.where(valid, stored, stored_as.nodata)).astype(
        stored_as.dtype
    )


def dequantize(stored: npt.NDArray[Any], sensor: Sensor) -> FloatArray:
    """Return the physical float32 pixels of stored integers; no data becomes NaN."""
    stored_as = PIXEL_FORMATS[sensor]
    physical = stored.astype(np.float32) * np.float32(stored_as.scale)
    return np.where(stored == stored_as.nodata, np.float32(np.nan), physical).astype(np.float32)


def encode(patch: PairedPatch) -> bytes:
    """Return the serialized tf.Example with all features of the table.

    Equal records give equal bytes on every machine, so shards can be compared by their
    SHA-256.
    """
    values = {name: getattr(patch, name) for name in _FIELDS} | _computed(patch)
    return _message(
        {
            name: _field(_NUMBER_OF_LIST[FEATURES[name].kind], _list(FEATURES[name].kind, value))
            for name, value in values.items()
        }
    )


def serialize(example: tf.train.Example) -> bytes:
    """Return the bytes of a tf.Example, the same with every version of protobuf."""
    feature = example.features.feature
    return _message({name: value.SerializeToString() for name, value in feature.items()})


def decode(serialized: bytes) -> PairedPatch:
    """Return the record of a serialized tf.Example: a LabeledPatch when it has a label.

    Raises:
        ValueError: a feature is missing, a score lies outside 0-1, or the size of the
            pixels does not fit height and width.
    """
    feature = tf.train.Example.FromString(serialized).features.feature
    # All features are checked, also those that this function does not use: TFDV or a
    # trainer would miss them later.
    missing = [name for name in sorted(FEATURES) if name not in feature]
    if missing:
        raise ValueError(f"tf.Example lacks the features {missing}")
    values: dict[str, Any] = {name: _scalar(feature[name]) for name in _FIELDS}
    height, width = int(_scalar(feature["height"])), int(_scalar(feature["width"]))
    for sensor in SENSORS:
        stored = np.frombuffer(feature[sensor].bytes_list.value[0], PIXEL_FORMATS[sensor].dtype)
        if height * width == 0 or stored.size % (height * width):
            raise ValueError(
                f"{values['patch_id']}: {sensor} holds {stored.size} values, "
                f"which is not a multiple of {height}x{width}"
            )
        values[sensor] = dequantize(stored.reshape(height, width, -1), sensor)
    label = feature["label"].bytes_list.value[0]
    if not label:
        return PairedPatch(**values)
    return LabeledPatch(**values, label=np.frombuffer(label, np.uint8).reshape(height, width))


def feature_spec(s1_channels: int, s2_channels: int) -> dict[str, tf.io.FixedLenFeature]:
    """Return the spec with which `tf.io.parse_example` parses all features.

    Pixels and labels stay bytes in the parsed result.
    """
    dtypes = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
    num_bands = {"s1": s1_channels, "s2": s2_channels}
    return {
        row.name: tf.io.FixedLenFeature(
            [] if row.bands_of is None else [num_bands[row.bands_of]], dtypes[row.kind]
        )
        for row in FEATURES.values()
    }


def valid_fraction(pixels: FloatArray) -> float:
    """Return the share of pixels of float32 [H, W, C] with data in every band, 0-1."""
    finite = np.isfinite(pixels)
    # Most patches have no gap. This test is many times faster than a look at the bands
    # of each pixel.
    return 1.0 if finite.all() else float(finite.all(axis=-1).mean())


def band_moments(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each band over its valid pixels.

    Args:
        pixels: float32 [H, W, C]; NaN = no data.

    Returns:
        Two arrays float32 [C]. Both are 0 for a band without a valid pixel.
    """
    valid = np.isfinite(pixels)
    gaps = None if valid.all() else ~valid
    count = np.maximum(
        valid.shape[0] * valid.shape[1] if gaps is None else valid.sum(axis=(0, 1)), 1
    )
    values = pixels.astype(np.float64)
    if gaps is not None:
        values[gaps] = 0.0
    mean = values.sum(axis=(0, 1)) / count
    values -= mean
    if gaps is not None:
        values[gaps] = 0.0
    variance = np.square(values, out=values).sum(axis=(0, 1)) / count
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _computed(patch: PairedPatch) -> dict[str, Any]:
    """Return the values of the features that are no field of the record."""
    values: dict[str, Any] = {
        "height": patch.height,
        "width": patch.width,
        "time_gap_hours": patch.time_gap_hours,
        "label": patch.label.tobytes() if isinstance(patch, LabeledPatch) else b"",
    }
    for sensor in SENSORS:
        pixels = patch.pixels(sensor)
        values[sensor] = quantize(pixels, sensor).tobytes()
        values[f"{sensor}_valid_fraction"] = valid_fraction(pixels)
        values[f"{sensor}_mean"], values[f"{sensor}_std"] = band_moments(pixels)
    return values


# Protobuf does not promise one order of map entries, not even with
# `SerializeToString(deterministic=True)`: version 3.20 writes "s1" before "s1_mean",
# version 4.25 after it. So the message is put together here, with the entries in the
# order of their names.
# Source: https://protobuf.dev/programming-guides/serialization-not-canonical and
# https://protobuf.dev/programming-guides/encoding
_NUMBER_OF_LIST: dict[FeatureKind, int] = {"bytes": 1, "float": 2, "int64": 3}
"""Field numbers of tf.train.Feature, in tensorflow/core/example/feature.proto."""


def _message(features: Mapping[str, bytes]) -> bytes:
    """Return the serialized tf.Example of serialized tf.train.Features by name."""
    entries = [
        _field(1, _field(1, name.encode()) + _field(2, features[name])) for name in sorted(features)
    ]
    return _field(1, b"".join(entries))


def _list(kind: FeatureKind, value: Any) -> bytes:
    """Return the serialized BytesList, FloatList or Int64List that holds `value`."""
    if kind == "bytes":
        return _field(1, value.encode() if isinstance(value, str) else value)
    if kind == "float":
        return _field(1, np.asarray(value, "<f4").tobytes())
    # Negative numbers (dates before 1970) are written as two's complement of 64 bits.
    return _field(1, _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF))


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return `value` in groups of 7 bits, lowest group first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _scalar(feature: tf.train.Feature) -> Any:
    kind = feature.WhichOneof("kind")
    value = getattr(feature, kind).value[0]
    return value.decode() if kind == "bytes_list" else value
