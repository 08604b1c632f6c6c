"""SSL4EO-S12 v1: a miniature with the true names, types and CRS, from the catalog to the shards."""

import numpy as np
import pytest

from beam_jobs.build.driver import build_pairs
from beam_jobs.catalogs import ssl4eo
from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, readers
from tests.data.scenes.make_datasets import (
    SSL4EO_S1,
    SSL4EO_S2,
    built_patches,
    make_ssl4eo,
    ramp,
    ramp_db,
    ramp_l1c,
    scenes_of,
    small_config,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_ssl4eo(tmp_path_factory.mktemp("ssl4eo"))


def test_each_location_of_a_granule_is_a_scene_with_the_time_of_the_name(folder):
    found = scenes_of("ssl4eo", folder)
    assert len(found) == 3 * 3
    # 2020-06-07 01:08:08 and 2020-06-04 05:46:39, UTC.
    assert found[f"s1_0000001_{SSL4EO_S1.format('010808')}"].acquired_at == 1591492088
    assert found[f"s2c_0000001_{SSL4EO_S2.format('010808')}"].acquired_at == 1591249599
    levels = {name[:3]: scene.processing_level for name, scene in found.items()}
    assert levels == {"s1_": "", "s2c": "L1C", "s2a": "L2A"}


def test_pixels_are_those_of_the_band_files_and_fill_is_no_data(folder):
    found = scenes_of("ssl4eo", folder)
    s1 = inspection.inspect(found[f"s1_0000002_{SSL4EO_S1.format('010908')}"], ("VV", "VH"))
    got = readers.read_bands(s1, ("VV", "VH"), s1.grid)
    assert np.isnan(got[:3]).all()
    assert got[3:] == pytest.approx(ramp_db(64, 2).transpose(1, 2, 0)[3:], abs=1e-5)
    for product, bands, dn in (
        ("s2c", S2_L1C_BANDS, ramp_l1c(64, 2)),
        ("s2a", S2_L2A_BANDS, ramp(12, 64, 5)),
    ):
        s2 = inspection.inspect(found[f"{product}_0000002_{SSL4EO_S2.format('010908')}"], bands)
        got = readers.read_bands(s2, bands, s1.grid)
        np.testing.assert_allclose(got, dn.transpose(1, 2, 0) / 10_000, rtol=0, atol=1e-6)


@pytest.mark.e2e
@pytest.mark.parametrize(("level", "product"), [("L1C", "s2c"), ("L2A", "s2a")])
def test_a_build_pairs_the_sensors_of_each_location(folder, tmp_path, level, product):
    _, found = built_patches(build_pairs, small_config(level), "ssl4eo", folder, tmp_path)
    locations = set()
    for patch in found:
        assert patch.s2_scene_id.startswith(product)
        location = patch.s1_scene_id.split("_")[1]
        assert patch.s2_scene_id.split("_")[1] == location
        assert patch.time_gap_hours == pytest.approx(-67.36, abs=0.02)
        locations.add(location)
        # Both ramps rise by the same steps, so they differ by a constant of the
        # location alone.
        seed = int(location) + (3 if level == "L2A" else 0)
        difference = patch.s2[..., 0] * 10_000 - (patch.s1[..., 0] + 22) * 100
        valid = np.isfinite(difference)
        assert valid.mean() > 0.7
        assert difference[valid] == pytest.approx(
            np.full(valid.sum(), 200.0 * (seed - int(location))), abs=1.5
        )
    assert locations == {"0000000", "0000001", "0000002"}


@pytest.mark.parametrize(
    ("name", "message"), [("granule", "its name needs a time"), ("20201399T000000", "is not valid")]
)
def test_a_granule_without_a_time_is_named(tmp_path, name, message):
    (tmp_path / "s1" / "0000000" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=message) as error:
        list(ssl4eo.read(tmp_path))
    assert error.value.reason == "bad_item"


def test_images_from_before_2022_carry_no_offset_and_later_ones_must_show_it(tmp_path):
    make_ssl4eo(tmp_path)
    old = tmp_path / "s2a" / "0000002" / SSL4EO_S2.format("010908")
    old.rename(old.with_name(old.name.replace("20200604", "20220604")))
    offsets = {
        name: scene.dn_offset
        for name, scene in scenes_of("ssl4eo", tmp_path).items()
        if "s2" in name
    }
    assert offsets.pop(f"s2a_0000002_{old.name.replace('20200604', '20220604')}") is None
    assert set(offsets.values()) == {0}
