"""Patches: kept ones equal the rasters, others have a reason, labels come from their
sensor.
"""

import dataclasses
import math

import numpy as np
import pytest
from pyproj import Transformer

from beam_jobs.build import patches
from beam_jobs.build.patches import Rejection
from beam_jobs.config import BuildConfig, LabelConfig, PatchConfig, QualityConfig, SplitConfig
from beam_jobs.contracts import records
from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.contracts.records import LabeledPatch, PairedPatch
from beam_jobs.judging import splits
from beam_jobs.scenes import inspection
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import absent_partner
from tests.data.scenes.make_rasters import (
    backscatter,
    digital_numbers,
    north_up,
    s1_scene,
    s2_scene,
    write_geotiff,
)

SIZE = 16
# One block of 500 km, so that no patch straddles unless a test wants it to.
CONFIG = BuildConfig(patch=PatchConfig(size_px=SIZE), split=SplitConfig(block_size_km=500.0))
S1_BANDS = ("VV", "VH")


def label_of(folder, name, seed):
    ids = np.random.default_rng(seed).integers(0, 2, (1, 48, 64)).astype(np.uint8)
    path = write_geotiff(folder / f"{name}.tif", ids)
    return LabelSource(path=str(path), schema="water", nodata=None), ids[0]


@pytest.fixture
def pair(tmp_path):
    """Two scenes of 48 x 64 px that share 48 x 56 px: Sentinel-2 lies 8 px further
    east.
    """
    s1 = s1_scene(tmp_path / "S1_a.tif", backscatter(48, 64))
    dn = digital_numbers(12, 48, 64)
    s2 = s2_scene(tmp_path / "S2_b.tif", dn, transform=north_up(x=500_080.0), dn_offset=0)
    return inspection.inspect(s1, S1_BANDS), inspection.inspect(s2, S2_L2A_BANDS)


def cut_all(pair, config=CONFIG):
    return [result for task in patches.tasks(*pair, config) for result in patches.cut(task, config)]


def test_kept_patches_hold_the_pixels_of_both_files_at_the_same_place(pair):
    found = cut_all(pair)
    assert len(found) == 3 * 3
    s1, dn = backscatter(48, 64).transpose(1, 2, 0), digital_numbers(12, 48, 64).transpose(1, 2, 0)
    for index, (_, patch) in enumerate(found):
        row, col = index // 3 * SIZE, index % 3 * SIZE
        assert type(patch) is PairedPatch
        assert np.array_equal(patch.s1, s1[row : row + SIZE, col + 8 : col + 8 + SIZE])
        np.testing.assert_allclose(
            patch.s2, dn[row : row + SIZE, col : col + SIZE] / 10_000, rtol=0, atol=1e-6
        )


def test_kept_patches_say_where_and_when_they_are(pair):
    split, patch = cut_all(pair)[4]
    assert (patch.s1_scene_id, patch.s2_scene_id) == ("S1_a", "S2_b")
    assert patch.time_gap_hours == 2.0
    assert patch.orbit_state == "descending"
    # 320 m east of the central meridian of zone 33.
    assert patch.lon == pytest.approx(
        15 + 320 / (111_195 * math.cos(math.radians(45.15))), abs=2e-5
    )
    assert patch.lat == pytest.approx(45.151, abs=0.003)
    assert patch.block == splits.block_id(patch.lon, patch.lat, 500.0)
    assert split == splits.split_of(patch.block, CONFIG.split)
    assert math.isnan(patch.offset_px)
    assert math.isnan(patch.cloud_fraction)
    assert patch.quality == pytest.approx(1 - 0.5 * 2 / 72)


def test_ids_are_stable_distinct_and_depend_on_the_window(pair):
    ids = [patch.patch_id for _, patch in cut_all(pair)]
    assert len(set(ids)) == 9
    assert ids == [patch.patch_id for _, patch in cut_all(pair)]
    larger = BuildConfig(patch=PatchConfig(size_px=24), split=CONFIG.split)
    assert not set(ids) & {patch.patch_id for _, patch in cut_all(pair, larger)}


