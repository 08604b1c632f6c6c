"""Exported time series: a miniature with the true band names, type and CRS, and real
files.
"""

from datetime import datetime, timezone

import numpy as np
import pytest
import rasterio

from beam_jobs.build import patches
from beam_jobs.build.driver import build_pairs
from beam_jobs.catalogs import ee_timeseries, layouts
from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.contracts.records import PairedPatch
from beam_jobs.scenes import inspection, readers
from tests.data.scenes.make_datasets import (
    built_patches,
    ee_band_names,
    make_ee_timeseries,
    partner_of,
    ramp_db,
    ramp_l1c,
    scenes_of,
    small_config,
)
from tests.data.scenes.make_rasters import write_geotiff
from tests.data.scenes.real_samples import SAMPLES, needs_samples

CONFIG = small_config(block_size_km=0.4)
S1_IMAGE = "S1A_IW_GRDH_1SDV_20230103T171525_20230103T171550_046616_0596C5_2F48"
S2_IMAGE = "20230105T101401_20230105T101356_T31UFS"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_ee_timeseries(tmp_path_factory.mktemp("series"))


def test_each_step_of_each_file_is_a_scene_of_either_sensor(folder):
    found = scenes_of("ee_timeseries", folder)
    assert len(found) == 4 * 3 * 2
    # 2020-01-01 to 2020-03-31 are 90 days: the middle of the second step is 45 days
    # after its begin.
    middle = int(datetime(2020, 2, 15, tzinfo=timezone.utc).timestamp())
    for sensor in ("s1", "s2"):
        scene = found[f"8-togo_2020-01-01_2020-03-31-0000000000-0000000080_{sensor}_01"]
        assert scene.acquired_at == middle
    assert scene.processing_level == "L1C"
    names = ee_band_names(3)
    assert {name: band.index for name, band in scene.bands.items()} == {
        name: names.index(f"{name}_1") + 1 for name in S2_L1C_BANDS
    }
    for item in ee_timeseries.read(folder):
        assert item.properties["terrapair:time_is_nominal"] is True
        assert item.properties["proj:code"] == "EPSG:4326"


def test_pixels_are_those_of_the_step(folder):
    found = scenes_of("ee_timeseries", folder)
    for step in range(3):
        s1 = inspection.inspect(found[f"9-togo_2020-01-01_2020-03-31_s1_{step:02d}"], ("VV", "VH"))
        s2 = inspection.inspect(found[f"9-togo_2020-01-01_2020-03-31_s2_{step:02d}"], S2_L1C_BANDS)
        assert s2.dn_offset == 0
        got = readers.read_bands(s1, ("VV", "VH"), s1.grid)
        np.testing.assert_allclose(got, ramp_db(80, 3 + step).transpose(1, 2, 0), rtol=0, atol=1e-5)
        got = readers.read_bands(s2, S2_L1C_BANDS, s1.grid)
        np.testing.assert_allclose(
            got, ramp_l1c(80, 3 + step).transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6
        )


@pytest.mark.e2e
def test_a_build_pairs_the_sensors_of_each_step(folder, tmp_path):
    _, found = built_patches(build_pairs, CONFIG, "ee_timeseries", folder, tmp_path)
    assert {patch.s1_scene_id for patch in found} == {
        name for name in scenes_of("ee_timeseries", folder) if "_s1_" in name
    }
    files = sorted(path.stem for path in folder.glob("*.tif"))
    for patch in found:
        assert patch.s2_scene_id == patch.s1_scene_id.replace("_s1_", "_s2_")
        seed = files.index(patch.s1_scene_id.rsplit("_", 2)[0]) + int(patch.s1_scene_id[-2:])
        # Bands of one pixel differ as the file's do, which resampling keeps.
        spread = (patch.s2[..., 5] - patch.s2[..., 1]) * 10_000
        assert spread == pytest.approx(np.full((16, 16), 200.0), abs=1.1)
        # From the first pixel of the file's step to its last one.
        low = 1000 + 200 * seed
        assert (
            low
            <= np.nanmin(patch.s2[..., 0]) * 10_000
            < np.nanmax(patch.s2[..., 0]) * 10_000
            <= low + 8 * 79
        )


def refusal_of(folder, name):
    """The reason and the detail of the only item of a folder."""
    (item,) = ee_timeseries.read(folder)
    assert item.id == name.removesuffix(".tif")
    refused = item.properties["terrapair:refused"]
    return refused["reason"], refused["detail"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("togo.tif", "its name needs the first day"),
        ("togo_2020-03-01_2020-03-01.tif", "must be after the first"),
    ],
)
def test_a_file_without_dates_is_named(tmp_path, name, message):
    write_geotiff(tmp_path / name, ramp_db(16), descriptions=("VV", "VV_1"))
    reason, detail = refusal_of(tmp_path, name)
    assert reason == "bad_item"
    assert detail.startswith(str(tmp_path / name))
    assert message in detail


