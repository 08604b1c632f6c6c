"""SEN12MS: miniatures with the true names, types, CRS and bands, from the catalog to the shards."""

import numpy as np
import pytest

from beam_jobs.build.driver import build_labels
from beam_jobs.catalogs import sen12ms
from beam_jobs.config import LabelConfig
from beam_jobs.contracts import labels, manifest
from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.scenes import inspection, label_rasters, readers
from tests.data.scenes.make_datasets import (
    built_patches,
    check_land_cover_patch,
    land_cover,
    make_sen12ms,
    ramp_db,
    ramp_l1c,
    scenes_of,
    small_config,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sen12ms(tmp_path_factory.mktemp("sen12ms"))


def test_both_sensors_have_the_middle_of_their_season(folder):
    found = scenes_of("sen12ms", folder)
    assert len(found) == 2 * 6
    # 2017-04-15 and 2017-01-15, 12:00 UTC.
    assert {scene.acquired_at for name, scene in found.items() if "spring" in name} == {1492257600}
    assert {scene.acquired_at for name, scene in found.items() if "winter" in name} == {1484481600}
    for item in sen12ms.read_sen12ms(folder):
        assert item.properties["terrapair:time_is_nominal"] is True
        assert item.properties["proj:code"] == "EPSG:32737"


def test_pixels_and_the_first_label_band_are_those_of_the_files(folder):
    found = scenes_of("sen12ms", folder)
    s1 = inspection.inspect(found["ROIs1158_spring_s1_106_p31"], ("VV", "VH"))
    s2 = inspection.inspect(found["ROIs1158_spring_s2_106_p31"], S2_L1C_BANDS)
    assert s1.grid == s2.grid
    seed = 10 * 106 + 31 + 20_000
    got = readers.read_bands(s1, ("VV", "VH"), s1.grid)
    np.testing.assert_allclose(got, ramp_db(64, seed % 7).transpose(1, 2, 0), rtol=0, atol=1e-5)
    got = readers.read_bands(s2, S2_L1C_BANDS, s1.grid)
    np.testing.assert_allclose(
        got, ramp_l1c(64, seed % 7).transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6
    )
    ids = land_cover(64, 17, seed)
    assert set(np.unique(ids)) == set(range(18))
    for scene in (s1, s2):
        got = label_rasters.read(scene.label, "igbp17", s1.grid)
        assert np.array_equal(got, np.where(ids == 0, 255, ids))
    got = label_rasters.read(s2.label, "water", s1.grid)
    assert np.array_equal(got == 1, ids == 17)
    assert np.array_equal(got == 255, np.isin(ids, [0, 11, 15]))


CONFIG = small_config(label=LabelConfig(schema="igbp8", min_labeled_fraction=0.1))


@pytest.mark.e2e
def test_a_build_pairs_each_patch_with_its_own_partner_though_neighbours_overlap(folder, tmp_path):
    version, patches = built_patches(build_labels, CONFIG, "sen12ms", folder, tmp_path)
    assert {patch.s1_scene_id for patch in patches} == {
        name for name in scenes_of("sen12ms", folder) if "_s1_" in name
    }
    for patch in patches:
        assert patch.s2_scene_id == patch.s1_scene_id.replace("_s1_", "_s2_")
        assert patch.time_gap_hours == 0.0
        season, scene, number = patch.s1_scene_id.split("_")[1], *patch.s1_scene_id.split("_")[3:]
        x = 20_000 if scene == "106" else 0
        seed = 10 * int(scene) + int(number[1:]) + x
        assert season in ("spring", "winter")
        check_land_cover_patch(patch, seed % 7, land_cover(64, 17, seed), labels.IGBP17)
    rejected = manifest.read(version).num_rejected
    # What two neighbours both show is used once.
    assert set(rejected) <= {"straddles_splits", "duplicate_patch"}
    assert len(patches) + sum(rejected.values()) == 6 * 16


def test_a_patch_without_land_cover_has_no_label(folder, tmp_path):
    make_sen12ms(tmp_path)
    (tmp_path / "ROIs1158_spring" / "lc_1" / "ROIs1158_spring_lc_1_p30.tif").unlink()
    found = scenes_of("sen12ms", tmp_path)
    assert found["ROIs1158_spring_s2_1_p30"].label is None
    assert found["ROIs1158_spring_s2_1_p31"].label is not None
