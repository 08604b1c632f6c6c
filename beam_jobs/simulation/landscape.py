"""The landscape of a place, which both sensors see.

Input: seed, place index and size. Output: `Landscape` with land cover, parcels, towns,
texture and terrain. It gives the label of a date for a water level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from beam_jobs.contracts.labels import DYNAMIC_WORLD
from beam_jobs.simulation.fields import FloatArray, fractal_field, stream
from beam_jobs.simulation.terrain import Terrain, make_terrain

LabelArray = npt.NDArray[np.uint8]

_ID = {name: i for i, name in DYNAMIC_WORLD.classes.items()}
WATER, TREES, GRASS, CROPS, BUILT, BARE = (
    _ID[name] for name in ("water", "trees", "grass", "crops", "built", "bare")
)
CLASS_IDS = (WATER, TREES, GRASS, CROPS, BUILT, BARE)
"""Ids of `dynamic_world` that the simulator draws."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """What lies on the ground on every date; rasters [H, W] without missing values.

    Attributes:
        land_cover: uint8 ids of `dynamic_world`, as if all water were drained.
        terrain: ground height and coast.
        parcel_phase: float32 0-1, crop calendar of the parcel (early to late).
        parcel_tone: float32, mean 0, sd 1: soil and management of the parcel.
        row_wave: float32 -1 to 1, plant rows and tramlines along the parcel.
        texture: float32, mean 0, sd 1: differences from pixel to pixel that stay from
            date to date.
        bright_point: bool, corner reflectors such as walls and roofs in towns.
    """

    land_cover: LabelArray
    terrain: Terrain
    parcel_phase: FloatArray
    parcel_tone: FloatArray
    row_wave: FloatArray
    texture: FloatArray
    bright_point: npt.NDArray[np.bool_]

    def label(self, level_m: float) -> LabelArray:
        """Return the land cover uint8 [H, W] at a water level.

        Args:
            level_m: water level in metres above normal.
        """
        return np.where(self.terrain.water_mask(level_m), np.uint8(WATER), self.land_cover)


@dataclass(frozen=True, kw_only=True)
class _Parcels:
    """Rectangular fields.

    Attributes:
        number: int64 [H, W], number of the parcel.
        is_border: bool [H, W], True on the border of a parcel.
        across_px: float32 [H, W], coordinate across the plant rows, in pixels.
        num_parcels: numbers are below this.
    """

    number: npt.NDArray[np.int64]
    is_border: npt.NDArray[np.bool_]
    across_px: FloatArray
    num_parcels: int


def make_landscape(seed: int, place_index: int, size_px: int) -> Landscape:
    """Draw the landscape of a place; the same arguments give the same bits.

    Args:
        seed: the run's seed.
        place_index: number of the place.
        size_px: height and width in pixels of 10 m.
    """
    terrain = make_terrain(stream(seed, "terrain", place_index), size_px)
    rng = stream(seed, "land_cover", place_index)
    parcels = _draw_parcels(rng, size_px)
    land_cover = _natural_cover(rng, terrain)
    _add_farmland(rng, land_cover, parcels)
    _add_towns(rng, land_cover, terrain)
    # A coast has sand, whatever the inland cover is.
    beach = (terrain.coast_distance_px < 14) & (terrain.height_m < 1.2)
    land_cover[beach] = BARE
    phase = rng.random(parcels.num_parcels, dtype=np.float32)
    tone = rng.standard_normal(parcels.num_parcels, dtype=np.float32)
    texture_rng = stream(seed, "texture", place_index)
    texture = texture_rng.standard_normal((size_px, size_px), dtype=np.float32)
    texture = np.float32(0.8) * texture + np.float32(0.6) * fractal_field(
        texture_rng, size_px, 6.0, num_octaves=2
    )
    return Landscape(
        land_cover=land_cover,
        terrain=terrain,
        parcel_phase=phase[parcels.number],
        parcel_tone=tone[parcels.number],
        row_wave=np.sin(parcels.across_px * np.float32(2 * np.pi / 4.3)),
        texture=texture,
        bright_point=(texture_rng.random((size_px, size_px), dtype=np.float32) < 0.04)
        & (land_cover == BUILT),
    )


def _draw_parcels(rng: np.random.Generator, size_px: int) -> _Parcels:
    """Draw strips of different width at one angle, each cut into fields."""
    angle = rng.uniform(0.0, np.pi / 2)
    rows, columns = np.indices((size_px, size_px), dtype=np.float32)
    bend = fractal_field(rng, size_px, max(60.0, size_px / 3), num_octaves=2) * np.float32(4.0)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    across = columns * cosine + rows * sine + bend
    along = rows * cosine - columns * sine + np.float32(size_px)
    across -= across.min()
    widths = rng.uniform(12.0, 30.0, int(across.max() / 12.0) + 2)
    edges = np.concatenate([[0.0], np.cumsum(widths)]).astype(np.float32)
    strip = np.searchsorted(edges, across, side="right") - 1
    lengths = rng.uniform(22.0, 60.0, len(edges)).astype(np.float32)
    offsets = rng.uniform(0.0, 60.0, len(edges)).astype(np.float32)
    place_along = (along + offsets[strip]) / lengths[strip]
    cut = place_along.astype(np.int64)
    num_cuts = int(cut.max()) + 1
    border = (across - edges[strip] < 1.0) | ((place_along - cut) * lengths[strip] < 1.0)
    return _Parcels(
        number=strip * num_cuts + cut,
        is_border=border,
        across_px=across,
        num_parcels=len(edges) * num_cuts,
    )


def _natural_cover(rng: np.random.Generator, terrain: Terrain) -> LabelArray:
    """Return woods, grass and bare ground without farms and towns, uint8 [H, W]."""
    size_px = terrain.height_m.shape[0]
    scale_px = min(90.0, size_px / 3)
    wood = fractal_field(rng, size_px, scale_px, num_octaves=6, persistence=0.55)
    dry = fractal_field(rng, size_px, scale_px, num_octaves=6, persistence=0.55)
    cover = np.full((size_px, size_px), GRASS, np.uint8)
    cover[dry > np.quantile(dry[::4, ::4], 1 - rng.uniform(0.05, 0.2))] = BARE
    cover[wood > np.quantile(wood[::4, ::4], 1 - rng.uniform(0.25, 0.5))] = TREES
    return cover


def _add_farmland(rng: np.random.Generator, cover: LabelArray, parcels: _Parcels) -> None:
    """Turn whole parcels into crops, meadow or fallow, in place.

    Hedges and tracks run along some borders.
    """
    size_px = cover.shape[0]
    suited = fractal_field(rng, size_px, min(120.0, size_px / 2), num_octaves=2)
    number = parcels.number.ravel()
    counts = np.maximum(np.bincount(number, minlength=parcels.num_parcels), 1)
    # One decision per parcel, from its mean suitability, keeps fields whole.
    mean_suited = (np.bincount(number, suited.ravel(), parcels.num_parcels) / counts)[
        parcels.number
    ]
    is_farm = mean_suited > np.quantile(mean_suited[::4, ::4], 1 - rng.uniform(0.3, 0.6))
    use = np.array([CROPS, GRASS, BARE], np.uint8)[
        np.searchsorted([0.72, 0.88], rng.random(parcels.num_parcels))
    ]
    cover[is_farm] = use[parcels.number][is_farm]
    border = np.where(rng.random(parcels.num_parcels) < 0.25, TREES, GRASS).astype(np.uint8)
    on_border = is_farm & parcels.is_border
    cover[on_border] = border[parcels.number][on_border]


def _add_towns(rng: np.random.Generator, cover: LabelArray, terrain: Terrain) -> None:
    """Add one to three towns with gardens, and roads between them, in place."""
    size_px = cover.shape[0]
    rows, columns = np.indices((size_px, size_px), dtype=np.float32)
    num_towns = int(rng.integers(1, 4))
    centres = _town_centres(rng, terrain, num_towns)
    density = np.full((size_px, size_px), -1e3, np.float32)
    for row, column in centres:
        radius_px = np.float32(rng.uniform(0.07, 0.16) * size_px)
        density = np.maximum(density, 1 - np.hypot(rows - row, columns - column) / radius_px)
    density += np.float32(0.45) * fractal_field(rng, size_px, min(24.0, size_px / 6), num_octaves=4)
    blocks = rng.random((size_px // 5 + 1, size_px // 5 + 1), dtype=np.float32)
    block = blocks[(rows // 5).astype(int), (columns // 5).astype(int)]
    cover[(density > 0.1) & (block < 0.3 + density)] = BUILT
    green = (density > 0.1) & (block >= 0.3 + density)
    cover[green] = np.where(block[green] > 0.9, TREES, GRASS)
    exits = rng.uniform(0, size_px - 1, (num_towns, 2))
    exits[:, int(rng.integers(2))] = rng.choice([0.0, size_px - 1.0], num_towns)
    for (row, column), (row_to, column_to) in zip(centres, exits, strict=True):
        steps = np.linspace(0, 1, 2 * size_px)
        bow = np.sin(steps * np.pi) * rng.uniform(-0.08, 0.08) * size_px
        _draw_road(
            cover, row + (row_to - row) * steps + bow, column + (column_to - column) * steps - bow
        )


def _draw_road(
    cover: LabelArray, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> None:
    """Set a line two pixels wide to built, in place."""
    last = cover.shape[0] - 1
    for shift in (0, 1):
        r, c = np.rint(rows).astype(int) + shift, np.rint(columns).astype(int)
        inside = (r >= 0) & (r <= last) & (c >= 0) & (c <= last)
        cover[r[inside], c[inside]] = BUILT


def _town_centres(
    rng: np.random.Generator, terrain: Terrain, num_towns: int
) -> list[tuple[int, int]]:
    """Return row and column of dry points on low ground.

    Towns lie in valleys but not in the river.
    """
    size_px = terrain.height_m.shape[0]
    margin = size_px // 8
    height_m = ndimage.uniform_filter(terrain.height_m, 9)
    candidates = rng.integers(margin, size_px - margin, (60, 2))
    at = height_m[candidates[:, 0], candidates[:, 1]]
    order = np.argsort(np.where(at > 1.0, at, np.inf), kind="stable")
    # Take every sixth of the dry candidates by height, so that the towns of one place
    # do not all fall into one hollow.
    chosen = candidates[order[: 6 * num_towns : 6]]
    return [(int(row), int(column)) for row, column in chosen]
