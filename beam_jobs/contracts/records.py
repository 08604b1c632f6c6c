"""The records of the shards: PairedPatch and LabeledPatch, their tf.Example codec and feature spec.

A record in memory holds physical float32 pixels with NaN as no data; `encode` writes
the integers of the shard contract and `decode` reads them back. Beam jobs write
records, `models` reads them as tensors through `feature_spec` and `bands`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import bands as bands_lib

FloatArray = npt.NDArray[np.float32]
HOLDOUT_MARK = "@"
"""Stands in a record's `block` before the name of each hold-out that the patch falls under."""

OrbitState = Literal["ascending", "descending", "unknown"]


@dataclass(frozen=True, kw_only=True)
class PairedPatch:
    """One place seen by both sensors at nearly one time.

    Attributes:
        patch_id: stable id, see `make_patch_id`.
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance (1.0 = 100 %), float32 [H, W, C2], NaN = no data.
        lon: longitude of the patch centre, degrees.
        lat: latitude of the patch centre, degrees.
        block: id of the spatial block that decides the split.
        s1_scene_id: id of the Sentinel-1 STAC item.
        s2_scene_id: id of the Sentinel-2 STAC item.
        s1_acquired_at: seconds since 1970, UTC.
        s2_acquired_at: seconds since 1970, UTC.
        orbit_state: of the Sentinel-1 pass.
        cloud_fraction: share of Sentinel-2 pixels that are cloud, 0-1; NaN = the source
            does not tell.
        offset_px: measured shift between the two images in pixels; NaN = not measured,
            or no significant peak.
        quality: score of the pair, 0-1; its parts are the fields around it.
        edge_noise_fraction: share of Sentinel-1 pixels that are noise of the swath's
            edge, 0-1.
        saturated_fraction: share of Sentinel-2 pixels that are saturated, 0-1.
        weight: what the pair counts in training, 0-1; 1 = in full.
        event: name of the flood or other event that the scenes were chosen for; "" =
            none is known.
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
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"{self.patch_id}: weight must be within 0-1, got {self.weight}")
        if self.s1.ndim != 3 or self.s2.ndim != 3 or self.s1.shape[:2] != self.s2.shape[:2]:
            raise ValueError(
                f"{self.patch_id}: s1 and s2 must be [H, W, C] on one grid, got {self.s1.shape} and {self.s2.shape}"
            )

    @property
    def height(self) -> int:
        """Rows in pixels."""
        return self.s1.shape[0]

    @property
    def width(self) -> int:
        """Columns in pixels."""
        return self.s1.shape[1]

    @property
    def time_gap_hours(self) -> float:
        """Sentinel-2 time minus Sentinel-1 time, in hours."""
        return (self.s2_acquired_at - self.s1_acquired_at) / 3600.0


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
    s1_scene_id: str, s2_scene_id: str, crs: str, xmin: float, ymax: float, size_px: int
) -> str:
    """Stable id: 20 hex digits of SHA-256 over the scene ids and the window (CRS, upper left corner in metres, pixels)."""
    text = f"{s1_scene_id}|{s2_scene_id}|{crs}|{xmin:.2f}|{ymax:.2f}|{size_px}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def quantize(pixels: FloatArray, sensor: bands_lib.Sensor) -> npt.NDArray[Any]:
    """Physical float32 [H, W, C] -> stored int16 (s1) or uint16 (s2); NaN and what is out of range become no data.

    A dark Sentinel-2 pixel that rounds to 0 is stored as 1: 0 would turn a measurement
    into no data.
    """
    low, high = bands_lib.S1_VALID_RANGE_DB if sensor == "s1" else bands_lib.S2_VALID_RANGE
    # NaN and infinity lie in no range.
    valid = (pixels >= low) & (pixels <= high)
    all_valid = bool(valid.all())
    values = pixels if all_valid else np.where(valid, pixels, 0.0)
    if sensor == "s1":
        stored, nodata, dtype = np.rint(values / bands_lib.S1_DB_PER_DN), bands_lib.S1_NODATA, "<i2"
    else:
        stored = np.maximum(np.rint(values / bands_lib.S2_REFLECTANCE_PER_DN), 1)
        nodata, dtype = bands_lib.S2_NODATA, "<u2"
    return (stored if all_valid else np.where(valid, stored, nodata)).astype(dtype)


def dequantize(stored: npt.NDArray[Any], sensor: bands_lib.Sensor) -> FloatArray:
    """Inverse of `quantize`: stored integers -> physical float32, no data -> NaN."""
    nodata, scale = (
        (bands_lib.S1_NODATA, bands_lib.S1_DB_PER_DN)
        if sensor == "s1"
        else (bands_lib.S2_NODATA, bands_lib.S2_REFLECTANCE_PER_DN)
    )
    return np.where(
        stored == nodata, np.float32(np.nan), stored.astype(np.float32) * np.float32(scale)
    ).astype(np.float32)


def encode(patch: PairedPatch) -> bytes:
    """Serialized tf.Example with every feature of the shard contract."""
    features: dict[str, tf.train.Feature] = {
        "patch_id": _bytes(patch.patch_id.encode()),
        "height": _ints(patch.height),
        "width": _ints(patch.width),
        "s1": _bytes(quantize(patch.s1, "s1").tobytes()),
        "s2": _bytes(quantize(patch.s2, "s2").tobytes()),
        "label": _bytes(patch.label.tobytes() if isinstance(patch, LabeledPatch) else b""),
        "lon": _floats(patch.lon),
        "lat": _floats(patch.lat),
        "block": _bytes(patch.block.encode()),
        "s1_scene_id": _bytes(patch.s1_scene_id.encode()),
        "s2_scene_id": _bytes(patch.s2_scene_id.encode()),
        "s1_acquired_at": _ints(patch.s1_acquired_at),
        "s2_acquired_at": _ints(patch.s2_acquired_at),
        "time_gap_hours": _floats(patch.time_gap_hours),
        "orbit_state": _bytes(patch.orbit_state.encode()),
        "cloud_fraction": _floats(patch.cloud_fraction),
        "offset_px": _floats(patch.offset_px),
        "quality": _floats(patch.quality),
        "edge_noise_fraction": _floats(patch.edge_noise_fraction),
        "saturated_fraction": _floats(patch.saturated_fraction),
        "weight": _floats(patch.weight),
        "event": _bytes(patch.event.encode()),
    }
    for sensor in bands_lib.SENSORS:
        pixels = getattr(patch, sensor)
        features[f"{sensor}_valid_fraction"] = _floats(valid_fraction(pixels))
        mean, std = band_moments(pixels)
        features[f"{sensor}_mean"] = _floats(*mean)
        features[f"{sensor}_std"] = _floats(*std)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Deterministic: the same patch must give the same bytes, so that shards can be
    # compared by SHA-256.
    return bytes(example.SerializeToString(deterministic=True))


def decode(serialized: bytes) -> PairedPatch:
    """The record of a serialized tf.Example: a LabeledPatch when it has a label.

    Raises:
        ValueError: a feature is missing or its size does not fit height and width.
    """
    feature = tf.train.Example.FromString(serialized).features.feature
    names = {field.name for field in dataclasses.fields(PairedPatch)} - {"s1", "s2"}
    # Also what this function does not need: a reader of the contract (TFDV, a trainer)
    # would miss it later.
    missing = [name for name in sorted(feature_spec(1, 1)) if name not in feature]
    if missing:
        raise ValueError(f"tf.Example lacks the features {missing}")
    values: dict[str, Any] = {name: _scalar(feature[name]) for name in names}
    height, width = int(_scalar(feature["height"])), int(_scalar(feature["width"]))
    for sensor, dtype in (("s1", "<i2"), ("s2", "<u2")):
        stored = np.frombuffer(feature[sensor].bytes_list.value[0], dtype)
        if height * width == 0 or stored.size % (height * width):
            raise ValueError(
                f"{values['patch_id']}: {sensor} holds {stored.size} values, no multiple of {height}x{width}"
            )
        values[sensor] = dequantize(
            stored.reshape(height, width, -1), "s1" if sensor == "s1" else "s2"
        )
    label = feature["label"].bytes_list.value[0]
    if not label:
        return PairedPatch(**values)
    return LabeledPatch(**values, label=np.frombuffer(label, np.uint8).reshape(height, width))


def feature_spec(s1_channels: int, s2_channels: int) -> dict[str, tf.io.FixedLenFeature]:
    """Parsing spec of `tf.io.parse_example` for the whole contract; pixel features stay bytes (see `pixel_dtype`)."""
    scalars = {
        tf.string: (
            "patch_id",
            "s1",
            "s2",
            "label",
            "block",
            "s1_scene_id",
            "s2_scene_id",
            "orbit_state",
            "event",
        ),
        tf.int64: ("height", "width", "s1_acquired_at", "s2_acquired_at"),
        tf.float32: (
            "lon",
            "lat",
            "time_gap_hours",
            "s1_valid_fraction",
            "s2_valid_fraction",
            "cloud_fraction",
            "offset_px",
            "quality",
            "edge_noise_fraction",
            "saturated_fraction",
            "weight",
        ),
    }
    spec = {
        name: tf.io.FixedLenFeature([], dtype) for dtype, names in scalars.items() for name in names
    }
    for sensor, channels in (("s1", s1_channels), ("s2", s2_channels)):
        for moment in ("mean", "std"):
            spec[f"{sensor}_{moment}"] = tf.io.FixedLenFeature([channels], tf.float32)
    return spec


def valid_fraction(pixels: FloatArray) -> float:
    """Share of pixels of float32 [H, W, C] that have data in every band, 0-1."""
    finite = np.isfinite(pixels)
    # Nearly every patch ends here, many times faster than looking at each pixel's
    # bands.
    return 1.0 if finite.all() else float(finite.all(axis=-1).mean())


def band_moments(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation per band, each float32 [C], over the valid pixels; 0 for a band without any."""
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


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(*values: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[float(value) for value in values]))


def _scalar(feature: tf.train.Feature) -> Any:
    kind = feature.WhichOneof("kind")
    value = getattr(feature, kind).value[0]
    return value.decode() if kind == "bytes_list" else value