def test_no_data_travels_as_nan(pair, tmp_path):
    pixels = backscatter(48, 64)
    pixels[:, :3] = np.nan
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", pixels), S1_BANDS)
    _, patch = cut_all((s1, pair[1]))[0]
    assert np.isnan(patch.s1[:3]).all()
    assert np.isfinite(patch.s1[3:]).all()
    assert np.isfinite(patch.s2).all()


@pytest.mark.parametrize("shift_m", [0.0, 3.0])
def test_values_out_of_range_are_no_data_and_counted(tmp_path, shift_m):
    db, dn = backscatter(48, 48), digital_numbers(12, 48, 48).astype(np.float32)
    db[0, 4:6, 4] = [np.inf, -1e30]
    db[1, 20, 20:23] = [-9999.0, 41.0, -71.0]
    dn[3, 10, 10:14] = [np.inf, -np.inf, -1e30, 1e30]
    dn[7, 30, 30] = 70_000.0
    dn[:, 20, 20] = 0.0
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", db), S1_BANDS)
    # Beside the radar's pixel corners, so that the radar is resampled.
    s2 = s2_scene(tmp_path / "S2_b.tif", dn, transform=north_up(x=500_000.0 + shift_m), dn_offset=0)
    *found, counted = cut_all((s1, inspection.inspect(s2, S2_L2A_BANDS)))
    assert counted == patches.OutOfRange(
        num_pixels={("s1", "VV"): 2, ("s1", "VH"): 3, ("s2", "B4"): 4, ("s2", "B8"): 1}
    )
    missing = {"s1": 0, "s2": 0}
    for _, patch in found:
        decoded = records.decode(records.encode(patch))
        for sensor in missing:
            assert np.array_equal(np.isnan(decoded.pixels(sensor)), np.isnan(patch.pixels(sensor)))
            missing[sensor] += int(np.isnan(patch.pixels(sensor)).sum())
            mean, std = records.band_moments(patch.pixels(sensor))
            low, high = (-26.0, -4.0) if sensor == "s1" else (0.02, 0.4)
            assert ((mean > low) & (mean < high) & (std < high - low)).all()
    # The rest of a column is missing where the radar ends before the optical image.
    assert missing["s2"] == 5 + 12
    assert missing["s1"] == 5 or shift_m


def test_a_declared_unit_does_not_make_measurements_of_values_out_of_range(tmp_path):
    dn = digital_numbers(12, 48, 48) / np.float32(10_000)
    dn = dn.astype(np.float32)
    dn[2, 5, 5:8] = [-1e30, np.inf, -0.01]
    s2 = s2_scene(tmp_path / "S2_b.tif", dn)
    power = np.power(10.0, backscatter(48, 48) / 10).astype(np.float32)
    power[0, 7, 7:10] = [-1e30, np.inf, 0.0]
    s1 = s1_scene(tmp_path / "S1_a.tif", power)
    s1, s2 = (
        dataclasses.replace(
            scene,
            bands={n: dataclasses.replace(b, unit=unit) for n, b in scene.bands.items()},
        )
        for scene, unit in ((s1, "power"), (s2, "reflectance"))
    )
    s1, s2 = inspection.inspect(s1, S1_BANDS), inspection.inspect(s2, S2_L2A_BANDS)
    (_, patch), *_, counted = cut_all((s1, s2))
    assert counted.num_pixels == {("s1", "VV"): 2, ("s2", "B3"): 2}
    assert np.isnan(patch.s2[5, 5:8, 2]).tolist() == [True, True, False]
    assert patch.s2[5, 7, 2] == pytest.approx(1e-4)
    assert np.isnan(patch.s1[7, 7:10, 0]).all()
    assert patch.s1[7, 10, 0] == pytest.approx(backscatter(48, 48)[0, 7, 10], abs=1e-4)


