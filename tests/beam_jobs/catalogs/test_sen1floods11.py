"""Sen1Floods11: a miniature with the true names, types, CRS and no-data, up to the
shards.
"""

import json
import math

import numpy as np
import pyproj
import pytest

from beam_jobs import config as c
from beam_jobs.build.driver import build_labels
from beam_jobs.catalogs import sen1floods11
from beam_jobs.contracts import manifest
from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import grids, inspection, label_rasters, readers
from tests.data.scenes.make_datasets import (
    DEGREES_PER_PX,
    SEN1FLOODS11_PLACES,
    flood_label,
    make_sen1floods11,
    ramp_db,
    ramp_l1c,
    read_split,
    scenes_of,
    write_catalog,
)

CHIPS = list(SEN1FLOODS11_PLACES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sen1floods11(tmp_path_factory.mktemp("sen1floods11"))


@pytest.fixture
def copied(tmp_path):
    return make_sen1floods11(tmp_path)


def test_times_and_orbits_are_those_of_the_event(folder):
    found = scenes_of("sen1floods11", folder)
    assert len(found) == 5 + 5 + 1
    # 2018-09-18 and -19, 12:00 UTC.
    assert found["Ghana_1_S1Hand"].acquired_at == 1537272000
    assert found["Ghana_1_S2Hand"].acquired_at == 1537272000 + 86400
    assert found["Ghana_1_S1Hand"].orbit_state == "ascending"
    assert found["Sri-Lanka_3_S1Hand"].orbit_state == "descending"
    # The files say Mekong, the metadata Cambodia: 2018-08-05.
    assert found["Mekong_4_S1Hand"].acquired_at == 1533470400
    item = next(iter(sen1floods11.read(folder)))
    assert item.properties["terrapair:time_is_nominal"] is True
    assert item.properties["sat:relative_orbit"] == 156


def test_scenes_carry_the_data_sets_own_split(folder):
    found = scenes_of("sen1floods11", folder)
    splits = {name: scene.split for name, scene in found.items()}
    for sensor in ("S1Hand", "S2Hand"):
        assert [splits[f"{chip}_{sensor}"] for chip in CHIPS[:5]] == [
            "train",
            "eval",
            "test",
            "test",
            "test",
        ]
    assert splits["Ghana_8_S1Weak"] == "train"


def test_weak_chips_of_the_hold_out_event_are_left_out(folder):
    weak = [name for name in scenes_of("sen1floods11", folder) if name.endswith("Weak")]
    assert weak == ["Ghana_8_S1Weak"]


def test_pixels_and_labels_are_those_of_the_files(folder):
    found = scenes_of("sen1floods11", folder)
    for seed, chip in enumerate(CHIPS[:5]):
        s1 = inspection.inspect(found[f"{chip}_S1Hand"], ("VV", "VH"))
        s2 = inspection.inspect(found[f"{chip}_S2Hand"], S2_L1C_BANDS)
        assert s1.grid is not None
        assert s1.grid.crs == "EPSG:4326"
        assert s2.dn_offset == 0
        backscatter = readers.read_bands(s1, ("VV", "VH"), s1.grid)
        assert np.isnan(backscatter[-4:, -4:]).all()
        assert np.isnan(backscatter).sum() == 2 * 16
        expected = ramp_db(96, seed).transpose(1, 2, 0)
        valid = ~np.isnan(backscatter)
        assert backscatter[valid] == pytest.approx(expected[valid], abs=1e-5)
        reflectance = readers.read_bands(s2, S2_L1C_BANDS, s1.grid)
        np.testing.assert_allclose(
            reflectance, ramp_l1c(96, seed).transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6
        )
        label = flood_label(96, seed)[0]
        for scene in (s1, s2):
            got = label_rasters.read(scene.label, "water", s1.grid)
            assert np.array_equal(got, np.where(label < 0, 255, label))
    weak = found["Ghana_8_S1Weak"]
    assert weak.label.kind == "weak"
    assert {scene.label.kind for name, scene in found.items() if not name.endswith("Weak")} == {
        "hand"
    }
    got = label_rasters.read(weak.label, "water", inspection.inspect(weak, ("VV", "VH")).grid)
    assert np.array_equal(got, np.where(flood_label(96, 5)[0] < 0, 255, flood_label(96, 5)[0]))


@pytest.fixture(scope="module")
def version(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32, s2_bands=S2_L1C_BANDS, s2_processing_level="L1C"),
        quality=c.QualityConfig(max_cloud_fraction=1.0),
        label=c.LabelConfig(schema="water", label_from="s1", min_labeled_fraction=0.1),
    )
    return build_labels(config, [write_catalog("sen1floods11", folder, out / "items.ndjson")], out)