def test_a_file_that_does_not_name_its_bands_is_refused(tmp_path):
    write_geotiff(tmp_path / "togo_2020-03-01.tif", ramp_db(16))
    reason, detail = refusal_of(tmp_path, "togo_2020-03-01.tif")
    assert reason == "unknown_band_order"
    assert "togo_2020-03-01.tif: no band is named like VV, B2, VV_1" in detail


def test_one_date_in_the_name_starts_months(tmp_path):
    path = tmp_path / "togo_2020-03-01.tif"
    times = ee_timeseries.step_times(path, 12)
    assert [time.month for time in times] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2]
    assert (times[0].day, times[-1].year) == (16, 2021)


def test_without_cirrus_band_a_series_is_surface_reflectance(tmp_path):
    path = write_geotiff(tmp_path / "x_2020-03-01.tif", ramp_db(16), descriptions=("B2", "B2_1"))
    assert [
        scene.processing_level for scene in scenes_of("ee_timeseries", path.parent).values()
    ] == ["L2A", "L2A"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("VV", "VH_1"), {0: {"s1": {"VV": "VV"}}, 1: {"s1": {"VH": "VH_1"}}}),
        (
            ("0_VV", "1_VV", "12_B8A"),
            {0: {"s1": {"VV": "0_VV"}}, 1: {"s1": {"VV": "1_VV"}}, 12: {"s2": {"B8A": "12_B8A"}}},
        ),
        (("20230105T101401_20230105T101356_T31UFS_B2",), "20230105T101401_20230105T101356_T31UFS"),
        (
            ("3_20230105T101401_20230105T101356_T31UFS_B12",),
            "3_20230105T101401_20230105T101356_T31UFS",
        ),
        (("20230105_B2",), "20230105"),
        (("2023_01_05_B2",), "2023_01_05"),
        (("angle", "mean_VV", "B99", "VV_1_2", "1_B2_3", "temperature_2m"), {}),
    ],
)
def test_steps_are_told_by_suffix_number_or_image_name(names, expected):
    steps = ee_timeseries.band_steps(names)
    assert (next(iter(steps)) if isinstance(expected, str) else steps) == expected


def test_a_stack_of_images_has_the_images_own_times(tmp_path):
    names = [f"{S1_IMAGE}_{name}" for name in ("VV", "VH")] + [
        f"{S2_IMAGE}_{name}" for name in S2_L1C_BANDS
    ]
    pixels = np.concatenate([ramp_db(32, 1), ramp_l1c(32, 1)])
    write_geotiff(tmp_path / "stack.tif", pixels, descriptions=names)
    assert layouts.detect(tmp_path) == "ee_timeseries"
    found = scenes_of("ee_timeseries", tmp_path)
    s1, s2 = found[f"stack_s1_{S1_IMAGE}"], found[f"stack_s2_{S2_IMAGE}"]
    assert s1.acquired_at == int(datetime(2023, 1, 3, 17, 15, 25, tzinfo=timezone.utc).timestamp())
    assert s2.acquired_at == int(datetime(2023, 1, 5, 10, 14, 1, tzinfo=timezone.utc).timestamp())
    s2 = inspection.inspect(s2, S2_L1C_BANDS)
    got = readers.read_bands(s2, S2_L1C_BANDS, s2.grid)
    np.testing.assert_allclose(got, ramp_l1c(32, 1).transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6)
    for item in ee_timeseries.read(tmp_path):
        assert "terrapair:time_is_nominal" not in item.properties


def test_files_of_one_band_each_are_one_image(tmp_path):
    for names, planes in ((("VV", "VH"), ramp_db(32, 2)), (S2_L1C_BANDS, ramp_l1c(32, 2))):
        for name, plane in zip(names, planes, strict=True):
            write_geotiff(tmp_path / f"togo_2020-01-01.0_{name}.tif", plane[None])
    found = scenes_of("ee_timeseries", tmp_path)
    assert set(found) == {"togo_2020-01-01_s1_00", "togo_2020-01-01_s2_00"}
    scene = inspection.inspect(found["togo_2020-01-01_s1_00"], ("VH", "VV"))
    got = readers.read_bands(scene, ("VH", "VV"), scene.grid)
    np.testing.assert_allclose(got, ramp_db(32, 2)[::-1].transpose(1, 2, 0), rtol=0, atol=1e-5)


def test_a_prefix_that_is_no_day_is_named(tmp_path):
    write_geotiff(tmp_path / "a.tif", ramp_db(16), descriptions=("20231399_VV", "20231399_VH"))
    _, detail = refusal_of(tmp_path, "a.tif")
    assert "a.tif: the name '20231399' holds no time" in detail


