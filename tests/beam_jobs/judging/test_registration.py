"""Registration: known shifts are found to a fraction of a pixel; unrelated images give
none.
"""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from beam_jobs.build import patches
from beam_jobs.catalogs.catalog import read_items
from beam_jobs.config import BuildConfig, PatchConfig, QualityConfig, SimulateConfig, SplitConfig
from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.judging import registration
from beam_jobs.judging.registration import measure_offset
from beam_jobs.scenes import inspection
from beam_jobs.scenes.scene import from_item
from beam_jobs.simulation.simulate import simulate
from tests.data.scenes.real_samples import SAMPLES, needs_samples

BANDS = ("B2", "B4", "B8", "B11")
SHARP_BANDS = ("B2", "B3", "B4", "B8")
SIZE = 64


def fourier_shift(plane: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """The same image, moved down and to the right by a part of a pixel."""
    return np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(plane), shift)).real


def world(seed: int) -> list[np.ndarray]:
    """Twelve land covers as smooth-edged masks [96, 96] on one map of fields."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 96, (60, 2))
    rows, cols = np.mgrid[:96, :96]
    field = ((rows[..., None] - seeds[:, 0]) ** 2 + (cols[..., None] - seeds[:, 1]) ** 2).argmin(
        axis=-1
    )
    cover = rng.integers(0, 12, 60)[field]
    return [ndimage.gaussian_filter((cover == k).astype(float), 0.7) for k in range(12)]


def render(seed: int, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """(s1, s2) [64, 64, C] of one world, with Sentinel-2 shifted.

    Each sensor has a brightness of its own; the radar has speckle of 4 looks.
    """
    rng = np.random.default_rng(1000 + seed)
    covers, crop = world(seed), np.s_[16 : 16 + SIZE, 16 : 16 + SIZE]
    s1 = np.stack(
        [sum(rng.normal(level, 4.0) * mask for mask in covers) for level in (-10.0, -16.0)], axis=-1
    )
    s1 = s1[crop] + 10 * np.log10(rng.gamma(4.0, 1 / 4.0, (SIZE, SIZE, 2)))
    s2 = np.stack([sum(rng.uniform(0.03, 0.4) * mask for mask in covers) for _ in BANDS], axis=-1)
    s2 = np.stack([fourier_shift(plane, shift) for plane in np.moveaxis(s2, -1, 0)], axis=-1)[crop]
    return s1.astype(np.float32), (s2 + rng.normal(0, 0.004, s2.shape)).astype(np.float32)


def margin(s1: np.ndarray, s2: np.ndarray, sensors: str) -> tuple[np.ndarray, np.ndarray]:
    """The same with a slanted corner of no data, about a quarter of the patch."""
    rows, cols = np.mgrid[:SIZE, :SIZE]
    outside = rows + 0.6 * cols < 32
    return (
        np.where(outside[..., None] & ("1" in sensors), np.nan, s1),
        np.where(outside[..., None] & ("2" in sensors), np.nan, s2),
    )


def error(shift: tuple[float, float], seed: int, sensors: str = "") -> float | None:
    found = measure_offset(*margin(*render(seed, shift), sensors), BANDS)
    return (
        None
        if found is None
        else float(np.hypot(found.row_shift_px - shift[0], found.col_shift_px - shift[1]))
    )


@pytest.mark.parametrize(
    "shift", [(0.0, 0.0), (0.0, 0.5), (1.0, 0.0), (0.0, -2.0), (3.0, 0.0), (-1.3, 2.6)]
)
def test_known_shifts_are_found_with_their_direction(shift):
    errors = [error(shift, seed) for seed in range(20)]
    significant = [value for value in errors if value is not None]
    assert len(significant) >= 14
    assert np.median(significant) < 0.3
    assert np.quantile(significant, 0.9) < 0.6


@pytest.mark.parametrize("sensors", ["1", "2", "12"])
def test_margins_without_data_do_not_pull_the_shift_to_zero(sensors):
    errors = [error((3.0, -2.0), seed, sensors) for seed in range(20)]
    significant = [value for value in errors if value is not None]
    assert len(significant) >= 10
    assert np.median(significant) < 0.3


@pytest.fixture(scope="module")
def unrelated() -> list[tuple[np.ndarray, np.ndarray]]:
    rendered = [render(seed) for seed in range(200)]
    return [(rendered[seed][0], rendered[seed - 1][1]) for seed in range(200)]


@pytest.mark.parametrize("sensors", ["", "1", "2", "12"])
def test_images_of_two_places_are_rarely_given_a_shift(unrelated, sensors):
    found = [measure_offset(*margin(*pair, sensors), BANDS) for pair in unrelated]
    assert sum(offset is not None for offset in found) < 0.02 * len(found)
    assert not any(offset and offset.length_px < 0.5 for offset in found)


def open_water(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Speckle and sensor noise, different waves in each sensor, and one common
    gradient.
    """
    rng = np.random.default_rng(seed)
    fall = np.linspace(0, 1, SIZE)[None, :, None]
    swell = [
        ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), scale)[..., None]
        for scale in ((1.5, 8), (2, 6))
    ]
    s1 = -18 + 3 * fall + 10 * swell[0] + 10 * np.log10(rng.gamma(4.0, 1 / 4.0, (SIZE, SIZE, 2)))
    s2 = 0.03 + 0.01 * fall + 0.03 * swell[1] + rng.normal(0, 0.002, (SIZE, SIZE, 4))
    return s1.astype(np.float32), s2.astype(np.float32)


