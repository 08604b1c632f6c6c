"""Overlaps: by place against closed forms and all pairs, by looks against copies and strangers."""

import dataclasses

import numpy as np
import pyproj
import pytest
from scipy import ndimage

from beam_jobs.judging import overlaps
from beam_jobs.judging.overlaps import AuditedPatch, Index, difference_hash, footprints_overlap
from beam_jobs.scenes.grids import to_lonlat


def audited(
    lon: float, lat: float, side_m: float = 640.0, name: str = "a", code: int | None = None
) -> AuditedPatch:
    return AuditedPatch(
        patch_id=name, split="eval", lon=lon, lat=lat, height_m=side_m, width_m=side_m, hash=code
    )


def utm_patch(x: float, y: float, crs: str = "EPSG:32633", side_m: float = 640.0) -> AuditedPatch:
    """A patch of a UTM grid, its centre rounded to float32 as shards do."""
    lon, lat = to_lonlat(crs, x, y)
    return audited(float(np.float32(lon)), float(np.float32(lat)), side_m)


@pytest.mark.parametrize("lon", [12.02, 15.0, 17.98])
@pytest.mark.parametrize("lat", [0.5, 45.0, 78.0])
def test_patches_side_by_side_do_not_overlap_and_those_that_share_two_pixels_do(lon, lat):
    # Also at the borders of the zone, where its grid is turned most.
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(
        lon, lat
    )
    here = utm_patch(x, y)
    for dx, dy in ((640, 0), (0, -640), (640, 640), (-640, 10)):
        assert not footprints_overlap(here, utm_patch(x + dx, y + dy))
    for dx, dy in ((620, 0), (0, 620), (-600, -600), (0, 0)):
        assert footprints_overlap(here, utm_patch(x + dx, y + dy))


def test_patches_of_two_zones_and_sizes_overlap_where_they_share_ground():
    lon, lat = to_lonlat("EPSG:32632", 736_000.0, 5_000_000.0)
    small, large = (
        audited(float(lon), float(lat), 640.0),
        audited(float(lon) + 0.012, float(lat), 2560.0),
    )
    # 0.012 degrees are 0.94 km here; the sides end 1.6 km from each other's centre.
    assert footprints_overlap(small, large)
    assert not footprints_overlap(small, dataclasses.replace(large, width_m=640.0, height_m=640.0))


def test_a_buffer_counts_from_border_to_border():
    here, there = utm_patch(500_000.0, 5_000_000.0), utm_patch(500_000.0 + 640 + 300, 5_000_000.0)
    assert not footprints_overlap(here, there, 290.0)
    assert footprints_overlap(here, there, 320.0)
    diagonal = utm_patch(500_000.0 + 640 + 300, 5_000_000.0 + 640 + 400)
    assert not footprints_overlap(here, diagonal, 480.0)
    assert footprints_overlap(here, diagonal, 520.0)


@pytest.mark.parametrize(
    ("lon", "lat"), [(179.999, 10.0), (-179.999, -65.0), (12.0, 84.9), (0.0, 0.0), (30.0, -80.0)]
)
@pytest.mark.parametrize("buffer_m", [0.0, 5_000.0])
def test_the_index_finds_what_all_pairs_would(lon, lat, buffer_m):
    rng = np.random.default_rng(7)
    east = 5_000 / overlaps.metres_per_degree(lat)[1]

    def some(number: int, sides: list[float]) -> list[AuditedPatch]:
        places = zip(
            rng.normal(lon, east, number),
            rng.normal(lat, 0.04, number),
            rng.choice(sides, number),
            strict=True,
        )
        return [
            audited((x + 180) % 360 - 180, y, side, f"{i:03d}")
            for i, (x, y, side) in enumerate(places)
        ]

    labeled, pairs = some(150, [640.0, 2560.0]), some(80, [320.0, 1280.0])
    index, total = Index(labeled, buffer_m, 6), 0
    for pair in pairs:
        expected = [
            other.patch_id for other in labeled if footprints_overlap(pair, other, buffer_m)
        ]
        assert [found.label_patch_id for found in index.overlaps([pair])[0]] == expected
        total += len(expected)
    assert 20 < total < 12_000