@pytest.mark.parametrize("label_from", ["s1", "s2"])
def test_the_label_is_that_of_the_configured_sensor(pair, tmp_path, label_from):
    of_s1, ids_s1 = label_of(tmp_path, "l1", 1)
    of_s2, ids_s2 = label_of(tmp_path, "l2", 2)
    labeled = tuple(
        dataclasses.replace(scene, label=label)
        for scene, label in zip(pair, (of_s1, of_s2), strict=True)
    )
    config = dataclasses.replace(CONFIG, label=LabelConfig(schema="water", label_from=label_from))
    found = cut_all(labeled, config)
    # Both label files lie on the grid of Sentinel-1, 8 px west of the common grid.
    expected = (ids_s1 if label_from == "s1" else ids_s2)[:, 8:]
    for index, (_, patch) in enumerate(found):
        row, col = index // 3 * SIZE, index % 3 * SIZE
        assert isinstance(patch, LabeledPatch)
        assert np.array_equal(patch.label, expected[row : row + SIZE, col : col + SIZE])


@pytest.mark.parametrize(
    ("label_from", "of_s1", "of_s2", "expected"),
    [
        ("s1", "Ghana", "Spain", "Ghana"),
        ("s2", "Ghana", "Spain", "Spain"),
        ("s2", "Ghana", "", "Ghana"),
        (None, "", "Spain", "Spain"),
        (None, "", "", ""),
    ],
)
def test_the_event_is_that_of_the_labelled_scene_else_of_either(
    pair, tmp_path, label_from, of_s1, of_s2, expected
):
    label, _ = label_of(tmp_path, "l", 1)
    scenes = tuple(
        dataclasses.replace(scene, label=label, event=event)
        for scene, event in zip(pair, (of_s1, of_s2), strict=True)
    )
    labels = LabelConfig(schema="water", label_from=label_from) if label_from else None
    found = cut_all(scenes, dataclasses.replace(CONFIG, label=labels))
    assert {patch.event for _, patch in found} == {expected}


@pytest.mark.parametrize("kind", ["hand", "weak"])
def test_a_weak_label_takes_its_share_of_the_weight_that_quality_gives(pair, tmp_path, kind):
    pixels = backscatter(48, 64)
    pixels[:, :6, :44] = np.nan
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", pixels), S1_BANDS)
    label, ids = label_of(tmp_path, "l", 1)
    labeled = (dataclasses.replace(s1, label=dataclasses.replace(label, kind=kind)), pair[1])
    config = dataclasses.replace(
        CONFIG,
        quality=QualityConfig(full_weight_quality=0.9, min_valid_fraction=0.5),
        label=LabelConfig(schema="water", label_from="s1", weak_weight=0.3),
    )
    found = cut_all(labeled, config)
    assert len(found) == 9
    valid = np.isfinite(pixels[0])[:, 8:]
    for index, (split, patch) in enumerate(found):
        window = np.s_[
            index // 3 * SIZE : index // 3 * SIZE + SIZE, index % 3 * SIZE : index % 3 * SIZE + SIZE
        ]
        by_quality = min(valid[window].mean() * (1 - 0.5 * 2 / 72) / 0.9, 1.0)
        assert patch.weight == pytest.approx(by_quality * (0.3 if kind == "weak" else 1.0))
        assert np.array_equal(patch.label, ids[:, 8:][window])
        assert split == "train"
    assert len({round(patch.weight, 6) for _, patch in found}) == 3


