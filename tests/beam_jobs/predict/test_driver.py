"""Maps of whole scenes; the oracle is one pass of the model over the scene."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from beam_jobs.catalogs import catalog
from beam_jobs.contracts import locations, settings
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.errors import DataError
from beam_jobs.predict import driver, ensembles, graph, parts, pictures, products, segmenters
from beam_jobs.predict.windows import Lattice
from beam_jobs.scenes import grids, inspection, readers
from beam_jobs.scenes.scene import from_item
from beam_jobs.storage import files
from tests.data.networks import make_segmenter
from tests.data.servers import stac_validator


def scenes_of(path, sensor="s1", bands=S1_DEFAULT_BANDS):
    """The inspected scenes of a catalog, by id."""
    items = [item for item in catalog.read_items(path) if graph.sensor_of(item) == sensor]
    found = [inspection.inspect(from_item(item, locations.parse(path)), bands) for item in items]
    return {scene.scene_id: scene for scene in found}


def predict(config, model, catalogs, output, version=None):
    return driver.predict(config, segmenters.find(model, version), catalogs, output)


def digests(root):
    """The content of all maps of a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).glob("*/*"))
    }


@pytest.fixture
def masked(copied):
    """A copy of the catalog in which one radar scene has a corner without data."""
    path = next(iter(scenes_of(copied).values())).bands["VV"].path
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, :60, :90] = np.nan
        dataset.write(pixels)
    return copied


def test_a_map_is_what_one_pass_over_the_scene_says(masked, flood, config, tmp_path):
    made = predict(config, flood, [masked], str(tmp_path / "maps"))
    scenes = scenes_of(masked)
    assert [path.name for path in made.maps] == sorted(scenes)
    assert made.num_rejected == {}
    num_hidden = 0
    for folder in made.maps:
        scene = scenes[folder.name]
        pixels = readers.read_bands(scene, S1_DEFAULT_BANDS, scene.grid)
        valid = np.isfinite(pixels).all(-1)
        num_hidden += int((~valid).sum())
        water = make_segmenter.water({"s1": pixels})
        with rasterio.open(folder / "probability.tif") as file:
            assert file.descriptions == ("dry", "water")
            assert file.scales == (parts.SHARE_PER_COUNT,) * 2
            assert file.crs == rasterio.crs.CRS.from_string(scene.grid.crs)
            assert tuple(file.transform)[:6] == scene.grid.transform
            stored = file.read(2, masked=True)
        np.testing.assert_array_equal(~stored.mask, valid)
        shares = stored.data * parts.SHARE_PER_COUNT
        np.testing.assert_allclose(shares[valid], water[valid], atol=0.0021)
        with rasterio.open(folder / "class.tif") as file:
            ids = file.read(1)
            assert file.colormap(1)[1] == (0x1F, 0x5F, 0xBF, 255)
            assert file.tags()["TERRAPAIR_CLASSES"] == "0 dry, 1 water"
        # Only a pixel whose probability is the threshold itself may differ.
        sure = valid & (np.abs(water - 0.6) > 1e-5)
        np.testing.assert_array_equal(ids[sure], (water > 0.6)[sure])
        assert (ids[~valid] == parts.NO_DATA).all()
        with rasterio.open(folder / "uncertainty.tif") as file:
            entropy = file.read(1) * parts.SHARE_PER_COUNT
        two = np.stack([water, 1 - water])
        expected = -(two * np.log2(two)).sum(0)
        np.testing.assert_allclose(entropy[valid], expected[valid], atol=0.0021)
    assert num_hidden >= 60 * 90


