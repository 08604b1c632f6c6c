"""SSL4EO-S12 v1.1 and sharded TerraMesh: true names, types and CRS, up to the shards."""

import numpy as np
import pytest

from beam_jobs.build.driver import build_pairs
from beam_jobs.build.input_hashes import content_sha256
from beam_jobs.catalogs import zarr_shards
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.scenes import inspection, label_rasters, readers
from tests.data.scenes.make_datasets import built_patches, scenes_of, small_config, write_catalog
from tests.data.scenes.make_exports import (
    BATCH,
    SAMPLES,
    cloud_classes,
    make_ssl4eo_v11,
    make_terramesh_shards,
    shard_arrays,
    stored_pixels,
    write_shard,
)

BANDS = {
    "S1GRD": S1_DEFAULT_BANDS,
    "S1RTC": S1_DEFAULT_BANDS,
    "S2L1C": S2_L1C_BANDS,
    "S2L2A": S2_L2A_BANDS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_ssl4eo_v11(tmp_path_factory.mktemp("ssl4eo_v11"))


def physical(modality: str, seed: int) -> np.ndarray:
    """[H, W, C] in dB or reflectance."""
    pixels = stored_pixels(modality, seed).astype(np.float64).transpose(1, 2, 0)
    return pixels if modality.startswith("S1") else pixels / 10_000


def test_each_location_and_season_of_a_batch_is_a_scene_with_its_time(folder):
    found = scenes_of("ssl4eo_v11", folder)
    assert len(found) == 3 * 3 * 2
    # 2020-06-07 01:08:08 UTC; the second season is 90 days later, the third location 2
    # s.
    assert found["S1GRD_0080717_0"].acquired_at == 1591492088
    assert found["S1GRD_0179869_1"].acquired_at == 1591492088 + 90 * 86400 + 2
    assert found["S2L1C_0080717_0"].acquired_at == 1591249599
    assert {name[:5]: scene.dn_offset for name, scene in found.items()} == {
        "S1GRD": None,
        "S2L1C": 1000,
        "S2L2A": 1000,
    }


@pytest.mark.parametrize("modality", ["S1GRD", "S2L1C", "S2L2A"])
def test_pixels_are_those_of_the_store_without_the_offset(folder, modality):
    found = scenes_of("ssl4eo_v11", folder)
    for index, sample in enumerate(SAMPLES):
        scene = inspection.inspect(found[f"{modality}_{sample}_1"], BANDS[modality])
        got = readers.read_bands(scene, BANDS[modality], scene.grid)
        assert got == pytest.approx(physical(modality, index + 3), abs=1e-6)


def test_thin_cloud_thick_cloud_shadow_and_no_data_are_not_clear(folder):
    scene = inspection.inspect(scenes_of("ssl4eo_v11", folder)["S2L2A_0060573_1"], S2_L2A_BANDS)
    got = readers.read_cloud_mask(scene.cloud_mask, scene.grid, scene.clear_values)
    assert np.array_equal(got, cloud_classes(1 + 3) >= 3)


def test_a_shard_gives_a_scene_a_sample_with_land_cover_and_without_offset(tmp_path):
    found = scenes_of("terramesh_shards", make_terramesh_shards(tmp_path))
    assert sorted(found) == [
        f"{m}_majortom_val_000000{i}_0" for m in ("S1RTC", "S2L2A") for i in range(2)
    ]
    assert found["S1RTC_majortom_val_0000001_0"].acquired_at == 1591492088 + 1
    for seed in range(2):
        for modality in ("S1RTC", "S2L2A"):
            scene = inspection.inspect(
                found[f"{modality}_majortom_val_000000{seed}_0"], BANDS[modality]
            )
            got = readers.read_bands(scene, BANDS[modality], scene.grid)
            assert got == pytest.approx(physical(modality, seed), abs=1e-6)
        ids = shard_arrays("LULC", seed)["bands"][1][0, 0]
        label = label_rasters.read(scene.label, "dynamic_world", scene.grid)
        assert np.array_equal(label == 0, ids == 1)
        assert np.array_equal(label == 255, (ids == 0) | (ids == 8))


def test_shards_of_ssl4eo_have_lost_the_offset_of_the_batches(tmp_path):
    arrays = shard_arrays("S2L2A", 0)
    write_shard(
        tmp_path / "train" / "S2L2A" / "ssl4eos12_shard_000001.tar",
        {"ssl4eos12_0000001.zarr.zip": arrays},
    )
    scene = scenes_of("ssl4eo_v11", tmp_path)["S2L2A_ssl4eos12_0000001_0"]
    assert scene.dn_offset == 0


def test_one_bad_store_is_one_bad_scene_that_says_what_the_store_has(tmp_path):
    broken = shard_arrays("S2L2A", 0)
    broken["acquired"] = broken.pop("time")
    stores = {"a.zarr.zip": broken, "b.zarr.zip": shard_arrays("S2L2A", 1)}
    write_shard(tmp_path / "val" / "S2L2A" / "majortom_shard_000001.tar", stores)
    found = {item.id: item for item in zarr_shards.read_terramesh_shards(tmp_path)}
    assert set(found) == {"S2L2A_a", "S2L2A_b_0"}
    refused = found["S2L2A_a"].properties["terrapair:refused"]
    assert (
        "#a.zarr.zip/bands: has no array 'time'; it has acquired, band, bands" in refused["detail"]
    )


def test_a_batch_that_was_written_again_changes_the_catalogs_hash(folder, tmp_path):
    make_ssl4eo_v11(tmp_path / "data")
    catalog = write_catalog("ssl4eo_v11", tmp_path / "data", tmp_path / "items.ndjson")
    before = content_sha256([catalog])
    path = tmp_path / "data" / "val" / "S1GRD" / BATCH
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert content_sha256([catalog]) != before


@pytest.mark.e2e
def test_a_build_pairs_the_sensors_of_each_location(folder, tmp_path):
    _, found = built_patches(build_pairs, small_config("L2A"), "ssl4eo_v11", folder, tmp_path)
    assert {patch.s1_scene_id for patch in found} == {
        f"S1GRD_{s}_{t}" for s in SAMPLES for t in range(2)
    }
    for patch in found:
        assert patch.s2_scene_id == patch.s1_scene_id.replace("S1GRD", "S2L2A")
        assert patch.time_gap_hours == pytest.approx(-67.36, abs=0.02)
        # Both ramps rise by the same steps; float16 keeps dB to 0.01.
        difference = patch.s2[..., 0] * 10_000 - (patch.s1[..., 0] + 22) * 100
        assert difference == pytest.approx(np.zeros((16, 16)), abs=3)