@pytest.mark.parametrize("split", ["eval", "test"])
def test_nothing_is_measured_on_a_weak_label(pair, tmp_path, split):
    label, _ = label_of(tmp_path, "l", 1)
    config = dataclasses.replace(CONFIG, label=LabelConfig(schema="water", label_from="s1"))

    def cut_with(kind):
        labeled = dataclasses.replace(
            pair[0], label=dataclasses.replace(label, kind=kind), split=split
        )
        return cut_all((labeled, pair[1]), config)

    assert {found[0] for found in cut_with("hand")} == {split}
    refused = cut_with("weak")
    assert len(refused) == 9
    assert {(one.reason, one.is_error) for one in refused} == {("weak_label_judged", False)}
    assert (
        refused[0].detail
        == f"S1_a: its label is weak and its split {split}; weak labels are for train only"
    )


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_a_scene_alone_gives_patches_whose_other_sensor_is_all_no_data(pair, tmp_path, sensor):
    label, ids = label_of(tmp_path, "l", 1)
    there, other = (pair[0], "s2") if sensor == "s1" else (pair[1], "s1")
    there = dataclasses.replace(there, label=label, event="Ghana")
    alone = (there, absent_partner(there)) if sensor == "s1" else (absent_partner(there), there)
    config = dataclasses.replace(
        CONFIG,
        label=LabelConfig(
            schema="water", label_from=sensor, partner="optional", min_labeled_fraction=0.0
        ),
    )
    found = cut_all(alone, config)
    assert len(found) == 3 * 4
    pixels = backscatter(48, 64) if sensor == "s1" else digital_numbers(12, 48, 64) / 10_000
    for index, (_, kept) in enumerate(found):
        row, col = index // 4 * SIZE, index % 4 * SIZE
        patch = records.decode(records.encode(kept))
        expected = pixels[:, row : row + SIZE, col : col + SIZE].transpose(1, 2, 0)
        np.testing.assert_allclose(getattr(patch, sensor), expected, rtol=0, atol=0.006)
        assert getattr(patch, other).shape == (SIZE, SIZE, 12 if other == "s2" else 2)
        assert np.isnan(getattr(patch, other)).all()
        assert (getattr(patch, f"{sensor}_scene_id"), getattr(patch, f"{other}_scene_id")) == (
            there.scene_id,
            "",
        )
        assert patch.s1_acquired_at == patch.s2_acquired_at == there.acquired_at
        assert (patch.time_gap_hours, patch.quality, patch.weight, patch.event) == (
            0.0,
            1.0,
            1.0,
            "Ghana",
        )
        assert patch.saturated_fraction == patch.edge_noise_fraction == 0.0
        assert math.isnan(patch.offset_px)
        assert math.isnan(patch.cloud_fraction)
        # The label file lies on the grid of the Sentinel-1 scene, 8 px west of that of
        # Sentinel-2.
        west = 0 if sensor == "s1" else 8
        labeled = np.pad(ids, ((0, 0), (0, 8)), constant_values=255)[:, west:]
        assert np.array_equal(patch.label, labeled[row : row + SIZE, col : col + SIZE])


def test_quality_of_a_scene_alone_is_that_of_its_own_pixels(tmp_path):
    pixels = backscatter(48, 64)
    pixels[:, :4, :SIZE] = np.nan
    pixels[:, :6, SIZE : 2 * SIZE] = np.nan
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", pixels), S1_BANDS)
    first, second, third, *_ = cut_all((s1, absent_partner(s1)))
    assert first[1].quality == pytest.approx(0.75)
    assert (second.reason, second.detail) == (
        "s1_no_data",
        "S1_a: valid fraction 0.625 is below 0.7",
    )
    assert third[1].quality == 1.0


def test_labels_of_the_same_window_do_not_change_the_id(pair, tmp_path):
    label, _ = label_of(tmp_path, "l", 1)
    labeled = (pair[0], dataclasses.replace(pair[1], label=label))
    config = dataclasses.replace(CONFIG, label=LabelConfig(schema="water"))
    assert [p.patch_id for _, p in cut_all(labeled, config)] == [
        p.patch_id for _, p in cut_all(pair)
    ]


def test_windows_without_radar_are_refused(pair, tmp_path):
    first_id = cut_all(pair)[0][1].patch_id
    pixels = backscatter(48, 64)
    pixels[:, :SIZE, 8 : 8 + 6] = np.nan
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", pixels), S1_BANDS)
    first, *others = cut_all((s1, pair[1]))
    assert isinstance(first, Rejection)
    assert (first.kind, first.reason, first.is_error) == ("patches", "s1_no_data", False)
    assert first.detail == "S1_a: valid fraction 0.625 is below 0.7"
    assert not any(isinstance(other, Rejection) for other in others)
    assert first.id == first_id