def test_an_ensemble_maps_the_mean_of_its_models_and_where_they_differ(
    masked, flood, config, tmp_path
):
    bias = 1.5
    other = make_segmenter.publish(tmp_path / "flood/13", {"s1": S1_DEFAULT_BANDS}, bias=bias)
    segmenter = ensembles.combine([segmenters.find(flood), segmenters.find(other)])
    settings_of = replace(config, uncertainty="disagreement", probability_dtype="float16")
    made = driver.predict(settings_of, segmenter, [masked], str(tmp_path / "maps"))
    num_hidden = 0
    for folder in made.maps:
        scene = scenes_of(masked)[folder.name]
        pixels = readers.read_bands(scene, S1_DEFAULT_BANDS, scene.grid)
        valid = np.isfinite(pixels).all(-1)
        num_hidden += int((~valid).sum())
        members = np.stack([make_segmenter.water({"s1": pixels}, one) for one in (0.0, bias)])
        with rasterio.open(folder / "probability.tif") as file:
            assert np.isnan(file.nodata)
            assert file.scales == (1.0, 1.0)
            assert file.tags(2, ns="IMAGE_STRUCTURE")["NBITS"] == "16"
            shares = file.read(2)
            np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(np.isfinite(shares), valid)
        np.testing.assert_allclose(shares[valid], members.mean(0)[valid], atol=5e-4)
        with rasterio.open(folder / "class.tif") as file:
            ids = file.read(1)
        sure = valid & (np.abs(members.mean(0) - 0.6) > 1e-4)
        np.testing.assert_array_equal(ids[sure], (members.mean(0) > 0.6)[sure])
        assert (ids[~valid] == parts.NO_DATA).all()

        def entropy(water):
            two = np.stack([water, 1 - water])
            return -(two * np.log2(two)).sum(0)

        with rasterio.open(folder / "uncertainty.tif") as file:
            assert file.descriptions == ("entropy", "mutual information", "standard deviation")
            found = file.read(masked=True) * parts.SHARE_PER_COUNT
        of_mean = entropy(members.mean(0))
        for band, expected in zip(
            found, (of_mean, of_mean - entropy(members).mean(0), members.std(0)), strict=True
        ):
            np.testing.assert_array_equal(~band.mask, valid)
            np.testing.assert_allclose(band.data[valid], expected[valid], atol=0.0025)
        for path in folder.glob("*.tif"):
            assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    assert num_hidden >= 60 * 90
    model = json.loads((tmp_path / "maps/model.json").read_text())
    assert stac_validator.errors(model) == []
    assert [one["terrapair:model_version"] for one in model["assets"].values()] == ["12", "13"]
    item = json.loads((made.maps[0] / "item.json").read_text())
    assert stac_validator.errors(item) == []
    assert item["properties"]["terrapair:model_version"] == "12+13"
    assert (
        item["assets"]["probability"]["raster:bands"]
        == [{"data_type": "float16", "nodata": "nan"}] * 2
    )


