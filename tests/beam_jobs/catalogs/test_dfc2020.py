"""DFC2020: the contest's folders and Copernicus-Bench's, from the catalog to the shards."""

import dataclasses

import numpy as np
import pytest

from beam_jobs.build.driver import build_labels
from beam_jobs.catalogs import dfc2020, layouts
from beam_jobs.config import HoldoutConfig, LabelConfig, SplitConfig
from beam_jobs.contracts import labels
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, label_rasters, readers
from tests.data.scenes.make_datasets import (
    COPERNICUS_BENCH_LISTS,
    built_patches,
    check_land_cover_patch,
    land_cover,
    make_copernicus_bench_dfc2020,
    make_dfc2020,
    ramp_db,
    read_split,
    scenes_of,
    small_config,
)

# The fixtures write rasters without a place on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CONFIG = small_config(
    label=LabelConfig(
        schema="igbp8", min_labeled_fraction=0.1, required_classes=("forest", "urban")
    )
)


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    return make_dfc2020(tmp_path_factory.mktemp("dfc2020"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_copernicus_bench_dfc2020(tmp_path_factory.mktemp("copernicus-bench"))


def number_of(scene_id):
    return int(scene_id.rsplit("_p", 1)[1])


@pytest.mark.e2e
def test_the_labels_are_those_of_the_dfc_files(contest, tmp_path):
    found = scenes_of("dfc2020", contest)
    assert len(found) == 2 * 4
    assert {scene.split for scene in found.values()} == {None}
    assert {scene.label.schema for scene in found.values()} == {"igbp10"}
    _, patches = built_patches(build_labels, CONFIG, "dfc2020", contest, tmp_path)
    assert {patch.s1_scene_id for patch in patches} == {name for name in found if "_s1_" in name}
    for patch in patches:
        number = number_of(patch.s1_scene_id)
        check_land_cover_patch(patch, number, land_cover(64, 10, number), labels.IGBP10)


def test_both_arrangements_are_told_apart_from_other_data_sets(contest, bench):
    # Copernicus-Bench's has s1 and s2 side by side, as BigEarthNet has.
    assert layouts.detect(contest) == layouts.detect(bench) == "dfc2020"


def test_items_name_the_folder_that_publications_give_opposite_roles(contest):
    parts = {item.id: item.properties["terrapair:part"] for item in dfc2020.read(contest)}
    assert {part for name, part in parts.items() if "_validation_" in name} == {"validation"}
    assert {part for name, part in parts.items() if "_test_" in name} == {"test"}


def test_patches_declare_the_split_of_their_list_and_those_of_no_list_are_left_out(bench):
    found = {name: scene.split for name, scene in scenes_of("dfc2020", bench).items()}
    wanted = {"train": "train", "val": "eval", "test": "test"}
    assert found == {
        f"ROIs0000_test_{sensor}_0_p{patch}": wanted[name]
        for name, patches in COPERNICUS_BENCH_LISTS.items()
        for patch in patches
        for sensor in ("s1", "s2")
    }


def test_lists_beside_the_contest_folders_and_given_ones_are_read_too(contest, tmp_path):
    given = tmp_path / "test.txt"
    given.write_text("ROIs0000_validation_dfc_0_p5.tif\nROIs0000_test_dfc_0_p0.tif\n")
    found = {item.id: item.properties["terrapair:split"] for item in dfc2020.read(contest, [given])}
    assert set(found) == {
        f"ROIs0000_{name}"
        for s in ("s1", "s2")
        for name in (f"validation_{s}_0_p5", f"test_{s}_0_p0")
    }
    assert set(found.values()) == {"test"}
    given.write_text("ROIs0000_test_p0\n")
    with pytest.raises(
        DataError, match=r"test.txt: must list scenes .* or patches, got 'ROIs0000_test_p0'"
    ):
        list(dfc2020.read(contest, [given]))


def test_patches_that_lost_their_place_get_one_each_that_both_sensors_and_the_label_share(bench):
    found = scenes_of("dfc2020", bench)
    pixels, corners = {}, {}
    for name, scene in found.items():
        if "_s1_" in name:
            s1 = inspection.inspect(scene, ("VV", "VH"))
            partner = found[name.replace("_s1_", "_s2_")]
            assert inspection.inspect(partner, ("B2",)).grid == s1.grid
            corners[name] = s1.grid.bounds
            pixels[name] = readers.read_bands(s1, ("VV", "VH"), s1.grid)
            ids = land_cover(64, 10, number_of(name))
            assert np.array_equal(
                label_rasters.read(scene.label, "igbp10", s1.grid), np.where(ids == 0, 255, ids)
            )
    assert len(set(corners.values())) == len(corners) == 8
    for name, values in pixels.items():
        np.testing.assert_allclose(
            values, ramp_db(64, number_of(name) % 9).transpose(1, 2, 0), rtol=0, atol=1e-5
        )
    for item in dfc2020.read(bench):
        assert item.properties["terrapair:place_is_nominal"] is True


def test_patches_with_a_place_keep_it(contest):
    for item in dfc2020.read(contest):
        assert item.properties["proj:code"] == "EPSG:32737"
        assert "terrapair:place_is_nominal" not in item.properties


@pytest.mark.e2e
def test_a_build_keeps_the_splits_of_the_lists(bench, tmp_path):
    version, patches = built_patches(build_labels, CONFIG, "dfc2020", bench, tmp_path)
    for split, name in (("train", "train"), ("eval", "val"), ("test", "test")):
        found = {number_of(patch.s1_scene_id) for patch in read_split(version, split)}
        assert found == set(COPERNICUS_BENCH_LISTS[name])
    for patch in patches:
        assert patch.s2_scene_id == patch.s1_scene_id.replace("_s1_", "_s2_")
        number = number_of(patch.s1_scene_id)
        check_land_cover_patch(patch, number % 9, land_cover(64, 10, number), labels.IGBP10)


@pytest.mark.e2e
@pytest.mark.parametrize("part", ["validation", "test"])
def test_either_folder_can_be_the_test_split_by_a_holdout(contest, tmp_path, part):
    holdout = HoldoutConfig(
        name=f"dfc2020-{part}", split="test", property="terrapair:part", values=(part,)
    )
    split = SplitConfig(
        block_size_km=0.3, eval_fraction=0.5, test_fraction=0.0, holdouts=(holdout,)
    )
    config = dataclasses.replace(CONFIG, split=split)
    version, _ = built_patches(build_labels, config, "dfc2020", contest, tmp_path)
    for name in ("train", "eval", "test"):
        parts = {patch.s1_scene_id.split("_")[1] for patch in read_split(version, name)}
        assert parts == ({part} if name == "test" else {"validation", "test"} - {part})


def test_a_patch_that_cannot_be_read_is_refused_by_its_own_name(contest, tmp_path):
    make_copernicus_bench_dfc2020(tmp_path)
    broken = tmp_path / "s1" / "ROIs0000_test_s1_0_p609.tif"
    broken.write_bytes(b"II*\0 and no more")
    (item,) = [item for item in dfc2020.read(tmp_path) if item.id == broken.stem]
    assert item.properties["terrapair:refused"]["reason"] == "unreadable_raster"
    assert str(broken) in item.properties["terrapair:refused"]["detail"]