def test_open_water_tells_nothing():
    assert not [seed for seed in range(100) if measure_offset(*open_water(seed), BANDS)]


def test_one_ship_that_sailed_hardly_ever_gives_a_shift():
    found = []
    for seed in range(50):
        (s1, s2), (row, col) = open_water(seed), np.random.default_rng(seed).integers(20, 44, 2)
        s1[row : row + 2, col : col + 2] += 20.0
        s2[row + 3 : row + 5, col - 4 : col - 2] += 0.2
        found.append(measure_offset(s1, s2, BANDS))
    assert sum(offset is not None for offset in found) <= 10


def test_flat_empty_small_and_hardly_common_patches_tell_nothing():
    s1, s2 = render(1)
    assert measure_offset(s1, s2, BANDS) is not None
    assert measure_offset(np.full_like(s1, -10.0), s2, BANDS) is None
    assert measure_offset(np.full_like(s1, np.nan), s2, BANDS) is None
    assert measure_offset(s1[:31], s2[:31], BANDS) is None
    s1[:, :33] = np.nan
    assert measure_offset(s1, s2, BANDS) is None


def test_only_sharp_bands_are_used_where_there_are_any():
    s1, s2 = render(1, (1.0, 0.0))
    expected = measure_offset(s1, s2, BANDS)
    spoilt = s2.copy()
    spoilt[..., 3] = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    assert measure_offset(s1, spoilt, BANDS) == expected
    assert measure_offset(s1, spoilt, ("B5", "B6", "B7", "B11")) != expected


def test_the_length_is_that_of_the_vector():
    assert (
        registration.Offset(row_shift_px=3.0, col_shift_px=-4.0, significance=9.0).length_px == 5.0
    )


def simulated_patches(simulated: Path, quality: QualityConfig, size_px: int = SIZE) -> list:
    config = BuildConfig(
        patch=PatchConfig(size_px=size_px), quality=quality, split=SplitConfig(block_size_km=900.0)
    )
    found = [from_item(item, simulated) for item in read_items(simulated)]
    s1 = [
        inspection.inspect(scene, config.patch.s1_bands) for scene in found if scene.sensor == "s1"
    ]
    s2 = [
        inspection.inspect(scene, config.patch.s2_bands) for scene in found if scene.sensor == "s2"
    ]
    # Scenes are named after time and place; the n-th of one sensor goes with the n-th
    # of the other.
    pairs = zip(
        sorted(s1, key=lambda s: (s.scene_id[-10:], s.acquired_at)),
        sorted(s2, key=lambda s: (s.scene_id[-10:], s.acquired_at)),
        strict=True,
    )
    return [
        cut
        for one, two in pairs
        for task in patches.tasks(one, two, config)
        for cut in patches.cut(task, config)
    ]