def test_cloudy_windows_are_refused_by_the_mask(pair, tmp_path):
    mask = np.zeros((1, 48, 64), np.uint8)
    mask[0, :8, :SIZE] = 1
    mask[0, :4, SIZE : 2 * SIZE] = 1
    path = write_geotiff(tmp_path / "mask.tif", mask, transform=north_up(x=500_080.0))
    s2 = dataclasses.replace(pair[1], cloud_mask=str(path), cloud_fraction=0.9)
    first, second, *others = cut_all((pair[0], s2))
    assert (first.reason, first.detail) == ("cloudy", "S1_a: cloud fraction 0.500 is above 0.3")
    assert second[1].cloud_fraction == 0.25
    assert {patch.cloud_fraction for _, patch in others} == {0.0}


def test_without_mask_the_scenes_cloud_share_decides(pair):
    s2 = dataclasses.replace(pair[1], cloud_fraction=0.31)
    assert {result.reason for result in cut_all((pair[0], s2))} == {"cloudy"}
    config = dataclasses.replace(CONFIG, quality=QualityConfig(max_cloud_fraction=0.31))
    assert not any(isinstance(result, Rejection) for result in cut_all((pair[0], s2), config))


def test_windows_with_too_few_labels_are_refused(pair, tmp_path):
    label, ids = label_of(tmp_path, "l", 1)
    ids[:10, 8 : 8 + SIZE] = 255
    write_geotiff(tmp_path / "l.tif", ids[None])
    labeled = (pair[0], dataclasses.replace(pair[1], label=label))
    config = dataclasses.replace(
        CONFIG, label=LabelConfig(schema="water", min_labeled_fraction=0.5)
    )
    first, *others = cut_all(labeled, config)
    assert (first.reason, first.detail) == (
        "unlabeled",
        "S1_a: labelled fraction 0.375 is below 0.5",
    )
    assert not any(isinstance(other, Rejection) for other in others)


def test_ignored_classes_count_as_unlabeled(pair, tmp_path):
    ids = np.random.default_rng(1).integers(0, 9, (48, 64)).astype(np.uint8)
    ids[:, 32:] = 8
    path = write_geotiff(tmp_path / "l.tif", ids[None])
    label = LabelSource(path=str(path), schema="dynamic_world", nodata=None)
    labeled = (pair[0], dataclasses.replace(pair[1], label=label))
    config = dataclasses.replace(
        CONFIG,
        label=LabelConfig(
            schema="dynamic_world", ignore=("snow_and_ice", "water"), min_labeled_fraction=0.3
        ),
    )
    found = cut_all(labeled, config)
    kept = [patch.label for _, patch in (each for each in found if not isinstance(each, Rejection))]
    assert {each.reason for each in found if isinstance(each, Rejection)} == {"unlabeled"}
    assert {*np.unique(kept).tolist()} == {1, 2, 3, 4, 5, 6, 7, 255}
    # The shared columns begin at 8: the windows at 8 and 24 hold labels.
    expected = np.where(np.isin(ids, (0, 8)), 255, ids)
    assert np.array_equal(kept[0], expected[:SIZE, 8 : 8 + SIZE])


def test_windows_that_reach_into_another_split_are_refused(pair):
    config = BuildConfig(
        patch=PatchConfig(size_px=SIZE),
        split=SplitConfig(block_size_km=0.25, eval_fraction=0.33, test_fraction=0.33),
    )
    found = cut_all(pair, config)
    refused = [result for result in found if isinstance(result, Rejection)]
    kept = [result for result in found if not isinstance(result, Rejection)]
    assert refused
    assert kept
    assert {result.reason for result in refused} == {"straddles_splits"}
    for split, patch in kept:
        assert split == splits.split_of(patch.block, config.split)


def test_scenes_that_share_less_than_a_patch_give_no_task(pair, tmp_path):
    for name, (x, y) in {
        "right": (500_500.0, 5_000_000.0),
        "below": (500_000.0, 4_999_670.0),
    }.items():
        s2 = s2_scene(
            tmp_path / f"{name}.tif",
            digital_numbers(12, 48, 64),
            transform=north_up(x=x, y=y),
            dn_offset=0,
        )
        assert patches.tasks(pair[0], inspection.inspect(s2, S2_L2A_BANDS), CONFIG) == []


