"""TerraMesh: a miniature with the true names and types, and real files if present."""

import math

import numpy as np
import pytest
import rasterio

from beam_jobs.catalogs import terramesh
from beam_jobs.config import PairingConfig
from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.judging import pairing
from beam_jobs.scenes import inspection, label_rasters, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes.make_datasets import make_terramesh, partner_of, scenes_of
from tests.data.scenes.make_rasters import UTM, backscatter, digital_numbers, write_geotiff
from tests.data.scenes.real_samples import SAMPLES, needs_samples


def test_a_terramesh_folder_gives_one_item_a_file_with_the_times_of_the_tags(tmp_path):
    found = scenes_of("terramesh", make_terramesh(tmp_path))
    assert sorted(found) == sorted(
        f"{kind}_{name}"
        for kind in ("S1RTC", "S2L1C", "S2L2A")
        for name in ("12D_34L_0_1", "7U_8R_2_2")
    )
    s1, s2 = found["S1RTC_7U_8R_2_2"], found["S2L1C_7U_8R_2_2"]
    assert s1.acquired_at == 1626856810
    # 2021-07-23 13:22:41 UTC, from the label's tag.
    assert s2.acquired_at == 1627046561
    assert pairing.time_gap_hours(s1, s2) == pytest.approx(52.7086, abs=1e-3)
    assert list(s1.bands) == ["VV", "VH"]
    assert tuple(s2.bands) == S2_L1C_BANDS
    assert tuple(found["S2L2A_7U_8R_2_2"].bands) == S2_L2A_BANDS


def test_terramesh_scenes_read_in_physical_units_with_the_offset_removed(tmp_path):
    found = scenes_of("terramesh", make_terramesh(tmp_path))
    offsets = {name: found[name].dn_offset for name in found if name.startswith("S2")}
    assert set(offsets.values()) == {None, 0}
    l1c = inspection.inspect(found["S2L1C_7U_8R_2_2"], S2_L1C_BANDS)
    assert l1c.dn_offset == 1000
    assert l1c.grid is not None
    got = readers.read_bands(l1c, S2_L1C_BANDS, l1c.grid)
    np.testing.assert_allclose(
        got, digital_numbers(13, 40, 40, 1).transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6
    )
    s1 = inspection.inspect(found["S1RTC_7U_8R_2_2"], ("VV", "VH"))
    got = readers.read_bands(s1, ("VV", "VH"), l1c.grid)
    assert np.array_equal(got, backscatter(40, 40, 1).transpose(1, 2, 0))


def test_terramesh_label_0_means_no_label(tmp_path):
    found = scenes_of("terramesh", make_terramesh(tmp_path))
    scene = inspection.inspect(found["S2L2A_12D_34L_0_1"], S2_L2A_BANDS)
    stored = np.random.default_rng(0).integers(0, 10, (40, 40))
    got = label_rasters.read(scene.label, "dynamic_world", scene.grid)
    assert np.array_equal(got == 255, (stored == 0) | (stored == 8))
    assert np.array_equal(got == 0, stored == 1)


def refused(folder) -> dict[str, str]:
    """Scene id -> why, of the items that a catalog step could not fill; the others are whole."""
    found = {}
    for item in terramesh.read(folder):
        try:
            from_item(item.to_dict(include_self_link=False), folder / "items.ndjson")
        except DataError as error:
            found[item.id] = str(error)
    return found


def test_a_terramesh_scene_without_label_file_is_two_bad_scenes_not_the_end_of_the_catalog(
    tmp_path,
):
    make_terramesh(tmp_path)
    (tmp_path / "LULC" / "7U_8R_2_2.tif").unlink()
    found = refused(tmp_path)
    assert set(found) == {"S2L1C_7U_8R_2_2", "S2L2A_7U_8R_2_2"}
    path = tmp_path / "LULC" / "7U_8R_2_2.tif"
    assert set(found.values()) == {f"{path}: is missing, and the scene's time is in it"}


@pytest.mark.parametrize("text", [None, "in July"])
def test_a_terramesh_file_without_a_time_is_named(tmp_path, text):
    make_terramesh(tmp_path)
    path = tmp_path / "S1RTC" / "7U_8R_2_2.tif"
    path.unlink()
    write_geotiff(
        path, backscatter(40, 40).astype(np.float64), tags={"datetime": text} if text else {}
    )
    found = refused(tmp_path)
    assert set(found) == {"S1RTC_7U_8R_2_2"}
    assert found["S1RTC_7U_8R_2_2"].startswith(f"{path}: ")
    assert "datetime" in found["S1RTC_7U_8R_2_2"]


