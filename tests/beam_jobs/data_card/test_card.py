"""The data card: its numbers equal a count by hand, and a second card has the same bytes."""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from datetime import datetime, timezone

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_jobs.__main__ import run
from beam_jobs.build.driver import build_pairs
from beam_jobs.contracts import layout, manifest, records
from beam_jobs.data_card import card as data_card
from beam_jobs.data_card import contents, land

pytestmark = pytest.mark.e2e

FILES = (
    data_card.JSON_NAME,
    data_card.MARKDOWN_NAME,
    data_card.MAP_NAME,
    data_card.HISTOGRAMS_NAME,
)


@pytest.fixture(scope="module")
def version(simulated, tmp_path_factory):
    from beam_jobs import config as c

    config = c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.05, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
    )
    return build_pairs(config, [simulated], tmp_path_factory.mktemp("card"))


@pytest.fixture(scope="module")
def patches(version) -> list[records.PairedPatch]:
    files = [str(path) for split in layout.SPLITS for path in layout.shard_paths(version, split)]
    return [
        records.decode(raw) for raw in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    ]


@pytest.fixture
def card(version) -> dict:
    return json.loads((version / data_card.JSON_NAME).read_text())


def test_counts_dates_and_places_are_those_of_the_shards(version, patches, card):
    found = manifest.read(version)
    assert card["manifest_sha256"] == found.sha256
    assert card["num_examples"] == found.num_examples
    assert card["num_rejected"] == found.num_rejected
    for sensor in ("s1", "s2"):
        times = [getattr(patch, f"{sensor}_acquired_at") for patch in patches]
        utc = [
            datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")
            for at in times
        ]
        assert card["acquired_at"][sensor] == [min(utc), max(utc)]
    cells = Counter((np.floor(patch.lat * 2) / 2, np.floor(patch.lon * 2) / 2) for patch in patches)
    assert {(south, west): number for south, west, number in card["cells"]} == cells
    gaps = Counter(str(int(np.floor(patch.time_gap_hours))) for patch in patches)
    assert card["time_gap_hours"] == gaps
    assert len(gaps) > 2
    assert sum(card["patches_per_month"].values()) == len(patches)


def test_values_out_of_range_are_listed_by_sensor_and_band(version, tmp_path):
    spoilt = dataclasses.replace(
        manifest.read(version), num_out_of_range={"s1": {"VV": 7}, "s2": {"B4": 2, "B8": 1}}
    )
    card = data_card.make_card(spoilt, contents.Contents())
    assert card["num_out_of_range"] == {"s1": {"VV": 7}, "s2": {"B4": 2, "B8": 1}}
    data_card.write(tmp_path, spoilt, contents.Contents())
    text = (tmp_path / data_card.MARKDOWN_NAME).read_text()
    assert "| s1 | VV | 7 |\n| s2 | B4 | 2 |\n| s2 | B8 | 1 |" in text
    assert manifest.from_json(spoilt.to_json()) == spoilt


def test_histograms_are_of_every_fourth_pixel(patches, card):
    for name, sensor, channel in (("VH", "s1", 1), ("B8", "s2", 7)):
        entry = card["bands"][name]
        values = np.concatenate(
            [getattr(patch, sensor)[::4, ::4, channel].ravel() for patch in patches]
        )
        values = values[np.isfinite(values)].astype(np.float64)
        # As far from the bins' edges as float32 rounds.
        edges = (
            entry["first_edge"] + entry["bin_width"] * np.arange(len(entry["counts"]) + 1) - 1e-5
        )
        expected, _ = np.histogram(values, edges)
        assert entry["counts"] == expected.tolist()
        assert (expected > 0).sum() > 8


def test_scores_are_binned_and_unknown_ones_are_counted(patches, card):
    assert set(card["scores"]) >= {
        "quality",
        "cloud_fraction",
        "s1_valid_fraction",
        "s2_valid_fraction",
    }
    quality = np.array([patch.quality for patch in patches])
    expected = [
        int(((quality >= low) & (quality < low + 0.05)).sum()) for low in np.arange(20) / 20
    ]
    assert (
        sum(abs(a - b) for a, b in zip(card["scores"]["quality"]["counts"], expected, strict=True))
        <= 2
    )
    measured = [patch.offset_px for patch in patches if not np.isnan(patch.offset_px)]
    assert card["offset_px"]["not_measured"] == len(patches) - len(measured) > 0


def test_sources_and_licences_are_those_of_the_catalog(version, card):
    assert card["sources"] == [
        {
            "sensor": sensor,
            "source": "terrapair simulator",
            "license": "none: simulated",
            "num_pairs": 6,
        }
        for sensor in ("s1", "s2")
    ]
    text = (version / data_card.MARKDOWN_NAME).read_text()
    assert "| s1 | terrapair simulator | none: simulated | 6 |" in text
    assert f"![map]({data_card.MAP_NAME})" in text


def test_pictures_show_something(version):
    for name in (data_card.MAP_NAME, data_card.HISTOGRAMS_NAME):
        with Image.open(version / name) as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 20
            assert "Software" not in picture.info


def test_made_again_from_the_shards_it_is_the_same_to_the_byte(version, tmp_path, capsys):
    copy = tmp_path / "version-1"
    shutil.copytree(version, copy)
    for name in FILES:
        (copy / name).unlink()
    assert run(["card", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy / data_card.MARKDOWN_NAME)
    for name in FILES:
        assert (copy / name).read_bytes() == (version / name).read_bytes(), name
    assert not list(copy.glob(".partial*"))
    shard = layout.shard_paths(copy, "train")[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run(["card", str(copy)]) == 3
    assert f"error: {shard}: not a whole shard of patches" in capsys.readouterr().err


def test_contents_do_not_depend_on_the_order_of_adding(patches):
    encoded = [records.encode(patch) for patch in patches[:12]]
    one, two, rest = contents.Contents(), contents.Contents(), contents.Contents()
    for raw in encoded:
        one.add("eval", raw)
    for raw in encoded[::-2]:
        two.add("eval", raw)
    for raw in encoded[-2::-2]:
        rest.add("eval", raw)
    two.merge(rest)
    assert all((one.bands[sensor] == two.bands[sensor]).all() for sensor in ("s1", "s2"))
    one.bands = two.bands = {}
    assert one == two


def test_land_is_where_it_is():
    mask = land.land_mask()

    def is_land(lon: float, lat: float) -> bool:
        return bool(mask[int((90 - lat) * 2), int((lon + 180) * 2)])

    assert all(
        is_land(*place) for place in ((10.0, 50.0), (-60.0, -10.0), (134.0, -25.0), (25.0, 0.0))
    )
    assert not any(
        is_land(*place) for place in ((-30.0, 0.0), (-150.0, 40.0), (80.0, -20.0), (0.0, -45.0))
    )


def test_the_land_mask_keeps_its_values():
    mask = land.land_mask()
    assert (mask.shape, mask.dtype) == ((360, 720), np.bool_)
    assert hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() == (
        "0adc6cdd9d65472c397f596b89f1443442369ec5e1af0b9ba78c5335ecdbd645"
    )


def test_land_is_that_of_the_package_it_was_made_from():
    from global_land_mask import globe

    share = (~globe._mask).reshape(land.NUM_ROWS, 60, land.NUM_COLUMNS, 60).mean((1, 3))
    assert ((share >= 0.5) == land.land_mask()).all()
