"""What a model sees in `predict`: the pixels of the shards, and pairs by the builds' rules."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tensorflow as tf

from beam_jobs.build.driver import build_pairs
from beam_jobs.catalogs import catalog
from beam_jobs.config import CatalogConfig, PairingConfig
from beam_jobs.contracts import layout, locations, records
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.errors import DataError
from beam_jobs.predict import driver, graph, parts, segmenters
from beam_jobs.predict.windows import Lattice
from beam_jobs.scenes import grids, inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.networks import make_segmenter
from tests.data.scenes.real_samples import SAMPLES, needs_samples

pytestmark = pytest.mark.e2e
BANDS = {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B8")}


def scenes_of(path):
    """The inspected scenes of a catalog, by id."""
    found = [from_item(item, locations.parse(path)) for item in catalog.read_items(path)]
    return {one.scene_id: inspection.inspect(one, BANDS[one.sensor]) for one in found}


def shard_records(version):
    """The records of all shards of a version."""
    paths = [
        str(path)
        for split in ("train", "eval", "test")
        for path in layout.shard_paths(version, split)
    ]
    dataset = tf.data.TFRecordDataset(paths, compression_type="GZIP")
    return [records.decode(line) for line in dataset.as_numpy_iterator()]


def write_offset(path, offset):
    """Store all optical scenes as products with another offset, and declare it."""
    items = list(catalog.read_items(path))
    for item in items:
        if graph.sensor_of(item) == "s2":
            item["properties"]["terrapair:dn_offset"] = offset
            with rasterio.open(path.parent / item["assets"]["data"]["href"], "r+") as dataset:
                dn = dataset.read()
                dataset.write(np.where(dn == 0, 0, dn + offset).astype(dn.dtype))
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def test_a_model_sees_the_pixels_of_the_shards_whatever_the_baseline(
    simulated, copied, build_config, config, tmp_path, monkeypatch
):
    """The shards come from products without the 2022 offset, the maps from such with it.

    Each place has two dates, so the pairing rules have a choice.
    """
    pairing = PairingConfig(max_time_gap_hours=24 * 900)
    build = replace(
        build_config, patch=replace(build_config.patch, s2_bands=BANDS["s2"]), pairing=pairing
    )
    patches = shard_records(build_pairs(build, [simulated], tmp_path / "pairs"))
    write_offset(copied, 1000)
    folder = tmp_path / "model/1"
    folder.mkdir(parents=True)
    seen = []

    def see(pixels):
        seen.append(pixels)
        return np.zeros((*pixels["s1"].shape[:3], 2), np.float32)

    monkeypatch.setattr(segmenters, "load", lambda segmenter, **options: see)
    # One window holds a scene of 160 px and a margin around it.
    whole = replace(
        config,
        window=Lattice(size_px=256, margin_px=8, blend_px=4),
        part_height_px=160,
        part_width_px=160,
        pairing=pairing,
    )
    made = driver.predict(
        whole,
        segmenters.find(make_segmenter.write_card(folder, BANDS)),
        [copied],
        str(tmp_path / "maps"),
    )
    scenes = scenes_of(copied)
    # Windows come in the order of the maps, of which each has one.
    order = [tuple(path.name.split("+")) for path in made.maps]
    assert set(order) == {(one.s1_scene_id, one.s2_scene_id) for one in patches}
    assert len(seen) == len(order) == 6
    fed = {}
    for pixels in seen:
        for pair in order:
            expected = readers.read_bands(scenes[pair[1]], BANDS["s2"], scenes[pair[1]].grid)
            if np.array_equal(pixels["s2"][0, 8:168, 8:168], expected, equal_nan=True):
                fed[pair] = pixels
    assert set(fed) == set(order)
    for patch in patches:
        pair = patch.s1_scene_id, patch.s2_scene_id
        grid = scenes[pair[1]].grid
        x, y = grids.from_lonlat(grid.crs, patch.lon, patch.lat)
        col, row = (~grid.affine) * (x, y)
        # lon and lat are float32, which is precise to a metre.
        top, left = (8 + 16 * round(float(at) / 16) - 16 for at in (row, col))
        for sensor in BANDS:
            stored = getattr(patch, sensor)
            pixels = fed[pair][sensor][0, top : top + 32, left : left + 32]
            kept = records.dequantize(records.quantize(pixels, sensor), sensor)
            np.testing.assert_array_equal(kept, stored, err_msg=f"{pair} {row} {col}")
    assert len(patches) > 20


@pytest.fixture
def without_partner(copied, edit_items):
    """A catalog with a pair, and scenes of a place that lacks a sensor; the ids of these."""

    def drop(sensor):
        alone, paired = [], set()

        def edit(item):
            if "place-0000" not in item["id"]:
                is_first = "place-0001" in item["id"] and graph.sensor_of(item) not in paired
                paired.add(graph.sensor_of(item))
                return is_first
            if graph.sensor_of(item) == sensor:
                return False
            alone.append(item["id"])
            return True

        edit_items(copied, edit)
        return copied, alone

    return drop


@pytest.mark.parametrize("missing", ["s1", "s2"])
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["needs-both", "takes-one"])
def test_a_scene_without_partner_is_mapped_if_the_model_was_trained_for_it(
    without_partner, config, tmp_path, missing, dropout
):
    listed, alone = without_partner(missing)
    model = make_segmenter.publish(
        tmp_path / "model/1", BANDS, config={"modality_dropout": dropout}
    )
    made = driver.predict(config, segmenters.find(model), [listed], str(tmp_path / "maps"))
    mapped = {path.name for path in made.maps} & set(alone)
    if not dropout:
        assert mapped == set()
        assert made.num_rejected == {f"no_{missing}_partner": 2}
        return
    assert (mapped, made.num_rejected) == (set(alone), {})
    scenes = scenes_of(listed)
    for name in alone:
        scene = scenes[name]
        pixels = {scene.sensor: readers.read_bands(scene, BANDS[scene.sensor], scene.grid)}
        valid = np.isfinite(pixels[scene.sensor]).all(-1)
        # Pixels of the other sensor are no data, which the model counts as 0.
        with rasterio.open(tmp_path / "maps" / name / "probability.tif") as file:
            stored = file.read(2, masked=True)
        np.testing.assert_array_equal(~stored.mask, valid)
        np.testing.assert_allclose(
            (stored.data * parts.SHARE_PER_COUNT)[valid],
            make_segmenter.water(pixels)[valid],
            atol=0.0021,
        )


def test_a_sensor_that_no_catalog_lists_is_missed_only_where_it_is_needed(radar, config, tmp_path):
    listed = radar(1)
    (scene,) = catalog.read_items(listed)
    needs = make_segmenter.publish(tmp_path / "needs/1", BANDS)
    with pytest.raises(DataError, match="needs scenes of s1 and s2; scenes listed: s1 1"):
        driver.predict(config, segmenters.find(needs), [listed], str(tmp_path / "maps"))
    takes = make_segmenter.publish(tmp_path / "takes/1", BANDS, config={"modality_dropout": 0.5})
    made = driver.predict(config, segmenters.find(takes), [listed], str(tmp_path / "maps"))
    assert [path.name for path in made.maps] == [scene["id"]]


@needs_samples
@pytest.mark.parametrize(("sensor", "folder"), [("s1", "S1RTC"), ("s2", "S2L2A")])
def test_maps_of_real_scenes_lie_where_the_scenes_lie(config, tmp_path, sensor, folder):
    found = catalog.resolve_catalog(
        CatalogConfig(layout="terramesh", path=str(SAMPLES / "terramind")), tmp_path
    )
    model = make_segmenter.publish(tmp_path / "model/1", {sensor: BANDS[sensor]})
    made = driver.predict(config, segmenters.find(model), [found], str(tmp_path / "maps"))
    assert len(made.maps) == 5
    for one in made.maps:
        source = next(Path(SAMPLES, "terramind", folder).glob(f"{one.name.partition('_')[2]}.tif"))
        with rasterio.open(source) as scene, rasterio.open(one / "class.tif") as file:
            assert (file.crs, file.transform, file.shape) == (
                scene.crs,
                scene.transform,
                scene.shape,
            )
            ids = file.read(1)
            # The reflectance of L2A is stored as B1, B2, B3, B4, ..., B8 is the eighth.
            pixels = scene.read() if sensor == "s1" else scene.read([4, 8]) / 10000
        water = make_segmenter.water({sensor: np.moveaxis(pixels, 0, -1).astype(np.float32)})
        sure = (ids != parts.NO_DATA) & (np.abs(water - 0.6) > 1e-5)
        np.testing.assert_array_equal(ids[sure], (water > 0.6)[sure])
        assert sure.mean() > 0.99