def test_simulated_scenes_lie_on_each_other(simulated):
    kept = [
        found[1]
        for found in simulated_patches(simulated, QualityConfig())
        if isinstance(found, tuple)
    ]
    offsets = np.array([patch.offset_px for patch in kept])
    measured = offsets[np.isfinite(offsets)]
    assert measured.size >= 3
    assert np.median(measured) < 0.3


@pytest.fixture(scope="module")
def whole_pairs(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """(s1, 10 m bands of s2) of about 80 simulated patches without gaps.

    They are 8 px wider on each side than what is measured.
    """
    config = SimulateConfig(num_places=6, num_dates=2, size_px=256, seed=6)
    catalog = simulate(config, tmp_path_factory.mktemp("places"))
    cuts = simulated_patches(catalog, QualityConfig(measure_offset=False), SIZE + 16)
    sharp = [S2_L2A_BANDS.index(name) for name in SHARP_BANDS]
    pairs = [(cut[1].s1, cut[1].s2[..., sharp]) for cut in cuts if isinstance(cut, tuple)]
    return [pair for pair in pairs if all(np.isfinite(pixels).all() for pixels in pair)]


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_simulated_scenes_moved_on_purpose_are_found_moved(whole_pairs, shift):
    crop, errors = np.s_[8 : 8 + SIZE, 8 : 8 + SIZE], []
    for s1, s2 in whole_pairs:
        whole, part = divmod(shift, 1.0)
        moved = ndimage.shift(s2, (0.0, part, 0.0), order=3, mode="nearest") if part else s2
        offset = measure_offset(s1[crop], np.roll(moved, int(whole), axis=1)[crop], SHARP_BANDS)
        if offset is not None:
            errors.append(np.hypot(offset.row_shift_px, offset.col_shift_px - shift))
    assert len(errors) >= 55
    assert np.median(errors) < 0.2


@needs_samples
def test_real_scenes_moved_on_purpose_are_found_moved():
    changes = []
    for path in sorted((SAMPLES / "terramind" / "S1RTC").glob("*.tif")):
        with (
            rasterio.open(path) as one,
            rasterio.open(SAMPLES / "terramind" / "S2L2A" / path.name) as two,
        ):
            s1, s2 = (
                one.read().transpose(1, 2, 0),
                two.read().transpose(1, 2, 0).astype(np.float32) / 1e4,
            )
        for row in range(8, 224 - SIZE - 8, 24):
            for col in range(8, 224 - SIZE - 8, 24):
                here = s1[row : row + SIZE, col : col + SIZE]
                there = [
                    s2[row + r : row + r + SIZE, col + c : col + c + SIZE]
                    for r, c in ((0, 0), (-2, 3))
                ]
                before, after = (measure_offset(here, pixels, S2_L2A_BANDS) for pixels in there)
                if before and after:
                    down = after.row_shift_px - before.row_shift_px
                    changes.append((down, after.col_shift_px - before.col_shift_px))
    assert len(changes) >= 10
    assert np.median(changes, axis=0) == pytest.approx([2.0, -3.0], abs=0.3)


@needs_samples
def test_patches_of_one_real_tile_are_found_shifted_alike():
    spreads = []
    for path in sorted((SAMPLES / "terramind" / "S1RTC").glob("*.tif")):
        with (
            rasterio.open(path) as one,
            rasterio.open(SAMPLES / "terramind" / "S2L2A" / path.name) as two,
        ):
            s1, s2 = (
                one.read().transpose(1, 2, 0),
                two.read().transpose(1, 2, 0).astype(np.float32) / 1e4,
            )
        corners = [
            np.s_[row : row + SIZE, col : col + SIZE]
            for row in range(0, 161, 32)
            for col in range(0, 161, 32)
        ]
        found = [measure_offset(s1[corner], s2[corner], S2_L2A_BANDS) for corner in corners]
        shifts = np.array(
            [(offset.row_shift_px, offset.col_shift_px) for offset in found if offset]
        )
        if len(shifts) >= 12:
            spreads.append(np.median(np.abs(shifts - np.median(shifts, axis=0)), axis=0))
    assert len(spreads) >= 3
    assert np.max(spreads) < 0.4