def test_the_index_finds_hashes_up_to_the_distance_wherever_the_bits_differ():
    rng = np.random.default_rng(1)
    labeled = [
        audited(i * 1.0, 0.0, name=f"{i:03d}", code=int.from_bytes(rng.bytes(16), "big"))
        for i in range(60)
    ]
    index = Index([*labeled, audited(100.0, 0.0, name="water")], 0.0, 6)
    for number, other in enumerate(labeled):
        bits = rng.choice(128, 7, replace=False)
        code = other.hash
        for flipped, bit in enumerate(bits, start=1):
            code ^= 1 << int(bit)
            found = index.overlaps([audited(-90.0, 45.0, code=code)])[0]
            expected = [(f"{number:03d}", flipped, False)] if flipped <= 6 else []
            assert [
                (o.label_patch_id, o.hash_distance, o.footprints_overlap) for o in found
            ] == expected
    assert index.overlaps([audited(-90.0, 45.0)]) == [[]]


def scene(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cover = ndimage.gaussian_filter(rng.normal(size=(2, size, size)), (0, 8, 8)) * 8
    s1 = -14 + 3 * cover[0, ..., None] + rng.normal(0, 2, (size, size, 2))
    s2 = np.clip(0.15 + 0.05 * cover[1, ..., None] + rng.normal(0, 0.005, (size, size, 4)), 0.01, 2)
    return s1.astype(np.float32), s2.astype(np.float32)


def distance(one: int | None, two: int | None) -> int:
    assert one is not None
    assert two is not None
    return bin(one ^ two).count("1")


def test_copies_have_one_hash_and_strangers_do_not():
    codes = [difference_hash(*scene(seed)) for seed in range(60)]
    textured = [seed for seed, code in enumerate(codes) if code is not None]
    assert len(textured) > 50
    for seed in textured[:20]:
        s1, s2 = scene(seed)
        rounded = np.round(s1 * 20).astype(np.float32) / 20
        assert distance(codes[seed], difference_hash(rounded, s2 * 1.1)) <= 3
        s1[:3, :5] = np.nan
        assert distance(codes[seed], difference_hash(s1, s2)) <= 6
    nearest = min(distance(codes[i], codes[j]) for i in textured for j in textured if j < i)
    assert nearest > 12


def test_both_images_count():
    (s1, s2), (other_s1, other_s2) = scene(0), scene(1)
    own = difference_hash(s1, s2)
    assert distance(own, difference_hash(other_s1, s2)) > 12
    assert distance(own, difference_hash(s1, other_s2)) > 12


def test_open_water_and_missing_blocks_have_no_hash():
    rng = np.random.default_rng(0)
    s1, s2 = scene(0)
    calm = (-20 + rng.normal(0, 2, s1.shape)).astype(np.float32)
    deep = (0.03 + rng.normal(0, 0.003, s2.shape)).astype(np.float32)
    assert difference_hash(s1, s2) is not None
    assert difference_hash(calm, s2) is None
    assert difference_hash(s1, deep) is None
    s1[:10, :10] = np.nan
    assert difference_hash(s1, s2) is None


@pytest.mark.parametrize("max_distance", [0, 1, 6, 20])
def test_hashes_found_in_bulk_are_those_of_comparing_each_with_each(max_distance, monkeypatch):
    # Skewed on purpose: many hashes share whole parts, and groups of candidates are
    # split.
    monkeypatch.setattr(overlaps, "_MAX_CANDIDATES", 500)
    rng = np.random.default_rng(max_distance)
    patterns = [int.from_bytes(rng.bytes(16), "big") for _ in range(4)]

    def noisy(number: int) -> list[int | None]:
        flips = [
            rng.choice(128, rng.integers(0, 2 * max_distance + 3), replace=False)
            for _ in range(number)
        ]
        values = [
            patterns[i % 4] ^ sum(1 << int(bit) for bit in bits) for i, bits in enumerate(flips)
        ]
        return [None if i % 11 == 5 else value for i, value in enumerate(values)]

    held, given = noisy(120), noisy(90)
    expected = {
        (i, j, bin(one ^ two).count("1"))
        for i, one in enumerate(given)
        for j, two in enumerate(held)
        if one is not None and two is not None and bin(one ^ two).count("1") <= max_distance
    }
    assert overlaps.HashIndex(held, max_distance).alike(given) == expected
    assert 5 < len(expected) < 5000
    assert overlaps.HashIndex([None], max_distance).alike(given) == set()
    assert overlaps.HashIndex(held, max_distance).alike([None, None]) == set()
