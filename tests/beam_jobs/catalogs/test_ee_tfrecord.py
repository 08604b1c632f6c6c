"""TFRecord exports as catalogs: a miniature with mixer, patches without, and real
files.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from rasterio.windows import Window

from beam_jobs.build.driver import build_pairs
from beam_jobs.catalogs import layouts
from beam_jobs.catalogs.catalog import read_items
from beam_jobs.contracts import manifest
from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import inspection, label_rasters, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes.make_datasets import built_patches, small_config, write_catalog
from tests.data.scenes.make_exports import export_planes, make_ee_tfrecord, write_export
from tests.data.scenes.real_samples import SAMPLES, needs_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_ee_tfrecord(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def catalog(folder, tmp_path_factory):
    return write_catalog("ee_tfrecord", folder, tmp_path_factory.mktemp("catalog") / "items.ndjson")


def test_an_export_with_mixer_reads_like_the_image_it_was_cut_from(catalog):
    items = {item["id"]: item for item in read_items(catalog)}
    for step in range(2):
        planes = export_planes((48, 72), step)
        for sensor, bands in (("s1", ("VV", "VH")), ("s2", S2_L1C_BANDS)):
            scene = from_item(items[f"togo_2020-01-01_2020-03-01_{sensor}_{step:02d}"], catalog)
            scene = inspection.inspect(scene, bands)
            assert (scene.grid.height, scene.grid.width) == (48, 72)
            got = readers.read_bands(scene, bands, scene.grid)
            expected = np.stack([planes[name] for name in bands], axis=-1)
            assert got == pytest.approx(expected if sensor == "s1" else expected / 10_000, abs=1e-5)
    # The middle of 30 days from 2020-01-01 on.
    assert (
        items["togo_2020-01-01_2020-03-01_s1_00"]["properties"]["datetime"]
        == "2020-01-16T00:00:00Z"
    )


def test_masked_radar_pixels_are_no_data_in_each_polarization_alone(tmp_path):
    planes = export_planes((48, 72), 0)
    planes["VV"] = np.where(np.arange(72) < 5, 0.0, planes["VV"])
    write_export(tmp_path, "a_2020-01-01", planes)
    catalog = write_catalog("ee_tfrecord", tmp_path, tmp_path / "items.ndjson")
    item = next(item for item in read_items(catalog) if "_s1_" in item["id"])
    scene = inspection.inspect(from_item(item, catalog), ("VV", "VH"))
    got = readers.read_bands(scene, ("VV", "VH"), scene.grid)
    assert np.isnan(got[:, :5, 0]).all()
    assert np.isfinite(got[:, 5:, 0]).all()
    assert np.isfinite(got[..., 1]).all()


def test_one_bad_export_is_one_bad_scene(folder, tmp_path):
    make_ee_tfrecord(tmp_path)
    mixer = tmp_path / "togo_2020-01-01_2020-03-01-mixer.json"
    mixer.write_text(json.dumps({**json.loads(mixer.read_text()), "totalPatches": 15}))
    catalog = write_catalog("ee_tfrecord", tmp_path, tmp_path / "items.ndjson")
    items = {item["id"]: item for item in read_items(catalog)}
    assert len(items) == 1 + 2
    with pytest.raises(DataError, match="says 15 patches, the 2 TFRecord files beside it hold 9"):
        from_item(items["togo_2020-01-01_2020-03-01"], catalog)


def test_patches_without_a_place_are_listed_with_their_files_and_refused(catalog):
    items = [item for item in read_items(catalog) if item["id"].startswith("training")]
    assert [item["id"] for item in items] == [
        f"training_data-00000-of-00001_0000{i}_s2" for i in range(2)
    ]
    for item in items:
        with pytest.raises(DataError, match="the patch has no coordinates") as error:
            from_item(item, catalog)
        assert error.value.reason == "unlocated"


def test_a_mixer_may_have_the_name_of_the_export_alone(tmp_path):
    planes = export_planes((48, 72), 1)
    planes["landcover"] = np.random.default_rng(0).integers(0, 9, (48, 72)).astype(np.float32)
    mixer = write_export(tmp_path, "flood_2020-01-01", planes, margin=4)
    mixer = mixer.rename(tmp_path / "flood_2020-01-01.json")
    # JSON of something else is no mixer.
    (tmp_path / "notes.json").write_text('{"projection": "none"}')
    (tmp_path / "list.json").write_text("[]")
    assert layouts.detect(tmp_path) == "ee_tfrecord"
    catalog = write_catalog("ee_tfrecord", tmp_path, tmp_path / "out" / "items.ndjson")
    items = {item["id"]: item for item in read_items(catalog)}
    assert set(items) == {"flood_2020-01-01_s1_00", "flood_2020-01-01_s2_00"}
    item = items["flood_2020-01-01_s1_00"]
    assert item["assets"]["data"]["type"] == "application/vnd.tfrecord; profile=earth-engine"
    # As an image, by its own item too, and as a label.
    item["assets"] = {
        "data": {"href": str(mixer), "bands": [{"name": "VH"}, {"name": "VV"}]},
        "label": {"href": f"{mixer}#landcover", "terrapair:label_schema": "dynamic_world"},
    }
    scene = inspection.inspect(from_item(item, catalog), ("VV", "VH"))
    got = readers.read_bands(scene, ("VV", "VH"), scene.grid)
    expected = np.stack([planes["VV"], planes["VH"]], axis=-1)
    valid = expected.any(axis=-1)
    np.testing.assert_allclose(got[valid], expected[valid], rtol=0, atol=1e-5)
    label = label_rasters.read(scene.label, "dynamic_world", scene.grid)
    assert np.array_equal(label, planes["landcover"].astype(np.uint8))


@pytest.mark.e2e
def test_a_build_pairs_the_sensors_of_an_export_and_counts_what_has_no_place(tmp_path):
    make_ee_tfrecord(tmp_path)
    write_export(
        tmp_path, "wide_2021-01-01", export_planes((128, 192), 2), patch=(32, 64), margin=2, files=3
    )
    config = small_config(block_size_km=0.4, max_rejected_fraction=0.0)
    version, patches = built_patches(build_pairs, config, "ee_tfrecord", tmp_path, tmp_path / "out")
    assert {patch.s1_scene_id for patch in patches} >= {"wide_2021-01-01_s1_00"}
    for patch in patches:
        assert patch.s2_scene_id == patch.s1_scene_id.replace("_s1_", "_s2_")
        # Both ramps rise by the same steps a pixel.
        difference = patch.s2[..., 0] * 10_000 - (patch.s1[..., 0] + 22) * 100
        # 0 dB exactly is what an export writes where it has nothing; the ramp meets it
        # in single pixels.
        valid = np.isfinite(difference)
        assert valid.mean() > 0.98
        assert difference[valid] == pytest.approx(np.zeros(valid.sum()), abs=1.5)
    assert manifest.read(version).num_rejected["unlocated"] == 2


@needs_samples
def test_the_real_patches_give_the_numbers_that_tensorflow_gives(tmp_path):
    catalog = write_catalog("ee_tfrecord", SAMPLES / "ee_tfrecord", tmp_path / "items.ndjson")
    by_file: dict[str, list] = {}
    for item in read_items(catalog):
        assert item["properties"]["terrapair:refused"]["reason"] == "unlocated"
        by_file.setdefault(item["assets"]["data"]["href"].rpartition("#")[0], []).append(item)
    assert len(by_file) == 6
    num_records = 0
    for path, items in by_file.items():
        spec = {
            name: tf.io.FixedLenFeature([16, 16], tf.float32)
            for name in (*S2_L1C_BANDS, "landcover")
        }
        records = tf.data.TFRecordDataset(path, "GZIP").map(
            lambda raw, spec=spec: tf.io.parse_single_example(raw, spec)
        )
        by_hand = list(records.as_numpy_iterator())
        assert len(by_hand) == len(items)
        num_records += len(by_hand)
        for item, expected in list(zip(items, by_hand, strict=True))[::20]:
            bands = {
                band["name"]: band["terrapair:key"] for band in item["assets"]["data"]["bands"]
            }
            assert tuple(bands) == S2_L1C_BANDS
            with open_raster(item["assets"]["data"]["href"]) as raster:
                indexes = [raster.descriptions.index(key) + 1 for key in bands.values()]
                assert np.array_equal(
                    raster.read(indexes), np.stack([expected[name] for name in bands])
                )
                part = raster.read(indexes[:1], window=Window(3, 2, 5, 4))
                assert np.array_equal(part[0], expected["B1"][2:6, 3:8])
            with open_raster(item["assets"]["label"]["href"]) as raster:
                assert np.array_equal(raster.read([1])[0], expected["landcover"])
    assert num_records == 25 + 5 + 5 + 102 + 1 + 16