@pytest.mark.e2e
def test_maps_on_an_object_store_have_the_same_bytes(radar, flood, config, tmp_path, s3_folder):
    def contents(made):
        """The content of all files, also of hidden ones."""
        root = os.fspath(made.collection.parent)
        return {path[len(root) :]: files.read_bytes(path) for path in files.list_files(root)}

    polygons = replace(config, polygons=replace(config.polygons, classes=("water",)))
    here = predict(polygons, flood, [radar(1)], str(tmp_path))
    move = files.move_files

    def move_one(source, target, names):
        move(source, target, names[:1])
        raise OSError("the store is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "move_files", move_one)
        with pytest.raises(OSError, match="the store is away"):
            predict(polygons, flood, [radar(1)], s3_folder)
    # One of the files is at its place, the others are written, and the parts are gone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "predict", None)
        patch.setattr(products, "write", None)
        there = predict(polygons, flood, [radar(1)], s3_folder)
    assert contents(there) == contents(here)
    assert list(map(str, there.maps)) == [f"{s3_folder}/{path.name}" for path in here.maps]
    # All is there: nothing is read or written again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "predict", None)
        assert predict(polygons, flood, [radar(1)], s3_folder) == there
    with pytest.raises(DataError, match="holds maps of other settings"):
        predict(config, flood, [radar(1)], s3_folder)


def test_an_attempt_that_another_one_overtook_rejects_nothing(
    radar, flood, config, tmp_path, monkeypatch
):
    write, job_of, jobs = products.write, graph.job_of, []

    def overtaken(task, segmenter, config, *_, **__):
        monkeypatch.setattr(products, "write", write)
        key = task.map_id, task.made_from
        # The other attempt writes all files, and removes the parts that this one reads.
        for names in products.groups(segmenter, config):
            assert graph._write(((key, names), [task]), jobs[0]) == (key, task)
        raise DataError("a part cannot be read")

    def noted(*arguments):
        jobs.append(job_of(*arguments))
        return jobs[-1]

    monkeypatch.setattr(products, "write", overtaken)
    monkeypatch.setattr(graph, "job_of", noted)
    made = predict(config, flood, [radar(1)], str(tmp_path))
    assert len(made.maps) == 1
    assert made.rejected == ()
    assert not (tmp_path / ".rejected").exists()


def test_a_map_is_described_by_a_stac_item(simulated, flood, config, tmp_path):
    polygons = replace(config.polygons, classes=("water",))
    made = predict(replace(config, polygons=polygons), flood, [simulated], str(tmp_path))
    collection = pystac.Collection.from_file(str(made.collection))
    items = list(collection.get_items())
    assert [item.id for item in items] == sorted(scenes_of(simulated))
    scene = scenes_of(simulated)[items[0].id]
    assert int(items[0].datetime.timestamp()) == scene.acquired_at
    assert items[0].ext.proj.code == scene.grid.crs
    assert tuple(items[0].ext.proj.transform) == scene.grid.transform
    found = items[0].assets["class"].ext.classification.classes
    assert [(one.value, one.name, one.color_hint) for one in found] == [
        (0, "dry", "D9C9A3"),
        (1, "water", "1F5FBF"),
    ]
    assert items[0].properties["terrapair:model_version"] == "12"
    west, south, east, north = items[0].bbox
    lon, lat = grids.to_lonlat(scene.grid.crs, *np.reshape(scene.grid.bounds, (2, 2)).T)
    assert west <= lon.min() <= lon.max() <= east
    assert south <= lat.min() <= lat.max() <= north
    for asset in items[0].assets.values():
        assert Path(asset.get_absolute_href()).stat().st_size > 0
    assert made.page.read_text().count("/map.png") == len(items)
    assert (tmp_path / "overview.png").stat().st_size > 0
    documents = [made.collection, tmp_path / "model.json", *tmp_path.glob("*/item.json")]
    for path in documents:
        document = json.loads(path.read_text())
        assert stac_validator.errors(document) == []
    # The check can fail, of STAC and of an extension.
    item = json.loads((tmp_path / items[0].id / "item.json").read_text())
    assert stac_validator.errors(item | {"links": "none"})
    assert stac_validator.errors(item | {"properties": item["properties"] | {"proj:shape": [1]}})
    model = pystac.Item.from_file(str(tmp_path / "model.json"))
    assert items[0].get_single_link("derived_from").get_absolute_href() == model.get_self_href()
    assert items[0].get_collection().id == collection.id
    asset = model.assets["model"]
    assert Path(asset.get_absolute_href()).resolve() == Path(flood).resolve() / "12"
    assert asset.extra_fields["terrapair:model_sha256"] == segmenters.find(flood).sha256
    assert model.properties["mlm:input"][0]["bands"] == list(S1_DEFAULT_BANDS)


def test_a_run_goes_on_where_it_was_killed(few, flood, config, tmp_path, monkeypatch):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    predict(config, flood, [few], str(undisturbed))
    predict_part, calls = parts.predict, []

    def kill_after(number):
        def predict_or_die(*args, **options):
            if len(calls) == number:
                raise SystemExit("killed")
            calls.append(args[-1])
            predict_part(*args, **options)

        monkeypatch.setattr(parts, "predict", predict_or_die)

    num_parts = 2 * 9
    for number in (5, 11, num_parts + 1):
        kill_after(number)
        if number < num_parts:
            with pytest.raises(BaseException, match="killed"):
                predict(config, flood, [few], str(killed))
            assert not list(killed.glob("*/.*.partial"))
        else:
            predict(config, flood, [few], str(killed))
    # No part was predicted twice.
    assert len(calls) == len(set(calls)) == num_parts
    assert digests(killed) == digests(undisturbed)
    assert {path.name for path in killed.iterdir() if path.name.startswith(".")} <= {
        ".predicting.lock"
    }
    # All is there: nothing is predicted again, but for a scene that has changed.
    path = next(iter(scenes_of(few).values())).bands["VV"].path
    predict(config, flood, [few], str(killed))
    assert len(calls) == num_parts
    os.utime(path, (1, 1))
    kill_after(num_parts + 99)
    predict(config, flood, [few], str(killed))
    assert len(calls) == num_parts + 9


def test_a_scene_that_is_declared_otherwise_is_mapped_again(
    few, flood, config, tmp_path, edit_items
):
    predict(config, flood, [few], str(tmp_path / "maps"))
    before = digests(tmp_path / "maps")
    changed = next(iter(scenes_of(few)))

    def declare(item):
        if item["id"] == changed:
            item["properties"]["datetime"] = "2020-02-02T02:02:02Z"

    edit_items(few, declare)
    predict(config, flood, [few], str(tmp_path / "maps"))
    after = digests(tmp_path / "maps")
    assert {name.split("/")[0] for name in before if before[name] != after[name]} == {changed}


def test_a_scene_that_changes_while_it_is_read_gives_no_map(
    few, flood, config, tmp_path, monkeypatch
):
    scene, predict_part = next(iter(scenes_of(few).values())), parts.predict

    def touch_and_predict(task, *args, **options):
        if task.map_id == scene.scene_id:
            os.utime(scene.bands["VV"].path, (1, 1))
        predict_part(task, *args, **options)

    monkeypatch.setattr(parts, "predict", touch_and_predict)
    made = predict(config, flood, [few], str(tmp_path / "maps"))
    assert made.num_rejected == {"input_changed": 1}
    assert scene.scene_id not in {path.name for path in made.maps}


def test_a_folder_without_maps_takes_other_settings(few, flood, config, tmp_path):
    for scene in scenes_of(few).values():
        Path(scene.bands["VV"].path).rename(f"{scene.bands['VV'].path}.away")
    with pytest.raises(DataError, match="no scene gave a map"):
        predict(config, flood, [few], str(tmp_path / "maps"))
    for path in few.parent.rglob("*.away"):
        path.rename(str(path).removesuffix(".away"))
    made = predict(replace(config, part_width_px=99), flood, [few], str(tmp_path / "maps"))
    assert len(made.maps) == 2


def test_one_bad_scene_is_named_and_the_others_get_maps(few, flood, config, tmp_path):
    bad, *others = scenes_of(few).items()
    Path(bad[1].bands["VV"].path).write_bytes(b"no raster")
    made = predict(config, flood, [few], str(tmp_path / "maps"))
    assert [path.name for path in made.maps] == sorted(name for name, _ in others)
    assert made.num_rejected == {"unreadable_raster": 1}
    (line,) = (tmp_path / "maps/rejected/scenes.ndjson").read_text().splitlines()
    assert json.loads(line)["id"] == bad[0]
    # Mended, it gets its map by the same command.
    shutil.copy(others[0][1].bands["VV"].path, bad[1].bands["VV"].path)
    items = {item["id"]: item for item in catalog.read_items(few)}
    items[bad[0]] |= {key: items[others[0][0]][key] for key in ("geometry", "bbox")}
    few.write_text("".join(json.dumps(item) + "\n" for item in items.values()))
    made = predict(config, flood, [few], str(tmp_path / "maps"))
    assert bad[0] in {path.name for path in made.maps}
    assert not (tmp_path / "maps/rejected").exists()


def test_a_scene_that_is_lost_before_its_picture_gives_no_map(
    simulated, flood, config, tmp_path, monkeypatch
):
    lost, draw = next(iter(scenes_of(simulated))), pictures.draw

    def draw_or_fail(class_file, task, *args):
        if task.map_id == lost:
            raise DataError("gone", "unreadable_raster")
        draw(class_file, task, *args)

    monkeypatch.setattr(pictures, "draw", draw_or_fail)
    made = predict(config, flood, [simulated], str(tmp_path))
    assert [(row["id"], row["reason"]) for row in made.rejected] == [(lost, "unreadable_raster")]
    assert lost not in {path.name for path in made.maps}
    assert len(made.maps) == 5


def test_scenes_that_all_fail_are_an_error_with_the_reason(few, flood, config, tmp_path):
    for scene in scenes_of(few).values():
        Path(scene.bands["VV"].path).write_bytes(b"no raster")
    with pytest.raises(DataError, match=r"no scene gave a map .unreadable_raster 2.; the first: "):
        predict(config, flood, [few], str(tmp_path / "maps"))


def test_a_model_of_both_sensors_sees_pairs_and_scenes_alone(
    simulated, both, config, tmp_path, edit_items
):
    shutil.copytree(simulated.parent, tmp_path / "scenes")
    listed = tmp_path / "scenes" / simulated.name
    radar = list(scenes_of(listed))
    alone = radar[0]
    partner = []

    def drop_partner(item):
        """Leave out the optical scenes of one place."""
        place = alone.rpartition("_")[2]
        if graph.sensor_of(item) == "s2" and item["id"].endswith(place):
            partner.append(item["id"])
            return False
        return True

    edit_items(listed, drop_partner)
    made = predict(config, both, [listed], str(tmp_path / "maps"))
    names = [path.name for path in made.maps]
    assert partner
    assert alone in names
    pairs = [name for name in names if "+" in name]
    assert len(pairs) + sum(name in radar for name in names) == len(names)
    s1, s2 = scenes_of(listed), scenes_of(listed, "s2", ("B4", "B8"))
    for name in pairs:
        radar_id, optical_id = name.split("+")
        grid = grids.common_grid(s2[optical_id].grid, s1[radar_id].grid, 10.0)
        pixels = {
            "s1": readers.read_bands(s1[radar_id], S1_DEFAULT_BANDS, grid),
            "s2": readers.read_bands(s2[optical_id], ("B4", "B8"), grid),
        }
        valid = np.any([np.isfinite(one).all(-1) for one in pixels.values()], axis=0)
        with rasterio.open(made.collection.parent / name / "probability.tif") as file:
            stored = file.read(2, masked=True)
        np.testing.assert_array_equal(~stored.mask, valid)
        np.testing.assert_allclose(
            (stored.data * parts.SHARE_PER_COUNT)[valid],
            make_segmenter.water(pixels)[valid],
            atol=0.0021,
        )


def test_a_folder_of_another_model_or_other_settings_is_refused(radar, flood, config, tmp_path):
    predict(config, flood, [radar(1)], str(tmp_path))
    with pytest.raises(DataError, match=r"holds maps of another model \(flood 12\)") as caught:
        predict(config, flood, [radar(1)], str(tmp_path), version=3)
    assert caught.value.exit_code == 2
    with pytest.raises(DataError, match="holds maps of other settings"):
        predict(replace(config, part_width_px=99), flood, [radar(1)], str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": 7}, DataError, "has no version 7; complete versions are: 3, 12"),
        ({"model": "nowhere"}, DataError, "holds no published model"),
        (
            {"window": Lattice(size_px=50, margin_px=8, blend_px=4)},
            settings.SettingsError,
            "window.size_px must be a multiple of the model's stride 4, got 50",
        ),
        ({"classes": ("ice",)}, settings.SettingsError, "no class 'ice'; it has dry, water"),
        (
            {"uncertainty": "disagreement"},
            settings.SettingsError,
            "uncertainty 'disagreement' needs several answers: name several models",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_pixel_is_read(
    simulated, flood, config, tmp_path, changes, error, message
):
    config = replace(
        config, **{key: changes[key] for key in ("window", "uncertainty") if key in changes}
    )
    if "classes" in changes:
        config = replace(config, polygons=replace(config.polygons, classes=changes["classes"]))
    model = str(tmp_path / changes["model"]) if "model" in changes else flood
    with pytest.raises(error, match=message):
        predict(
            config,
            model,
            [simulated],
            str(tmp_path / "maps"),
            version=changes.get("version"),
        )
    assert not (tmp_path / "maps").exists()


def test_a_model_without_its_sensor_or_task_is_refused(simulated, flood, config, tmp_path):
    optical = make_segmenter.publish(tmp_path / "optical/1", {"s2": ("B4",)})
    only_radar = tmp_path / "items.ndjson"
    radar = [
        item
        for item in simulated.read_text().splitlines()
        if graph.sensor_of(json.loads(item)) == "s1"
    ]
    only_radar.write_text("\n".join(radar) + "\n")
    with pytest.raises(DataError, match="needs scenes of s2; scenes listed: s1 6"):
        predict(config, optical, [only_radar], str(tmp_path / "maps"))
    encoder = make_segmenter.publish(tmp_path / "encoder/1", {"s1": ("VV",)}, task="pretraining")
    with pytest.raises(DataError, match=r"must be a segmenter, .* task 'pretraining'"):
        predict(config, encoder, [simulated], str(tmp_path / "maps"))


def test_a_damaged_model_is_one_line(simulated, flood, config, tmp_path):
    broken = Path(shutil.copytree(Path(flood) / "12", tmp_path / "1"))
    (broken / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"1: the SavedModel cannot be read .*publish it again"):
        predict(config, str(broken), [simulated], str(tmp_path / "maps"))
