"""Hold-outs: events and regions decide before anything else; nothing near them is in
train.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from beam_jobs import config as c
from beam_jobs.build.driver import build_pairs
from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError
from beam_jobs.judging import holdouts, splits

EVENT = c.HoldoutConfig(name="bolivia", split="test", values=("Bolivia", "Chaco"))


def feature(*rings) -> dict:
    return {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(one)}
            for one in rings
        ],
    }


def region_config(path: Path, *rings, split="test", **more) -> c.SplitConfig:
    path.write_text(json.dumps(feature(*rings)))
    holdout = c.HoldoutConfig(name="region", split=split, geojson=str(path))
    return holdouts.with_hashes(c.SplitConfig(holdouts=(holdout,), **more))


def square(lon: float, lat: float, half: float = 0.002) -> tuple[list[float], list[float]]:
    return [lon, lon - half, lon + half, lon + half, lon - half], [
        lat,
        lat - half,
        lat - half,
        lat + half,
        lat + half,
    ]


def test_items_fall_under_the_hold_outs_that_name_their_property():
    country = c.HoldoutConfig(
        name="andes", split="eval", property="terrapair:country", values=("BO", "PE")
    )
    config = c.SplitConfig(holdouts=(EVENT, country))
    assert holdouts.of_item({"terrapair:event": "Bolivia", "terrapair:country": "BO"}, config) == {
        "bolivia",
        "andes",
    }
    assert holdouts.of_item({"terrapair:event": "Ghana", "terrapair:country": "PE"}, config) == {
        "andes"
    }
    assert holdouts.of_item({"event": "Bolivia"}, config) == frozenset()


def test_a_held_out_event_goes_before_declared_splits_and_blocks():
    config = c.SplitConfig(eval_fraction=0.0, test_fraction=0.0, holdouts=(EVENT,))
    block = splits.block_id(10.0, 45.0, config.block_size_km)
    place = square(10.0, 45.0)
    assert splits.assign(
        *place, config, frozenset({"train"}), frozenset({"bolivia"})
    ) == splits.Assignment(block=f"{block}@bolivia", split="test")
    assert splits.assign(*place, config).split == "train"


@pytest.mark.parametrize("split", ["eval", "test"])
def test_no_fold_takes_a_held_out_event_or_what_touches_a_held_out_region(tmp_path, split):
    event = dataclasses.replace(EVENT, split=split)
    place = square(10.0, 45.0)
    # The patch reaches over the region's edge.
    region = shapely.box(10.001, 44.9, 10.1, 45.1)
    for fold in range(3):
        config = c.SplitConfig(folds=3, fold=fold, holdouts=(event,))
        found = splits.assign(*place, config, frozenset({"train"}), frozenset({"bolivia"}))
        assert (found.split, found.reason) == (None, "outside_folds")
        assert found.detail == "is held out by bolivia"
        inside = region_config(tmp_path / "r.geojson", region, split=split, folds=3, fold=fold)
        assert splits.assign(*place, inside).detail == "is held out by region"
        assert splits.assign(*place, inside).reason == "outside_folds"


def test_hold_outs_of_different_splits_on_one_patch_leave_it_out():
    other = dataclasses.replace(EVENT, name="other", split="eval")
    config = c.SplitConfig(holdouts=(EVENT, other))
    found = splits.assign(*square(10.0, 45.0), config, frozenset(), frozenset({"bolivia", "other"}))
    assert (found.split, found.reason) == (None, "straddles_splits")
    assert found.block.endswith("@bolivia@other")


@pytest.mark.parametrize("centre", [10.0, 180.0])
def test_a_region_takes_what_lies_inside_and_leaves_out_what_crosses_its_edge(tmp_path, centre):
    # At the date line the region is cut, as RFC 7946 asks for.
    rings = [shapely.box(9.9, 44.9, 10.1, 45.1)]
    if centre == 180.0:
        rings = [shapely.box(179.9, 44.9, 180.0, 45.1), shapely.box(-180.0, 44.9, -179.9, 45.1)]
    config = region_config(tmp_path / "r.geojson", *rings, eval_fraction=0.0, test_fraction=0.0)
    rng = np.random.default_rng(0)
    counted = {"inside": 0, "outside": 0, "across": 0}
    for dlon, dlat in rng.uniform(-0.12, 0.12, (800, 2)):
        lon, lat = square((centre + dlon + 180.0) % 360.0 - 180.0, 45.0 + dlat)
        lon = [(x + 180.0) % 360.0 - 180.0 for x in lon]
        found = splits.assign(lon, lat, config)
        reach = max(abs(dlon), abs(dlat))
        where = "inside" if reach < 0.098 else "outside" if reach > 0.102 else "across"
        counted[where] += 1
        assert found.split == {"inside": "test", "outside": "train", "across": None}[where]
        assert found.block.endswith("@region") == (where != "outside")
        assert found.reason == ("straddles_splits" if where == "across" else None)
    assert min(counted.values()) > 15


def test_the_buffer_goes_around_regions_too_and_declared_splits_respect_it(tmp_path):
    ring = shapely.box(9.9, 44.9, 10.1, 45.1)
    config = region_config(
        tmp_path / "r.geojson", ring, eval_fraction=0.0, test_fraction=0.0, buffer_m=1000.0
    )
    # 0.0105 degrees of longitude at 45 degrees are 827 m, 0.018 are 1419 m; the patch
    # reaches 0.002 degrees out.
    for declared in (frozenset(), frozenset({"train"})):
        assert splits.assign(*square(10.1105, 45.0), config, declared).reason == "in_buffer"
        assert splits.assign(*square(10.118, 45.0), config, declared).split == "train"
    assert splits.assign(*square(10.095, 45.0), config).split == "test"


def test_an_eval_region_gives_way_to_test_blocks_around_it_but_not_to_those_below_it(tmp_path):
    ring = shapely.box(9.9, 44.9, 10.1, 45.1)
    config = region_config(
        tmp_path / "r.geojson",
        ring,
        split="eval",
        eval_fraction=0.0,
        test_fraction=0.999,
        buffer_m=1000.0,
    )
    assert splits.assign(*square(10.0, 45.0), config).split == "eval"
    assert splits.assign(*square(10.095, 45.0), config).reason == "in_buffer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "needs polygons, got none"),
        ('{"type": "Point", "coordinates": [1, 2]}', "needs polygons, got Point"),
        (
            json.dumps(shapely.geometry.mapping(shapely.box(0, 0, 500000, 1))),
            "must be in degrees, got 0..500000",
        ),
    ],
)
def test_a_file_without_polygons_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.geojson"
    path.write_text(text)
    config = c.SplitConfig(holdouts=(c.HoldoutConfig(name="x", split="test", geojson=str(path)),))
    with pytest.raises(DataError, match=message) as caught:
        holdouts.with_hashes(config)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_one_that_changes_on_the_way_are_refused(tmp_path):
    path = tmp_path / "r.geojson"
    with pytest.raises(DataError, match=r"r\.geojson: cannot read the polygons: No such file"):
        holdouts.with_hashes(
            c.SplitConfig(holdouts=(c.HoldoutConfig(name="x", split="test", geojson=str(path)),))
        )
    (one,) = region_config(path, shapely.box(0, 0, 1, 1)).holdouts
    (two,) = region_config(path, shapely.box(0, 0, 2, 2)).holdouts
    assert one.geojson_sha256 != two.geojson_sha256
    assert holdouts.region(two).area == 4
    # A worker that has read the first file keeps it; one that has not must not take the
    # second for it.
    holdouts._polygons.cache_clear()
    with pytest.raises(DataError, match="the polygons changed while they were used"):
        holdouts.region(one)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"values": ("a",), "geojson": "b"}, "needs either values or geojson"),
        ({}, "needs either values or geojson"),
        (
            {"name": "A b", "values": ("a",)},
            "name must be lower case letters, digits and -, got 'A b'",
        ),
    ],
)
def test_hold_outs_that_say_nothing_or_too_much_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        c.HoldoutConfig(**{"name": "x", "split": "test", **values})
    with pytest.raises(ValueError, match="holdouts must have distinct names"):
        c.SplitConfig(holdouts=(EVENT, EVENT))


@pytest.mark.e2e
def test_a_build_holds_out_an_event_and_counts_it(copied, build_config, tmp_path, edit_items):
    places = sorted(
        {
            json.loads(line)["properties"]["terrapair:place"]
            for line in copied.read_text().splitlines()
        }
    )

    def name_event(item):
        item["properties"]["terrapair:event"] = (
            f"event-{places.index(item['properties']['terrapair:place'])}"
        )

    edit_items(copied, name_event)
    holdout = c.HoldoutConfig(name="second", split="test", values=("event-1",))
    split = dataclasses.replace(build_config.split, holdouts=(holdout,))
    version = build_pairs(
        dataclasses.replace(build_config, split=split), [copied], tmp_path / "out"
    )
    found = manifest.read(version)
    held_out = found.num_held_out["second"]
    # Two dates of 5 x 5 patches; none is lost at a block's border.
    refused = [
        json.loads(line)
        for line in (version / "rejected" / "patches.ndjson").read_text().splitlines()
    ]
    assert held_out == {"test": 50 - sum(places[1] in row["detail"] for row in refused)}
    assert found.config["split"]["holdouts"][0]["values"] == ["event-1"]