def test_an_unreadable_raster_is_one_bad_scene(tmp_path):
    make_terramesh(tmp_path)
    path = tmp_path / "S2L2A" / "7U_8R_2_2.tif"
    path.write_bytes(b"no raster")
    found = refused(tmp_path)
    assert set(found) == {"S2L2A_7U_8R_2_2"}
    assert found["S2L2A_7U_8R_2_2"].startswith(f"{path}: cannot read the raster")


def test_items_say_where_the_raster_is(tmp_path):
    item = next(iter(terramesh.read(make_terramesh(tmp_path))))
    assert item.properties["proj:code"] == UTM
    assert item.properties["proj:shape"] == [40, 40]
    assert item.properties["proj:transform"] == [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0]
    # Central meridian of zone 33 is 15 degrees east; 400 m are about 0.005 degrees of
    # longitude there.
    assert item.bbox[0] == pytest.approx(15.0, abs=1e-6)
    assert item.bbox[2] - item.bbox[0] == pytest.approx(
        400 / (111_195 * math.cos(math.radians(45.15))), rel=0.01
    )


@needs_samples
def test_the_real_terramind_files_carry_the_offset_in_three_of_five():
    found = scenes_of("terramesh", SAMPLES / "terramind")
    checked = {name: inspection.inspect(scene, tuple(scene.bands)) for name, scene in found.items()}
    assert len(checked) == 15
    offsets = {
        name.split("_")[1]: scene.dn_offset
        for name, scene in checked.items()
        if name.startswith("S2L1C")
    }
    assert offsets == {"282D": 1000, "433D": 1000, "609U": 1000, "38D": 0, "637U": 0}
    assert {scene.dn_offset for name, scene in checked.items() if name.startswith("S2L2A")} == {0}
    for name, scene in checked.items():
        pixels = readers.read_bands(scene, tuple(scene.bands), scene.grid)
        assert pixels.shape == (224, 224, len(scene.bands)), name
        assert np.isfinite(pixels).all(), name
        if scene.processing_level == "L1C":
            assert np.median(pixels[..., S2_L1C_BANDS.index("B10")]) < 0.02, name
        if scene.sensor == "s1":
            assert -30 < np.median(pixels) < 0, name


@needs_samples
def test_the_real_terramind_files_give_the_numbers_that_rasterio_gives():
    for scene in scenes_of("terramesh", SAMPLES / "terramind").values():
        names = tuple(scene.bands)
        scene = inspection.inspect(scene, names)
        with rasterio.open(scene.bands[names[0]].path) as dataset:
            by_hand = dataset.read().transpose(1, 2, 0).astype(np.float64)
        got = readers.read_bands(scene, names, scene.grid)
        if scene.sensor == "s1":
            assert np.array_equal(got, by_hand.astype(np.float32))
        else:
            # A pixel as dark as the offset, or darker, gets the smallest valid value,
            # because 0 would mean no data.
            np.testing.assert_allclose(
                got, np.maximum(by_hand - scene.dn_offset, 1) / 10_000, rtol=0, atol=1e-6
            )


@needs_samples
def test_the_real_terramind_offset_is_found_without_reading_b10_into_patches():
    names = tuple(name for name in S2_L1C_BANDS if name != "B10")
    found = scenes_of("terramesh", SAMPLES / "terramind")
    offsets = [
        inspection.inspect(s, names).dn_offset
        for name, s in sorted(found.items())
        if name.startswith("S2L1C")
    ]
    assert sorted(offsets) == [0, 0, 1000, 1000, 1000]


@needs_samples
def test_the_real_terramind_pairs_are_hours_to_days_apart():
    found = scenes_of("terramesh", SAMPLES / "terramind")
    s2 = [scene for scene in found.values() if scene.processing_level == "L2A"]
    for name, scene in found.items():
        if scene.sensor == "s1":
            partner, why = partner_of(scene, s2, PairingConfig(max_time_gap_hours=90))
            assert partner == name.replace("S1RTC", "S2L2A"), why
            best = found[partner]
            assert 4 < abs(pairing.time_gap_hours(scene, best)) < 84
            label = label_rasters.read(
                best.label, "dynamic_world", inspection.inspect(best, S2_L2A_BANDS).grid
            )
            assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 6, 7, 8, 255}