@pytest.mark.parametrize(
    ("stem", "time", "is_nominal"),
    [
        ("flood_2021-03-04", (2021, 3, 4, 12), True),
        ("S2_20210304", (2021, 3, 4, 12), True),
        ("2021_03_04_S1", (2021, 3, 4, 12), True),
        (S2_IMAGE, (2023, 1, 5, 10, 14, 1), False),
        (S1_IMAGE, (2023, 1, 3, 17, 15, 25), False),
        # Two days are the ends of a step, whose middle is the time.
        ("togo_2021-03-01_2021-03-31", (2021, 3, 16), True),
    ],
)
def test_an_export_of_one_date_is_found_and_has_that_time(tmp_path, stem, time, is_nominal):
    # A raster of something else that comes first does not hide the export.
    write_geotiff(tmp_path / "0_elevation.tif", ramp_db(16), descriptions=("elevation", "slope"))
    write_geotiff(
        tmp_path / f"{stem}.tif", ramp_db(16), descriptions=("VV", "VH"), nodata=float("nan")
    )
    assert layouts.detect(tmp_path) == "ee_timeseries"
    refused, item = ee_timeseries.read(tmp_path)
    assert refused.properties["terrapair:refused"]["reason"] == "unknown_band_order"
    assert item.datetime == datetime(*time, tzinfo=timezone.utc)
    assert bool(item.properties.get("terrapair:time_is_nominal")) == is_nominal


def test_one_bad_export_is_one_refused_scene(tmp_path):
    write_geotiff(tmp_path / "a_2020-03-01.tif", ramp_db(16))
    (tmp_path / "b_2020-03-01.tif").write_bytes(b"II*")
    write_geotiff(tmp_path / "c_2020-03-01.tif", ramp_db(16), descriptions=("VV", "VH"))
    found = {
        item.id: item.properties.get("terrapair:refused", {}).get("reason")
        for item in ee_timeseries.read(tmp_path)
    }
    assert found == {
        "a_2020-03-01": "unknown_band_order",
        "b_2020-03-01": "unreadable_raster",
        "c_2020-03-01_s1_00": None,
    }


@needs_samples
def test_the_real_files_give_the_numbers_that_rasterio_gives():
    found = scenes_of("ee_timeseries", SAMPLES / "ee_geotiff")
    assert len(found) == 2 * 12 + 2 * 24
    # Steps of 30 days from 2019-02-06.
    first = found["98-togo_2019-02-06_2020-02-01_s1_00"]
    assert first.acquired_at == int(datetime(2019, 2, 21, tzinfo=timezone.utc).timestamp())
    # Every read decodes all bands of all steps, so a few scenes of either sensor must
    # do.
    for scene in list(found.values())[::13]:
        checked = inspection.inspect(scene, tuple(scene.bands))
        pixels = readers.read_bands(checked, tuple(scene.bands), checked.grid)
        path = next(iter(scene.bands.values())).path
        suffix = f"_{int(scene.scene_id[-2:])}" if not scene.scene_id.endswith("00") else ""
        with rasterio.open(path) as dataset:
            indexes = [dataset.descriptions.index(name + suffix) + 1 for name in scene.bands]
            by_hand = dataset.read(indexes).transpose(1, 2, 0)
        if scene.sensor == "s1":
            assert np.array_equal(pixels, by_hand.astype(np.float32))
        else:
            assert checked.dn_offset == 0
            assert scene.processing_level == "L1C"
            np.testing.assert_allclose(pixels, by_hand / 10_000, rtol=0, atol=1e-6)


@needs_samples
def test_the_real_files_give_a_patch_a_step():
    found = scenes_of("ee_timeseries", SAMPLES / "ee_geotiff")
    s2 = [scene for scene in found.values() if scene.sensor == "s2"]
    kept = []
    first_steps = [name for name in found if name.endswith("_s1_00")]
    for name in first_steps:
        scene = found[name]
        partner, why = partner_of(scene, s2, CONFIG.pairing)
        assert partner == name.replace("_s1_", "_s2_"), why
        pair = (
            inspection.inspect(scene, ("VV", "VH")),
            inspection.inspect(found[partner], S2_L1C_BANDS),
        )
        for task in patches.tasks(*pair, CONFIG):
            for _, patch in patches.cut(task, CONFIG):
                assert type(patch) is PairedPatch
                assert -25 < np.nanmedian(patch.s1[..., 0]) < -3
                kept.append(patch.s1_scene_id)
    # 17 pixels of a degree grid are 16.4 of 10 m at 15 degrees north and, cut along the
    # UTM grid, 15 whole ones in Togo.
    assert sorted(kept) == [name for name in first_steps if name.startswith("min_lat=14.9517")]
