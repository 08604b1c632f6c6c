"""Whole builds: what appears, what is refused, and that nothing half-written is ever visible."""

import dataclasses
import functools
import hashlib
import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tensorflow as tf

from beam_jobs import config as c
from beam_jobs.build import choice, patches, spool, writers
from beam_jobs.build.driver import Execution, build_labels, build_pairs
from beam_jobs.contracts import layout, manifest, records
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.errors import DataError
from beam_jobs.scenes import grids
from tests.data.runs.repository import REPOSITORY

pytestmark = pytest.mark.e2e


def read_split(version: Path, split: str) -> list[records.PairedPatch]:
    files = [str(path) for path in layout.shard_paths(version, split)]
    return [
        records.decode(raw.numpy())
        for raw in tf.data.TFRecordDataset(files, compression_type="GZIP")
    ]


def digests(version: Path) -> dict[str, str]:
    return {
        str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(version.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def pairs(simulated, tmp_path_factory) -> Path:
    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.05, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
        shards=c.ShardConfig(num_examples_per_shard=20),
    )
    return build_pairs(config, [simulated], tmp_path_factory.mktemp("pairs"))


def test_manifest_counts_hashes_and_statistics_are_those_of_the_shards(pairs):
    found = manifest.read(pairs)
    assert set(found.shards) == {str(p.relative_to(pairs)) for p in pairs.rglob("*.tfrecord.gz")}
    for name, entry in found.shards.items():
        assert hashlib.sha256((pairs / name).read_bytes()).hexdigest() == entry.sha256
    for split in layout.SPLITS:
        assert len(read_split(pairs, split)) == found.num_examples[split] > 0
    train = np.concatenate(
        [patch.s1.reshape(-1, 2) for patch in read_split(pairs, "train")]
    ).astype(np.float64)
    for channel, statistics in enumerate(found.s1_statistics):
        values = train[:, channel][np.isfinite(train[:, channel])]
        assert statistics.num_pixels == values.size
        # The shards hold dB in steps of 0.01, the statistics are of the pixels before
        # that rounding.
        assert statistics.mean == pytest.approx(values.mean(), abs=1e-3)
        assert statistics.std == pytest.approx(values.std(), abs=1e-3)
        assert statistics.p50 == pytest.approx(np.median(values), abs=0.05)


def test_no_data_travels_as_no_data(pairs, simulated):
    patches = [patch for split in layout.SPLITS for patch in read_split(pairs, split)]
    empty = [np.isnan(patch.s1).any() for patch in patches]
    assert any(empty), "the scenes have swath edges, so some patches must"
    assert not all(empty)
    for patch in patches:
        # One band may measure 0 dB; both at once is how a filled gap would look.
        assert not (patch.s1 == 0.0).all(axis=-1).any()
        assert np.nanmax(patch.s1) < 30.0


def test_kept_and_rejected_patches_are_all_that_the_scenes_hold(pairs):
    found = manifest.read(pairs)
    rejected = [
        json.loads(line)
        for line in (pairs / "rejected" / "patches.ndjson").read_text().splitlines()
    ]
    # 6 pairs of 160 px scenes: 5 x 5 patches of 32 px each.
    assert sum(found.num_examples.values()) + len(rejected) == 6 * 25
    assert all(row["reason"] and row["detail"] for row in rejected)


def test_a_block_is_in_one_split_only(pairs):
    blocks = {split: {patch.block for patch in read_split(pairs, split)} for split in layout.SPLITS}
    assert not blocks["train"] & blocks["eval"]
    assert not blocks["train"] & blocks["test"]
    assert not blocks["eval"] & blocks["test"]


def test_same_bytes_whatever_the_number_of_workers(pairs, simulated, build_config, tmp_path):
    two = dataclasses.replace(
        build_config, shards=dataclasses.replace(build_config.shards, num_workers=2)
    )
    assert digests(build_pairs(two, [simulated], tmp_path)) == digests(pairs)


def test_unchanged_input_builds_nothing_and_changed_config_a_new_version(
    simulated, build_config, tmp_path
):
    first = build_pairs(build_config, [simulated], tmp_path)
    before = first.stat().st_mtime_ns
    assert build_pairs(build_config, [simulated], tmp_path) == first
    assert first.stat().st_mtime_ns == before
    changed = dataclasses.replace(build_config, pairing=c.PairingConfig(max_time_gap_hours=71.0))
    assert build_pairs(changed, [simulated], tmp_path) == layout.version_dir(tmp_path, 1, 2)


def test_labels_belong_to_the_date_of_the_sensor_that_the_config_names(
    simulated, build_config, tmp_path
):
    label = c.LabelConfig(schema="water", label_from="s1", min_labeled_fraction=0.0)
    version = build_labels(dataclasses.replace(build_config, label=label), [simulated], tmp_path)
    found = manifest.read(version)
    assert found.label_schema == "water"
    patches = [patch for split in layout.SPLITS for patch in read_split(version, split)]
    counted: dict[int, int] = {}
    for patch in patches:
        for value, count in zip(*np.unique(patch.label, return_counts=True), strict=True):
            counted[int(value)] = counted.get(int(value), 0) + int(count)
    assert set(counted) <= {0, 1, IGNORE}
    for label_id in (0, 1):
        total = sum(
            per_split.get(str(label_id), 0) for per_split in found.num_pixels_per_class.values()
        )
        assert total == counted[label_id] > 0
    # Water is smooth to radar: where the label of the radar's date says water, VV is
    # darker.
    water = np.concatenate([patch.s1[..., 0][patch.label == 1] for patch in patches])
    dry = np.concatenate([patch.s1[..., 0][patch.label == 0] for patch in patches])
    assert np.nanmean(water) < np.nanmean(dry) - 3.0


def test_labels_of_one_sensor_make_a_version_without_the_other(
    copied, build_config, tmp_path, edit_items
):
    def drop_s2_and_doubt_the_second_place(item):
        properties = item["properties"]
        if properties["constellation"] == "sentinel-2":
            return False
        # Place by place, so that no block mixes both kinds.
        if properties["terrapair:place"] == places[1]:
            item["assets"]["label"]["terrapair:label_kind"] = "weak"
        return True

    items = [json.loads(line) for line in copied.read_text().splitlines()]
    places = sorted({item["properties"]["terrapair:place"] for item in items})
    weak = [item["id"] for item in items if item["properties"]["terrapair:place"] == places[1]]
    edit_items(copied, drop_s2_and_doubt_the_second_place)
    label = c.LabelConfig(
        schema="water",
        label_from="s1",
        min_labeled_fraction=0.0,
        partner="optional",
        weak_weight=0.25,
    )
    version = build_labels(
        dataclasses.replace(build_config, label=label), [copied], tmp_path / "out"
    )
    found = manifest.read(version)
    assert found.num_absent == {"s2": found.num_examples}
    assert {(entry.num_pixels, entry.std) for entry in found.s2_statistics} == {(0, 0.0)}
    assert {entry.sensor: entry.num_pairs for entry in found.sources} == {"s1": 6}
    kept = {split: read_split(version, split) for split in layout.SPLITS}
    assert all(np.isnan(patch.s2).all() for patches in kept.values() for patch in patches)
    assert not {patch.s1_scene_id for split in ("eval", "test") for patch in kept[split]} & set(
        weak
    )
    for patch in kept["train"]:
        by_quality = min(patch.quality / build_config.quality.full_weight_quality, 1.0)
        share = 0.25 if patch.s1_scene_id in weak else 1.0
        assert patch.weight == pytest.approx(by_quality * share)
    assert {patch.s1_scene_id in weak for patch in kept["train"]} == {True, False}
    refused_ones = [
        json.loads(line)
        for line in (version / "rejected" / "patches.ndjson").read_text().splitlines()
    ]
    judged = [row for row in refused_ones if row["reason"] == "weak_label_judged"]
    assert judged
    assert all(row["detail"].split(":")[0] in weak for row in judged)
    card = (version / "data_card.md").read_text()
    assert f"| s2 | train | {found.num_examples['train']} |" in card
    assert json.loads((version / "data_card.json").read_text())["time_gap_hours"] == {}
    assert set((version / "scenes.txt").read_text().split()) == {
        patch.s1_scene_id for p in kept.values() for patch in p
    }
    without = dataclasses.replace(build_config, label=dataclasses.replace(label, weak_weight=0.0))
    fewer = manifest.read(build_labels(without, [copied], tmp_path / "out"))
    assert fewer.num_rejected["weak_label"] == 2


def test_a_second_job_is_refused_and_after_a_kill_no_finished_strip_is_cut_again(
    simulated, build_config, tmp_path, pairs, monkeypatch
):
    script = (
        "import sys, pickle; from pathlib import Path\n"
        "from beam_jobs.build.driver import build_pairs\n"
        "config = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "build_pairs(config, [Path(sys.argv[2])], Path(sys.argv[3]))"
    )
    arguments = [pickle.dumps(build_config).hex(), str(simulated), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=REPOSITORY)
    spool_dir = layout.building_dir(tmp_path, 1, 1) / "spool"
    while spool.count_finished(spool_dir) < 1 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    other = dataclasses.replace(build_config, pairing=c.PairingConfig(max_time_gap_hours=71.0))
    for config in (build_config, other):
        with pytest.raises(DataError, match=rf"version-1: .*\(process {process.pid} on") as error:
            build_pairs(config, [simulated], tmp_path)
        assert error.value.reason == "folder_in_use"
        assert "\n" not in str(error.value)
    process.kill()
    process.wait()
    assert layout.list_versions(tmp_path) == []
    num_finished = spool.count_finished(spool_dir)
    assert 1 <= num_finished < 6
    cut_again = []
    cut = patches.cut
    monkeypatch.setattr(
        patches, "cut", lambda task, config: cut_again.append(task.task_id) or cut(task, config)
    )
    version = build_pairs(build_config, [simulated], tmp_path)
    assert len(cut_again) == 6 - num_finished
    assert digests(version) == digests(pairs)


def test_a_pair_is_used_whole_or_not_at_all(copied, build_config, tmp_path, monkeypatch):
    """The label of one scene is cut off in its lower half: no strip of the scene may be used."""
    monkeypatch.setattr(grids, "strips", functools.partial(grids.strips, max_pixels=32 * 160))
    broken = sorted(copied.parent.rglob("S2*_label.tif"))[0]
    with rasterio.open(broken) as dataset:
        profile, pixels = dataset.profile, dataset.read()
    pixels[0, 140:] = 77
    broken.unlink()
    with rasterio.open(broken, "w", **profile) as dataset:
        dataset.write(pixels)
    label = c.LabelConfig(
        schema="dynamic_world", min_labeled_fraction=0.0, required_classes=("trees", "crops")
    )
    quality = c.QualityConfig(
        min_valid_fraction=0.05, max_cloud_fraction=1.0, max_rejected_fraction=0.2
    )
    config = dataclasses.replace(build_config, label=label, quality=quality)
    version = build_labels(config, [copied], tmp_path / "out")
    rows = [
        json.loads(line)
        for line in (version / "rejected" / "scenes.ndjson").read_text().splitlines()
    ]
    scene_id = broken.name.removesuffix("_label.tif")
    assert [(row["id"], row["reason"]) for row in rows if row["is_error"]] == [
        (scene_id, "label_id_outside_schema")
    ]
    used = {patch.s2_scene_id for split in layout.SPLITS for patch in read_split(version, split)}
    assert scene_id not in used
    assert len(used) == 5


def test_a_label_redrawn_in_the_same_size_builds_a_new_version(copied, build_config, tmp_path):
    label = c.LabelConfig(schema="water", label_from="s1", min_labeled_fraction=0.0)
    config = dataclasses.replace(build_config, label=label)

    def draw(dry: int) -> int:
        """Write all labels with another class where it was dry; return their size in bytes."""
        paths = sorted(copied.parent.rglob("S1*_label.tif"))
        for path in paths:
            with rasterio.open(path) as dataset:
                profile, pixels = dataset.profile, dataset.read()
            # Without compression, the size of the file does not depend on its values.
            with rasterio.open(path, "w", **{**profile, "compress": None}) as dataset:
                dataset.write(np.where(pixels == 1, dry, pixels).astype("uint8"))
        return sum(path.stat().st_size for path in paths)

    size = draw(1)
    pairs = build_pairs(build_config, [copied], tmp_path / "pairs")
    first = build_labels(config, [copied], tmp_path / "out")
    assert draw(0) == size
    second = build_labels(config, [copied], tmp_path / "out")
    assert second.name == "version-2"
    assert build_pairs(build_config, [copied], tmp_path / "pairs") == pairs
    counts = [
        sum(split.get("1", 0) for split in manifest.read(path).num_pixels_per_class.values())
        for path in (first, second)
    ]
    assert counts[0] > 0
    assert counts[1] != counts[0]


def test_a_file_that_changes_while_it_is_read_makes_no_version(
    copied, build_config, tmp_path, monkeypatch
):
    write = writers.write_summary

    def meanwhile(summary, building_dir, claim):
        first_path(copied, "S2").touch()
        scene = first_path(copied, "S1")
        scene.write_bytes(scene.read_bytes() + b"\0")
        return write(summary, building_dir, claim)

    monkeypatch.setattr(writers, "write_summary", meanwhile)
    refused(build_config, copied, tmp_path / "out", "has changed while the build read it")


def test_changed_code_builds_a_new_version(simulated, build_config, tmp_path, monkeypatch):
    build_pairs(build_config, [simulated], tmp_path)
    monkeypatch.setattr(choice, "source_fingerprint", lambda sources: "f" * 64)
    assert build_pairs(build_config, [simulated], tmp_path) == layout.version_dir(tmp_path, 1, 2)


# --- bad input: one line with file, rule and value, and no version directory ---


def refused(config, catalog, root, *pieces, job=build_pairs, **kwargs) -> DataError:
    with pytest.raises(DataError) as caught:
        job(config, [catalog], root, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for piece in pieces:
        assert piece in message
    assert layout.list_versions(root) == []
    assert not list(root.glob("span-*/version-*"))
    return caught.value


def first_path(catalog: Path, sensor: str) -> Path:
    return sorted(
        path for path in catalog.parent.rglob(f"{sensor}*.tif") if "_label" not in path.name
    )[0]


def test_catalog_that_names_a_missing_file(copied, build_config, tmp_path):
    path = first_path(copied, "S1")
    path.unlink()
    strict = dataclasses.replace(build_config, quality=c.QualityConfig(max_rejected_fraction=0.0))
    refused(strict, copied, tmp_path / "out", path.name, "No such file", "1 of 12 scenes are bad")


def test_truncated_geotiff(copied, build_config, tmp_path):
    path = first_path(copied, "S2")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    strict = dataclasses.replace(build_config, quality=c.QualityConfig(max_rejected_fraction=0.0))
    refused(strict, copied, tmp_path / "out", path.name, "cannot read the raster")


def test_one_bad_scene_among_good_ones_is_reported_and_the_rest_is_built(
    copied, build_config, tmp_path
):
    path = first_path(copied, "S2")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    version = build_pairs(build_config, [copied], tmp_path / "out")
    rows = [
        json.loads(line)
        for line in (version / "rejected" / "scenes.ndjson").read_text().splitlines()
    ]
    bad = [row for row in rows if row["is_error"]]
    assert [row["reason"] for row in bad] == ["unreadable_raster"]
    assert path.name in bad[0]["detail"]
    assert manifest.read(version).num_rejected["unreadable_raster"] == 1


def test_bands_in_an_unknown_order(copied, build_config, tmp_path, edit_items):
    edit_items(copied, lambda item: item["assets"]["data"].pop("bands"))
    refused(build_config, copied, tmp_path / "out", "does not name its bands in order", "12 of 12")


def test_missing_bands(copied, build_config, tmp_path):
    patch = c.PatchConfig(size_px=32, s2_bands=("B2", "B10"), s2_processing_level="L1C")
    config = dataclasses.replace(build_config, patch=patch)
    # The simulated scenes are L2A: relabelled as L1C they lack the band.
    copied.write_text(copied.read_text().replace('"L2A"', '"L1C"'))
    refused(config, copied, tmp_path / "out", "bands ['B10'] are missing", "6 of 12")


def test_wrong_crs(copied, build_config, tmp_path, edit_items):
    edit_items(copied, lambda item: item["properties"].update({"proj:code": "EPSG:32601"}))
    refused(
        build_config,
        copied,
        tmp_path / "out",
        "CRS must be the catalog's EPSG:32601",
        "the raster has EPSG:",
    )


def test_absent_crs(copied, build_config, tmp_path):
    for path in copied.parent.rglob("S1*.tif"):
        with rasterio.open(path) as dataset:
            profile, pixels = {**dataset.profile, "crs": None}, dataset.read()
        path.unlink()
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(pixels)
    refused(build_config, copied, tmp_path / "out", "the raster has no CRS", "6 of 12")


def test_backscatter_given_as_power(copied, build_config, tmp_path):
    for path in copied.parent.rglob("S1*.tif"):
        if "_label" in path.name:
            continue
        with rasterio.open(path, "r+") as dataset:
            dataset.write(10.0 ** (dataset.read() / 10.0))
    refused(build_config, copied, tmp_path / "out", "backscatter must be in dB", "linear power")


def test_no_pair_at_all(copied, build_config, tmp_path, edit_items):
    edit_items(copied, lambda item: item["properties"]["constellation"] == "sentinel-1")
    refused(
        build_config, copied, tmp_path / "out", "no pair of scenes gave a patch", "no_s2_partner 6"
    )


def test_label_id_outside_the_schema(copied, build_config, tmp_path):
    for path in copied.parent.rglob("S2*_label.tif"):
        with rasterio.open(path, "r+") as dataset:
            pixels = dataset.read()
            pixels[0, 5:9, 5:9] = 77
            dataset.write(pixels)
    config = dataclasses.replace(build_config, label=c.LabelConfig(schema="dynamic_world"))
    refused(
        config, copied, tmp_path / "out", "_label.tif", "[77]", "'dynamic_world'", job=build_labels
    )


def test_labels_of_a_schema_without_a_remap_end_the_build_before_a_pixel_is_read(
    copied, build_config, tmp_path, edit_items
):
    edit_items(
        copied, lambda item: item["assets"]["label"].update({"terrapair:label_schema": "igbp10"})
    )
    config = dataclasses.replace(build_config, label=c.LabelConfig(schema="dynamic_world"))
    for path in copied.parent.rglob("*.tif"):
        path.unlink()
    error = refused(
        config,
        copied,
        tmp_path / "out",
        "items.ndjson: no remap from label schema 'igbp10' to 'dynamic_world' is defined "
        "(labels of s2 are igbp10)",
        job=build_labels,
    )
    assert error.reason == "other_label_schema"
    assert not (tmp_path / "out").exists()


def test_scenes_with_labels_of_another_schema_are_left_out_where_others_fit(
    copied, build_config, tmp_path, edit_items
):
    others = []

    def change(item):
        if item["id"].startswith("S2") and len(others) < 2:
            others.append(item["id"])
            item["assets"]["label"]["terrapair:label_schema"] = "igbp10"

    edit_items(copied, change)
    strict = dataclasses.replace(build_config.quality, max_rejected_fraction=0.0)
    label = c.LabelConfig(schema="dynamic_world", required_classes=("trees", "crops"))
    config = dataclasses.replace(build_config, quality=strict, label=label)
    version = build_labels(config, [copied], tmp_path / "out")
    assert manifest.read(version).num_rejected["other_label_schema"] == 2
    ids = {patch.s2_scene_id for split in layout.SPLITS for patch in read_split(version, split)}
    assert ids
    assert not ids & set(others)


def test_a_label_that_lies_elsewhere_is_named(copied, build_config, tmp_path):
    for path in copied.parent.rglob("S2*_label.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.transform = rasterio.Affine.translation(200_000.0, 0.0) * dataset.transform
    config = dataclasses.replace(build_config, label=c.LabelConfig(schema="dynamic_world"))
    refused(
        config,
        copied,
        tmp_path / "out",
        "_label.tif: the label lies at lon ",
        ", its scene S2",
        job=build_labels,
    )
    # Pairs have no use for labels, so a wrong one keeps nothing from pretraining.
    assert build_pairs(build_config, [copied], tmp_path / "pairs").exists()


def test_output_version_that_exists(simulated, build_config, tmp_path):
    version = build_pairs(build_config, [simulated], tmp_path)
    before = digests(version)
    with pytest.raises(DataError, match=r"version-1: the version exists and is never overwritten"):
        build_pairs(build_config, [simulated], tmp_path, version=1)
    assert digests(version) == before


def test_empty_split_says_what_to_change(simulated, build_config, tmp_path):
    config = dataclasses.replace(
        build_config, split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.0)
    )
    refused(
        config,
        simulated,
        tmp_path / "out",
        "no patch falls into split 'eval'",
        "split.block_size_km",
    )


def test_more_folds_than_blocks_say_what_to_change(simulated, build_config, tmp_path):
    config = dataclasses.replace(build_config, split=c.SplitConfig(block_size_km=0.8, folds=200))
    refused(
        config,
        simulated,
        tmp_path / "out",
        "no patch falls into split",
        "use fewer split.folds than 200, a smaller split.block_size_km",
    )


def test_a_fold_may_lack_a_class_in_test_if_the_test_splits_are_pooled(
    simulated, build_config, tmp_path
):
    # No water in the test blocks of this fold.
    split = c.SplitConfig(block_size_km=0.8, folds=5, fold=4)
    label = c.LabelConfig(schema="water", label_from="s1")
    config = dataclasses.replace(build_config, split=split, label=label)
    message = "class 'water' (1) has no pixel in test"
    refused(config, simulated, tmp_path / "out", message, job=build_labels)
    pooled = Execution(class_splits=("train",))
    version = build_labels(config, [simulated], tmp_path / "out", execution=pooled)
    num_pixels = manifest.read(version).num_pixels_per_class
    assert num_pixels["train"]["1"] > 0
    assert "1" not in num_pixels["test"]


def test_folds_of_scenes_that_all_declare_test_say_what_to_change(
    copied, build_config, tmp_path, edit_items
):
    edit_items(copied, lambda item: item["properties"].update({"terrapair:split": "test"}))
    config = dataclasses.replace(build_config, split=c.SplitConfig(block_size_km=0.8, folds=3))
    refused(
        config,
        copied,
        tmp_path / "out",
        "no pair of scenes gave a patch (not used: outside_folds ",
        "folds take neither hold-outs nor scenes whose terrapair:split is test: set split.folds "
        "to 0",
    )


def test_a_scene_listed_twice_is_used_once(copied, build_config, tmp_path):
    copied.write_text(copied.read_text() + copied.read_text().splitlines()[0] + "\n")
    version = build_pairs(build_config, [copied], tmp_path / "out")
    assert manifest.read(version).num_rejected["duplicate_scene_id"] == 1
    ids = [patch.patch_id for split in layout.SPLITS for patch in read_split(version, split)]
    assert len(ids) == len(set(ids))


def test_patches_of_two_tiles_that_show_one_ground_are_used_once(copied, build_config, tmp_path):
    """A copy of each Sentinel-2 scene stands for an overlapping tile with the same pixels."""
    once = manifest.read(build_pairs(build_config, [copied], tmp_path / "once"))
    items = [json.loads(line) for line in copied.read_text().splitlines()]
    twins = [{**item, "id": f"{item['id']}_T2"} for item in items if item["id"].startswith("S2")]
    copied.write_text("".join(json.dumps(item) + "\n" for item in items + twins))
    config = dataclasses.replace(build_config, pairing=c.PairingConfig(max_s2_per_s1=2))
    version = build_pairs(config, [copied], tmp_path / "twice")
    found = manifest.read(version)
    assert found.num_examples == once.num_examples
    assert found.num_rejected["duplicate_patch"] == sum(once.num_examples.values())
    # What was counted before it turned out to be a duplicate is taken out again.
    assert (found.s1_statistics, found.s2_statistics) == (once.s1_statistics, once.s2_statistics)
    places = [
        (p.lon, p.lat, p.s1_acquired_at)
        for split in layout.SPLITS
        for p in read_split(version, split)
    ]
    assert len(places) == len(set(places))
    rows = [
        json.loads(line)
        for line in (version / "rejected" / "patches.ndjson").read_text().splitlines()
    ]
    assert all(
        "by the same passes; scores 0." in row["detail"]
        for row in rows
        if row["reason"] == "duplicate_patch"
    )
