"""Zarr stores: any window of any member equals the array; broken stores are named."""

import numpy as np
import pytest
import zarr
from rasterio.windows import Window

from beam_jobs.errors import DataError
from beam_jobs.rasters import zarr_store
from beam_jobs.rasters.opening import open_raster
from tests.data.scenes.make_exports import (
    SIDE,
    centres,
    make_batch,
    shard_arrays,
    stored_pixels,
    write_group,
    write_shard,
)


def test_a_member_of_a_batch_is_one_location_at_one_season(tmp_path):
    path = make_batch(tmp_path / "a.zarr.zip", "S2L2A")
    with open_raster(f"{path}#bands/2/1") as raster:
        assert raster.descriptions[:2] == ("B01", "B02")
        assert raster.crs.to_epsg() == 32643
        x, y = centres(2)
        assert raster.bounds == (x[0] - 5, y[-1] - 5, x[-1] + 5, y[0] + 5)
        got = raster.read([9, 1], window=Window(5, 3, 10, 20))
    assert np.array_equal(got, stored_pixels("S2L2A", 2 + 3)[[8, 0], 3:23, 5:15] + 1000)


def test_a_store_in_a_shard_may_order_its_dimensions_otherwise(tmp_path):
    arrays = shard_arrays("S1RTC", 4)
    swapped = {
        **arrays,
        "bands": (("time", "y", "x", "band"), arrays["bands"][1].transpose(1, 2, 3, 0), {}),
    }
    path = write_shard(tmp_path / "a.tar", {"one.zarr.zip": arrays, "two.zarr.zip": swapped})
    assert zarr_store.store_names(str(path)) == ["one.zarr.zip", "two.zarr.zip"]
    for name in ("one", "two"):
        with open_raster(f"{path}#{name}.zarr.zip/bands/0") as raster:
            assert raster.descriptions == ("vv", "vh")
            assert np.array_equal(raster.read([2, 1]), stored_pixels("S1RTC", 4)[::-1])
            thinned = raster.read([1, 2], out_shape=(2, 16, 24))
            assert np.array_equal(thinned, stored_pixels("S1RTC", 4)[:, 1::3, 1::2])


def test_a_plane_without_bands_is_one_band(tmp_path):
    path = make_batch(tmp_path / "a.zarr.zip", "S2L1C")
    with open_raster(f"{path}#cloud_mask/0/1") as raster:
        assert raster.descriptions == ("cloud_mask",)
        assert raster.read([1]).shape == (1, SIDE, SIDE)


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([86400], "seconds since 2020-01-01 00:00:00", "2020-01-02T00:00:00"),
        ([36], "hours since 2020-01-01T12:00:00.000000", "2020-01-03T00:00:00"),
        ([1_591_492_088_000_000_000], None, "2020-06-07T01:08:08"),
    ],
)
def test_times_are_decoded_by_their_unit(values, units, expected):
    store = {}
    write_group(store, {"time": (("time",), np.array(values), {"units": units} if units else {})})
    assert zarr_store.times(zarr.open_group(store), "time", "x").tolist() == [
        np.datetime64(expected).item()
    ]


def refusal(path: str) -> str:
    with pytest.raises(DataError) as error, open_raster(path) as raster:
        raster.read([1])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("bands/3/0", "bands needs the indexes <sample below 3>/<time below 2>, got '3/0'"),
        ("bands/0", "bands needs the indexes <sample below 3>/<time below 2>, got '0'"),
        ("pixels/0/0", "has no array 'pixels'; it has band, bands,"),
    ],
)
def test_a_member_that_is_not_there_is_named(tmp_path, member, message):
    path = make_batch(tmp_path / "a.zarr.zip", "S1GRD")
    assert message in refusal(f"{path}#{member}")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("crs", None, "has no array 'crs'"),
        ("crs", ((), np.array(1), {}), "crs must be an EPSG code, got 1"),
        ("x", (("x",), np.arange(SIDE) ** 2.0, {}), "the coordinates x are not evenly spaced"),
        (
            "bands",
            ((), np.zeros((2, 1, SIDE, SIDE)), {}),
            "array 'bands' does not name its 4 dimensions",
        ),
    ],
)
def test_a_store_without_what_places_it_is_refused(tmp_path, name, change, message):
    arrays = shard_arrays("S1RTC", 0)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change
    path = write_shard(tmp_path / "a.tar", {"one.zarr.zip": arrays})
    assert message in refusal(f"{path}#one.zarr.zip/bands/0")


def test_files_cut_short_are_refused(tmp_path):
    path = make_batch(tmp_path / "a.zarr.zip", "S1GRD")
    path.write_bytes(path.read_bytes()[:-200])
    assert f"{path}: not a readable zarr store" in refusal(f"{path}#bands/0/0")
    shard = write_shard(tmp_path / "a.tar", {"one.zarr.zip": shard_arrays("S1RTC", 0)})
    assert "#two.zarr.zip: not a readable zarr store" in refusal(f"{shard}#two.zarr.zip/bands/0")
    shard.write_bytes(b"no tar" * 200)
    assert "not a readable zarr store" in refusal(f"{shard}#one.zarr.zip/bands/0")
    shard.unlink()
    assert "no such file" in refusal(f"{shard}#one.zarr.zip/bands/0")