@pytest.mark.e2e
def test_a_build_keeps_the_data_sets_split_whatever_the_block(version):
    expected = {
        "train": {"Ghana_1"},
        "eval": {"Ghana_2"},
        "test": {"Sri-Lanka_3", "Mekong_4", "Bolivia_5"},
    }
    for split, chips in expected.items():
        patches = read_split(version, split)
        assert {patch.s1_scene_id.rsplit("_", 1)[0] for patch in patches} == chips
        for patch in patches:
            assert patch.s2_scene_id == patch.s1_scene_id.replace("S1", "S2")
            assert patch.block.startswith("2.56km_")
            # Sri-Lanka of Sri-Lanka_3_S1Hand.
            assert patch.event == patch.s1_scene_id.rsplit("_", 2)[0]
    found = manifest.read(version)
    # The weakly labelled patch has no Sentinel-2 image.
    assert found.num_rejected["no_s2_partner"] == 1
    assert found.num_examples == {"train": 4, "eval": 4, "test": 12}


@pytest.mark.e2e
def test_weak_chips_train_a_radar_task_at_their_weight_where_a_partner_is_optional(
    folder, version, tmp_path
):
    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32, s2_bands=S2_L1C_BANDS, s2_processing_level="L1C"),
        quality=c.QualityConfig(max_cloud_fraction=1.0),
        label=c.LabelConfig(
            schema="water", label_from="s1", min_labeled_fraction=0.1, partner="optional"
        ),
    )
    both = build_labels(
        config, [write_catalog("sen1floods11", folder, tmp_path / "items.ndjson")], tmp_path
    )
    found = manifest.read(both)
    assert found.num_examples == {"train": 8, "eval": 4, "test": 12}
    assert found.num_absent == {"s2": {"train": 4}}
    assert "no_s2_partner" not in found.num_rejected
    by_hand = {patch.patch_id: patch for patch in read_split(version, "train")}
    seen = []
    for patch in read_split(both, "train"):
        if patch.s1_scene_id == "Ghana_8_S1Weak":
            assert np.isnan(patch.s2).all()
            assert (patch.event, patch.s2_scene_id) == ("Ghana", "")
            assert patch.weight == pytest.approx(0.5 * min(patch.quality / 0.5, 1.0))
            lon, lat = SEN1FLOODS11_PLACES["Ghana_8"]
            expected = label_at(patch, lon, lat, flood_label(96, CHIPS.index("Ghana_8"))[0])
            assert (patch.label == expected).mean() > 0.98
            seen.append(patch.patch_id)
        else:
            assert patch.weight == by_hand[patch.patch_id].weight
    assert len(seen) == 4
    # Statistics of the sensor that is not always there are those of the patches that
    # have it.
    assert found.s2_statistics == manifest.read(version).s2_statistics


@pytest.mark.e2e
def test_weak_chips_alone_train_and_hand_drawn_ones_judge(folder, tmp_path):
    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32, s2_bands=S2_L1C_BANDS, s2_processing_level="L1C"),
        quality=c.QualityConfig(max_cloud_fraction=1.0),
        label=c.LabelConfig(
            schema="water",
            label_from="s1",
            min_labeled_fraction=0.1,
            partner="optional",
            weak_only=True,
            weak_weight=1.0,
        ),
    )
    version = build_labels(
        config, [write_catalog("sen1floods11", folder, tmp_path / "items.ndjson")], tmp_path
    )
    assert {patch.s1_scene_id for patch in read_split(version, "train")} == {"Ghana_8_S1Weak"}
    assert {patch.weight for patch in read_split(version, "train")} == {1.0}
    found = manifest.read(version)
    assert found.num_examples == {"train": 4, "eval": 4, "test": 12}
    assert found.num_rejected["hand_label_in_train"] == 4


def test_weak_labels_alone_need_a_weight():
    with pytest.raises(ValueError, match="weak_only needs a weak_weight above 0"):
        c.LabelConfig(schema="water", weak_only=True, weak_weight=0.0)


