"""BigEarthNet: a miniature with the true names and types, and real files if present."""

import numpy as np
import pytest
import rasterio

from beam_jobs.catalogs import bigearthnet
from beam_jobs.config import PairingConfig
from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes.make_datasets import (
    S1_PATCH,
    S2_PATCH,
    make_bigearthnet,
    partner_of,
    scenes_of,
)
from tests.data.scenes.make_rasters import digital_numbers
from tests.data.scenes.real_samples import SAMPLES, needs_samples


def test_a_bigearthnet_folder_brings_all_bands_to_10_m(tmp_path):
    found = scenes_of("bigearthnet", make_bigearthnet(tmp_path))
    assert (found[S1_PATCH].acquired_at, found[S2_PATCH].acquired_at) == (1497682044, 1497699201)
    scene = inspection.inspect(found[S2_PATCH], S2_L2A_BANDS)
    assert scene.grid is not None
    assert (scene.grid.height, scene.grid.width, scene.grid.transform[0]) == (120, 120, 10.0)
    assert scene.dn_offset == 0
    got = readers.read_bands(scene, S2_L2A_BANDS, scene.grid)
    assert got.shape == (120, 120, 12)
    assert np.isfinite(got).all()
    for name in ("B2", "B8"):
        index = S2_L2A_BANDS.index(name)
        np.testing.assert_allclose(
            got[..., index], digital_numbers(1, 120, 120, index)[0] / 10_000, rtol=0, atol=1e-6
        )


def test_a_missing_band_file_is_one_bad_scene_not_the_end_of_the_catalog(tmp_path):
    make_bigearthnet(tmp_path)
    (tmp_path / "s2" / S2_PATCH / f"{S2_PATCH}_B8A.tif").unlink()
    scene = scenes_of("bigearthnet", tmp_path)[S2_PATCH]
    with pytest.raises(DataError, match=r"_B8A\.tif") as error:
        inspection.inspect(scene, S2_L2A_BANDS)
    assert error.value.reason == "missing_file"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "missing_file"),
        ("{", "bad_item"),
        ("{}", "bad_item"),
        ('{"acquisition_time": "x"}', "bad_item"),
    ],
)
def test_bad_bigearthnet_metadata_is_named(tmp_path, text, reason):
    make_bigearthnet(tmp_path)
    path = tmp_path / "s1" / S1_PATCH / f"{S1_PATCH}_labels_metadata.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    items = {item.id: item.to_dict(include_self_link=False) for item in bigearthnet.read(tmp_path)}
    with pytest.raises(DataError) as error:
        from_item(items[S1_PATCH], tmp_path / "items.ndjson")
    assert from_item(items[S2_PATCH], tmp_path / "items.ndjson").sensor == "s2"
    assert str(error.value).startswith(f"{path}: ")
    assert error.value.reason == reason


@pytest.mark.e2e
@needs_samples
def test_the_real_bigearthnet_pairs_read_at_10_m():
    found = scenes_of("bigearthnet", SAMPLES / "bigearthnet")
    s1 = [scene for scene in found.values() if scene.sensor == "s1"]
    s2 = [scene for scene in found.values() if scene.sensor == "s2"]
    assert (len(s1), len(s2)) == (6, 3)
    partners = [partner_of(scene, s2, PairingConfig())[0] for scene in s1]
    assert sorted(partner for partner in partners if partner) == sorted(
        scene.scene_id for scene in s2
    )
    for scene in s2:
        checked = inspection.inspect(scene, S2_L2A_BANDS)
        assert checked.dn_offset == 0
        pixels = readers.read_bands(checked, S2_L2A_BANDS, checked.grid)
        assert pixels.shape == (120, 120, 12)
        for name in ("B1", "B9"):
            with rasterio.open(scene.bands[name].path) as dataset:
                coarse = dataset.read(1)
            assert coarse.shape == (20, 20)
            plane = pixels[..., S2_L2A_BANDS.index(name)]
            # Interpolated: far more values than the 400 of the file, and the mean of
            # the file.
            assert np.unique(plane).size > 2000
            assert np.nanmean(plane) == pytest.approx(
                np.mean(coarse[coarse > 0]) / 10_000, rel=0.05
            )


@needs_samples
def test_the_real_bigearthnet_bands_give_the_numbers_that_rasterio_gives():
    for scene in scenes_of("bigearthnet", SAMPLES / "bigearthnet").values():
        names = tuple(scene.bands)
        scene = inspection.inspect(scene, names)
        got = readers.read_bands(scene, names, scene.grid)
        at_10_m = 0
        for channel, name in enumerate(names):
            with rasterio.open(scene.bands[name].path) as dataset:
                by_hand = dataset.read(1)
            if by_hand.shape == (120, 120):
                at_10_m += 1
                expected = by_hand if scene.sensor == "s1" else by_hand / 10_000
                np.testing.assert_allclose(got[..., channel], expected, rtol=0, atol=1e-6)
        assert at_10_m == (2 if scene.sensor == "s1" else 4)