def test_scenes_must_be_inspected_first(pair):
    with pytest.raises(ValueError, match="must be inspected before they are cut: S1_a, S2_b"):
        patches.tasks(dataclasses.replace(pair[0], grid=None), pair[1], CONFIG)


def test_tasks_of_one_pair_have_names_of_their_own(pair):
    grid = pair[1].grid
    assert grid is not None
    strips = [grid.window(row, 0, SIZE, 56) for row in (0, 16, 32)]
    tasks = [patches.PairTask(s1=pair[0], s2=pair[1], strip=strip) for strip in strips]
    assert len({task.task_id for task in tasks}) == 3


@pytest.mark.parametrize("declaring", ["s1", "s2"])
def test_a_declared_split_of_either_scene_is_kept(pair, declaring):
    (hashed,) = {split for split, _ in cut_all(pair)}
    declared = "eval" if hashed == "test" else "test"
    s1, s2 = (
        dataclasses.replace(scene, split=declared)
        if scene.sensor == declaring
        else scene  # the other one says nothing
        for scene in pair
    )
    found = cut_all((s1, s2))
    assert {split for split, _ in found} == {declared}
    assert [patch.block for _, patch in found] == [patch.block for _, patch in cut_all(pair)]


def test_scenes_that_declare_different_splits_give_no_patch(pair):
    s1, s2 = dataclasses.replace(pair[0], split="train"), dataclasses.replace(pair[1], split="test")
    found = cut_all((s1, s2))
    assert {type(result) for result in found} == {Rejection}
    assert {result.reason for result in found} == {"straddles_splits"}
    assert found[0].detail == "S1_a: its scenes declare test and train"


def test_a_shift_between_the_sensors_is_recorded_scored_and_refused_beyond_the_limit(tmp_path):
    rng = np.random.default_rng(4)
    # Fields of 8 px with sharp borders, seen by the radar and, 3 px further east, by
    # the optical sensor.
    fields = np.kron(rng.uniform(0, 1, (10, 10)), np.ones((8, 8)))
    dn = (500 + 3000 * np.roll(fields, 3, axis=1) + rng.uniform(0, 50, (12, 80, 80))).astype(
        np.uint16
    )
    db = (-22 + 14 * fields + rng.normal(0, 0.5, (2, 80, 80))).astype(np.float32)
    s1 = inspection.inspect(s1_scene(tmp_path / "S1_a.tif", db), S1_BANDS)
    s2 = inspection.inspect(s2_scene(tmp_path / "S2_b.tif", dn, dn_offset=0), S2_L2A_BANDS)

    def only(**limits):
        config = dataclasses.replace(
            CONFIG, patch=PatchConfig(size_px=64), quality=QualityConfig(**limits)
        )
        (found,) = cut_all((s1, s2), config)
        return found

    in_time = 1 - 0.5 * 2 / 72
    _, patch = only()
    assert patch.offset_px == pytest.approx(3.0, abs=0.3)
    assert patch.quality == pytest.approx(in_time * (1 - patch.offset_px / 8))
    _, kept = only(max_offset_px=6.0)
    assert kept.quality == pytest.approx(in_time * (1 - kept.offset_px / 6))
    refused = only(max_offset_px=2.0)
    assert (refused.reason, refused.kind) == ("misregistered", "patches")
    _, unmeasured = only(measure_offset=False)
    assert math.isnan(unmeasured.offset_px)
    assert unmeasured.quality == pytest.approx(in_time)