@pytest.mark.e2e
def test_built_patches_hold_the_pixels_of_their_place(version):
    agreeing, total, seen = 0, 0, set()
    for split in ("train", "eval", "test"):
        for patch in read_split(version, split):
            chip = patch.s1_scene_id.rsplit("_", 1)[0]
            seed, (lon, lat) = CHIPS.index(chip), SEN1FLOODS11_PLACES[chip]
            # The files' pixel coordinates of the patch's middle; the ramp's mean over a
            # patch is its value there.
            col, row = (
                (patch.lon - lon) / DEGREES_PER_PX - 0.5,
                (lat - patch.lat) / DEGREES_PER_PX - 0.5,
            )
            expected = (1000 + 200 * seed + 50 * 3 + 5 * col + 3 * row) / 10_000
            assert float(np.nanmean(patch.s2[..., 3])) == pytest.approx(expected, abs=3e-4)
            if np.isfinite(patch.s1).all():
                in_db = (1000 + 200 * seed + 5 * col + 3 * row) / 100 - 22
                assert float(patch.s1[..., 0].mean()) == pytest.approx(in_db, abs=0.05)
            expected_label = label_at(patch, lon, lat, flood_label(96, seed)[0])
            agreeing += int((patch.label == expected_label).sum())
            total += patch.label.size
            seen |= set(np.unique(patch.label).tolist())
    # Longitude is stored in float32, so pixels on a class border may fall to the other
    # side.
    assert agreeing / total > 0.98
    assert seen == {0, 1, 255}


def label_at(patch, lon, lat, label):
    """Oracle: each pixel centre of the patch in UTM -> degrees -> the label pixel that holds it."""
    to_utm = pyproj.Transformer.from_crs(
        "EPSG:4326", grids.utm_crs(patch.lon, patch.lat), always_xy=True
    )
    x, y = to_utm.transform(patch.lon, patch.lat)
    offsets = (np.arange(32) - 15.5) * 10.0
    lons, lats = to_utm.transform(*np.meshgrid(x + offsets, y - offsets), direction="INVERSE")
    col = np.floor((lons - lon) / DEGREES_PER_PX).astype(int)
    row = np.floor((lat - lats) / DEGREES_PER_PX).astype(int)
    inside = (col >= 0) & (row >= 0) & (col < 96) & (row < 96)
    found = label[row.clip(0, 95), col.clip(0, 95)]
    return np.where(inside & (found >= 0), found, 255)


def test_without_metadata_there_are_no_dates(copied):
    (copied / "Sen1Floods11_Metadata.geojson").unlink()
    with pytest.raises(
        DataError, match=r"Metadata\.geojson: is missing, and only it has the dates"
    ) as error:
        list(sen1floods11.read(copied))
    assert error.value.reason == "missing_file"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": "Ghana-North"}, "has no location for event 'Ghana'"),
        ({"s1_date": "in May"}, "s1_date must be an ISO time"),
        ({"s2_date": None}, "s2_date must be an ISO time"),
    ],
)
def test_metadata_that_do_not_tell_are_named(copied, change, message):
    path = copied / "Sen1Floods11_Metadata.geojson"
    metadata = json.loads(path.read_text())
    metadata["features"][0]["properties"].update(change)
    path.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=message):
        list(sen1floods11.read(copied))


def test_a_missing_split_list_is_named(copied):
    (copied / "splits" / "flood_handlabeled" / "flood_bolivia_data.csv").unlink()
    with pytest.raises(DataError, match=r"flood_bolivia_data\.csv: cannot read the split list"):
        list(sen1floods11.read(copied))


def test_a_chip_in_no_split_list_is_named(copied):
    (copied / "splits" / "flood_handlabeled" / "flood_valid_data.csv").write_text("")
    with pytest.raises(DataError, match=r"Ghana_2_S1Hand\.tif: is in none of the lists"):
        list(sen1floods11.read(copied))


def test_a_chip_without_label_is_an_unlabeled_scene(copied):
    (copied / "data/flood_events/HandLabeled/LabelHand/Ghana_1_LabelHand.tif").unlink()
    found = scenes_of("sen1floods11", copied)
    assert found["Ghana_1_S1Hand"].label is None
    assert found["Ghana_2_S1Hand"].label is not None
    assert math.isnan(found["Ghana_1_S2Hand"].cloud_fraction)
