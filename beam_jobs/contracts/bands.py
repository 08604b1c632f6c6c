"""Bands of Sentinel-1 and Sentinel-2: name, unit, stored scale, valid range, no data.

In memory pixels are physical float32 values (dB or reflectance) and NaN means no data.
Shards hold integers; `PIXEL_FORMATS` says how the two correspond. All code that reads,
writes, normalizes or checks pixels takes units and no-data values from this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sensor = Literal["s1", "s2"]
Unit = Literal["dB", "reflectance"]
OrbitState = Literal["ascending", "descending", "unknown"]
"""Direction of flight of a Sentinel-1 acquisition."""
ProcessingLevel = Literal["L1C", "L2A"]
"""Level of a Sentinel-2 product: L1C = top of atmosphere, L2A = surface."""
SENSORS: tuple[Sensor, ...] = ("s1", "s2")

S1_SOURCE = "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S1_GRD"
S2_L1C_SOURCE = (
    "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_HARMONIZED"
)
S2_L2A_SOURCE = (
    "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED"
)

S1_NODATA = -32768
"""Stored int16 that means no data in `s1`."""
S2_NODATA = 0
"""Stored uint16 that means no data in `s2`."""
S1_DB_PER_DN = 0.01
"""Backscatter in dB = stored int16 x this."""
S2_REFLECTANCE_PER_DN = 1e-4
"""Reflectance = stored uint16 x this.

Source: Sentinel-2 metadata, QUANTIFICATION_VALUE 10000.
"""
S2_BASELINE_0400_DN_OFFSET = 1000
"""Number that processing baseline 04.00 (from 2022-01-25) adds to all digital numbers.

Shards hold values without this offset. Source:
https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming
"""
S1_VALID_RANGE_DB = (-70.0, 40.0)
"""Lowest and highest backscatter that count as a measurement.

The extremes in Sen1Floods11 are -65 and +30 dB.
"""
S2_MAX_DN = 65535
"""Largest digital number of Sentinel-2, that of saturated pixels."""
S2_VALID_RANGE = (0.0, 6.5535)
"""Lowest and highest reflectance that uint16 can hold. Clouds and glint exceed 1."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band as stored in a shard.

    Attributes:
        name: name as Earth Engine spells it: VV, VH, B1 ... B8A ... B12.
        unit: unit of the physical value.
        scale: physical value = stored integer x scale.
        valid_range: physical values outside this range become no data.
        nodata: stored integer that means no data.
        native_pixel_size_m: ground size of a pixel in the sensor's product, in metres.
        wavelength_nm: centre wavelength on Sentinel-2A; None for radar.
        source: web pages that define the band and its unit.
    """

    name: str
    unit: Unit
    scale: float
    valid_range: tuple[float, float]
    nodata: int
    native_pixel_size_m: int
    wavelength_nm: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How a shard stores the pixels of one sensor.

    Attributes:
        dtype: little-endian NumPy dtype of the stored integers.
        unit: unit of the physical value.
        scale: physical value = stored integer x scale.
        valid_range: physical values outside this range become no data.
        nodata: stored integer that means no data.
        min_stored: smallest integer that stands for a measurement; None = no lower
            limit. It keeps dark pixels from being rounded to `nodata`.
    """

    dtype: Literal["<i2", "<u2"]
    unit: Unit
    scale: float
    valid_range: tuple[float, float]
    nodata: int
    min_stored: int | None = None


PIXEL_FORMATS: dict[Sensor, PixelFormat] = {
    "s1": PixelFormat(
        dtype="<i2",
        unit="dB",
        scale=S1_DB_PER_DN,
        valid_range=S1_VALID_RANGE_DB,
        nodata=S1_NODATA,
    ),
    "s2": PixelFormat(
        dtype="<u2",
        unit="reflectance",
        scale=S2_REFLECTANCE_PER_DN,
        valid_range=S2_VALID_RANGE,
        nodata=S2_NODATA,
        min_stored=1,
    ),
}


def _s1(name: str) -> Band:
    return Band(
        name=name,
        unit="dB",
        scale=S1_DB_PER_DN,
        valid_range=S1_VALID_RANGE_DB,
        nodata=S1_NODATA,
        native_pixel_size_m=10,
        wavelength_nm=None,
        source=S1_SOURCE,
    )


def _s2(name: str, native_pixel_size_m: int, wavelength_nm: float) -> Band:
    return Band(
        name=name,
        unit="reflectance",
        scale=S2_REFLECTANCE_PER_DN,
        valid_range=S2_VALID_RANGE,
        nodata=S2_NODATA,
        native_pixel_size_m=native_pixel_size_m,
        wavelength_nm=wavelength_nm,
        source=f"{S2_L1C_SOURCE} and {S2_L2A_SOURCE}",
    )


S1_BANDS: dict[str, Band] = {name: _s1(name) for name in ("VV", "VH", "HH", "HV")}
S2_BANDS: dict[str, Band] = {
    band.name: band
    for band in (
        _s2("B1", 60, 443.9),
        _s2("B2", 10, 496.6),
        _s2("B3", 10, 560.0),
        _s2("B4", 10, 664.5),
        _s2("B5", 20, 703.9),
        _s2("B6", 20, 740.2),
        _s2("B7", 20, 782.5),
        _s2("B8", 10, 835.1),
        _s2("B8A", 20, 864.8),
        _s2("B9", 60, 945.0),
        _s2("B10", 60, 1373.5),
        _s2("B11", 20, 1613.7),
        _s2("B12", 20, 2202.4),
    )
}
BANDS: dict[Sensor, dict[str, Band]] = {"s1": S1_BANDS, "s2": S2_BANDS}

S1_DEFAULT_BANDS = ("VV", "VH")
S2_L1C_BANDS = tuple(S2_BANDS)
"""All 13 bands in the order of level-1C products (top-of-atmosphere reflectance)."""
S2_L2A_BANDS = tuple(name for name in S2_BANDS if name != "B10")
"""The 12 bands of level-2A products (surface reflectance): all but the cirrus band."""


def check_band_names(sensor: Sensor, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names` unchanged after checking them.

    Raises:
        ValueError: `names` is empty, repeats a band or has one that `sensor` lacks.
    """
    known = BANDS[sensor]
    for name in names:
        if name not in known:
            raise ValueError(f"{sensor} has no band {name!r}; known bands: {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{sensor} needs at least one band and no band twice, got {names}")
    return names
