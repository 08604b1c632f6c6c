"""Pixel requests, their size and the limits that Earth Engine sets. Needs no `ee`.

Input: an acquisition and the grid of a place. Output: `PixelRequest`. It alone decides
every byte of the answer, so its `key` can name the request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.settings import canonical_json
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.scenes.grids import Grid

LabelSource = Literal["none", "dynamic_world", "worldcover"]

CLOUD_SCORE_BAND = "cs_cdf"
"""Band of the answer: Cloud Score+ x CLOUD_SCORE_SCALE. 0 is cloud, CLOUD_SCORE_SCALE
is clear, CLOUD_SCORE_NODATA is masked."""
CLOUD_SCORE_SCALE = 10_000
CLOUD_SCORE_NODATA = 65_535
LABEL_BAND = "label"
"""Band of the answer: ids of the schema that the label source names, 255 = ignore."""

# Source: https://developers.google.com/earth-engine/guides/usage#request_payload_size
# and the answers to larger requests.
MAX_REQUEST_BYTES = 50_331_648
MAX_REQUEST_SIDE_PX = 32_768
MAX_REQUEST_BANDS = 1_024


@dataclass(frozen=True, kw_only=True)
class PixelRequest:
    """Pixels of one scene on one grid, as one GeoTIFF.

    Sentinel-1 comes as float32 dB with -32768 (S1_NODATA) where masked. Sentinel-2
    comes as uint16 DN without offset, 0 where masked.

    Attributes:
        sensor: s1 or s2.
        image_id: full asset id, as COPERNICUS/S1_GRD/S1A_IW_GRDH_….
        bands: band names in the order of the answer.
        crs: CRS of the grid, as EPSG:32631.
        transform: transform of the grid, rasterio order (a, b, c, d, e, f); b and d are
            0.
        height: rows.
        width: columns.
        cloud_score: s2 only: CLOUD_SCORE_BAND follows the bands.
        label: s2 only: LABEL_BAND follows, from the Dynamic World image of the same
            scene or from WorldCover 2021.
    """

    sensor: Sensor
    image_id: str
    bands: tuple[str, ...]
    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int
    cloud_score: bool = False
    label: LabelSource = "none"

    @property
    def grid(self) -> Grid:
        """Grid of the pixels."""
        return Grid(crs=self.crs, transform=self.transform, height=self.height, width=self.width)

    @property
    def answer_bands(self) -> tuple[str, ...]:
        """Band names of the answer: `bands`, then cloud score, then label."""
        extra = (CLOUD_SCORE_BAND,) * self.cloud_score + (LABEL_BAND,) * (self.label != "none")
        return self.bands + extra

    @property
    def dtype(self) -> Literal["float32", "uint16"]:
        """Dtype of every band of the answer."""
        return "float32" if self.sensor == "s1" else "uint16"

    @property
    def key(self) -> str:
        """Stable name of the request, 32 hex digits.

        The same pixels have the same key in every process and run.
        """
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:32]


def request_bytes(request: PixelRequest) -> int:
    """Return the bytes of the answer before compression.

    Earth Engine's limit counts these.
    """
    bytes_per_pixel = 4 if request.dtype == "float32" else 2
    return bytes_per_pixel * len(request.answer_bands) * request.height * request.width


def check_limits(request: PixelRequest) -> None:
    """Raise if Earth Engine would refuse the request because of its size.

    Raises:
        EarthEngineError: reason too_large; more than 48 MB, 32,768 pixels a side or
            1,024 bands.
    """
    side, num_bytes = max(request.height, request.width), request_bytes(request)
    if side > MAX_REQUEST_SIDE_PX:
        broken = (
            f"at most {MAX_REQUEST_SIDE_PX} pixels a side, got {request.width} x {request.height}"
        )
    elif len(request.answer_bands) > MAX_REQUEST_BANDS:
        broken = f"at most {MAX_REQUEST_BANDS} bands, got {len(request.answer_bands)}"
    elif num_bytes > MAX_REQUEST_BYTES:
        broken = (
            f"at most {MAX_REQUEST_BYTES} bytes, got {num_bytes} "
            f"({len(request.answer_bands)} bands of {request.width} x {request.height} "
            f"{request.dtype})"
        )
    else:
        return
    raise EarthEngineError(
        f"{request.image_id}: one pixel request may hold {broken}; "
        f"use a smaller size_px or fewer bands",
        "too_large",
    )


def pixel_grid(grid: Grid) -> dict[str, Any]:
    """Return the grid in the form that Earth Engine expects.

    Source: https://developers.google.com/earth-engine/reference/rest/v1/PixelGrid.
    """
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    return {
        "crsCode": grid.crs,
        "affineTransform": dict(zip(names, grid.transform, strict=True)),
        "dimensions": {"width": grid.width, "height": grid.height},
    }