def over_a_zone_border(folder, s1_zone: int, s2_zone: int, lon: float, lat: float):
    """A pair at the border of two UTM zones, each scene in its own zone.

    Both show smooth functions of the ground.
    """

    def ground(crs, transform, size):
        cols, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        x, y = transform * (cols, rows)
        to_plane = Transformer.from_crs(
            crs, f"+proj=aeqd +lat_0={lat} +lon_0={lon} +units=m", always_xy=True
        )
        return to_plane.transform(x, y)

    scenes = []
    for sensor, zone, size in (("s1", s1_zone, 96), ("s2", s2_zone, 80)):
        crs = f"EPSG:{zone}"
        x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
        transform = north_up(10.0, round(x, -1) - 5 * size, round(y, -1) + 5 * size)
        east, north = ground(crs, transform, size)
        writing = {"crs": crs, "transform": transform}
        if sensor == "s1":
            # 1 dB per 100 m: the largest second difference of power over a pixel is far
            # below 0.01 dB.
            pixels = np.stack([-12 + east / 100, -16 + north / 100]).astype(np.float32)
            scenes.append(
                inspection.inspect(s1_scene(folder / "S1_z.tif", pixels, **writing), S1_BANDS)
            )
        else:
            dn = np.stack(
                [2000 + east + 0 * north, 2000 + north, *(2000 + 0 * north for _ in range(10))]
            )
            made = s2_scene(
                folder / "S2_z.tif", np.rint(dn).astype(np.uint16), dn_offset=0, **writing
            )
            scenes.append(inspection.inspect(made, S2_L2A_BANDS))
    return scenes


@pytest.mark.parametrize(
    ("s1_zone", "s2_zone", "lon", "lat"),
    [
        (32632, 32633, 12.0, 55.0),
        (32633, 32632, 12.0, -5.0),
        (32701, 32760, 180.0, -17.0),
        (32760, 32701, -180.0, -17.0),
    ],
)
def test_scenes_of_two_utm_zones_show_one_ground_on_the_grid_of_sentinel_2(
    tmp_path, s1_zone, s2_zone, lon, lat
):
    pair = over_a_zone_border(tmp_path, s1_zone, s2_zone, lon, lat)
    tasks = patches.tasks(*pair, CONFIG)
    assert {task.strip.crs for task in tasks} == {f"EPSG:{s2_zone}"}
    kept = [found[1] for found in cut_all(pair) if isinstance(found, tuple)]
    assert len(kept) >= 12
    for patch in kept:
        east, north = (patch.s2[..., :2].transpose(2, 0, 1) * 10_000) - 2000
        assert np.nanmax(np.abs(patch.s1[..., 0] - (-12 + east / 100))) < 0.02
        assert np.nanmax(np.abs(patch.s1[..., 1] - (-16 + north / 100))) < 0.02
        assert abs((patch.lon - lon + 180) % 360 - 180) < 0.01
        assert patch.lat == pytest.approx(lat, abs=0.01)


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_gaps_of_one_sensor_drop_no_patch_of_a_task_that_uses_only_the_other(
    pair, tmp_path, sensor
):
    """The other image has no data in its upper half."""
    label, _ = label_of(tmp_path, "l", 1)
    radar, dn = backscatter(48, 64), digital_numbers(12, 48, 64)
    radar[:, :24], dn[:, :24] = np.nan, 0
    if sensor == "s2":
        gappy = s1_scene(tmp_path / "S1_a.tif", radar), pair[1]
    else:
        east = north_up(x=500_080.0)
        gappy = pair[0], s2_scene(tmp_path / "S2_b.tif", dn, transform=east, dn_offset=0)
    gappy = (
        dataclasses.replace(inspection.inspect(gappy[0], S1_BANDS), label=label),
        dataclasses.replace(inspection.inspect(gappy[1], S2_L2A_BANDS), label=label),
    )
    other = {"s1": "s2", "s2": "s1"}[sensor]

    def outcomes(*sensors):
        of_task = LabelConfig(schema="water", label_from=sensor, sensors=sensors)
        return cut_all(gappy, dataclasses.replace(CONFIG, label=of_task))

    dropped = [one.reason for one in outcomes() if isinstance(one, Rejection)]
    assert dropped == [f"{other}_no_data"] * 6
    kept = [one[1] for one in outcomes(sensor)]
    assert len(kept) == 9
    assert all(np.isfinite(patch.pixels(sensor)).all() for patch in kept)
    assert [float(np.isnan(patch.pixels(other)).mean()) for patch in kept] == [1.0] * 3 + [
        0.5
    ] * 3 + [0.0] * 3
    # The score is that of the sensor that the task uses.
    assert [patch.quality for patch in kept] == pytest.approx([1 - 0.5 * 2 / 72] * 9)
