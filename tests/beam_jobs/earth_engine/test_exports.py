"""Batch exports followed to their end: files equal to the scene, states, failures, cancelling."""

import json
import time

import numpy as np
import pytest
import rasterio

from beam_jobs.earth_engine.client import ee
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.exports import TaskState, get_task, start_export
from beam_jobs.emulator.faults import FaultsConfig


def wait(task_id: str) -> TaskState:
    for _ in range(600):
        state = get_task(task_id)
        if state.state in ("SUCCEEDED", "CANCELLED", "FAILED"):
            return state
        time.sleep(0.05)
    raise TimeoutError(state)


def test_a_geotiff_is_exported_and_found_in_the_bucket(world, emulator, request_of):
    item = world.of_sensor("s1")[0]
    request = request_of(item, row=16, height=60, width=48)
    task_id = start_export(request, bucket="exports", prefix="run-1/patch", file_format="GEO_TIFF")
    state = wait(task_id)
    assert (state.task_id, state.state, state.error) == (task_id, "SUCCEEDED", "")
    assert state.destination_uris == (
        "https://console.developers.google.com/storage/browser/exports/run-1",
    )
    assert state.eecu_seconds == pytest.approx(0.03 + 1e-7 * 60 * 48 * 2)
    with rasterio.open(emulator.buckets_dir / "exports" / "run-1" / "patch.tif") as dataset:
        assert (dataset.nodata, dataset.descriptions) == (-32768.0, ("VV", "VH"))
        assert tuple(dataset.transform)[:6] == request.transform
        expected = np.nan_to_num(world.pixels(item)[:, 16:76, :48], nan=-32768.0)
        np.testing.assert_array_equal(dataset.read(), expected)


def test_a_large_export_is_split_as_earth_engine_names_the_parts(world, emulator, request_of):
    item = world.of_sensor("s2")[0]
    # The server of these tests splits at 64 pixels.
    assert (
        wait(
            start_export(
                request_of(item, height=64, width=100),
                bucket="exports",
                prefix="split/s2",
                file_format="GEO_TIFF",
            )
        ).state
        == "SUCCEEDED"
    )
    folder = emulator.buckets_dir / "exports" / "split"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["s2-0000000000-0000000000.tif", "s2-0000000000-0000000064.tif"]
    scene = world.pixels(item)[[7, 1, 11]]
    for name, cols in zip(names, (slice(0, 64), slice(64, 100)), strict=True):
        with rasterio.open(folder / name) as dataset:
            np.testing.assert_array_equal(dataset.read(), scene[:, :64, cols])
            assert dataset.transform.c == item["properties"]["proj:transform"][2] + 10 * cols.start


@pytest.mark.e2e
def test_tfrecord_patches_and_mixer_describe_the_same_pixels(world, emulator, request_of):
    import tensorflow as tf

    item = world.of_sensor("s2")[0]
    request = request_of(item, height=70, width=100, bands=("B4",), cloud_score=True)
    assert (
        wait(
            start_export(
                request, bucket="exports", prefix="tf/s2", file_format="TFRECORD", patch_size_px=32
            )
        ).state
        == "SUCCEEDED"
    )
    folder = emulator.buckets_dir / "exports" / "tf"
    assert sorted(path.name for path in folder.iterdir()) == [
        "s2-00000.tfrecord.gz",
        "s2-mixer.json",
    ]
    mixer = json.loads((folder / "s2-mixer.json").read_text())
    # 70 x 100 pixels hold 2 x 3 whole patches of 32; the rest is trimmed.
    assert (mixer["patchDimensions"], mixer["patchesPerRow"], mixer["totalPatches"]) == (
        [32, 32],
        3,
        6,
    )
    assert mixer["projection"] == {
        "crs": request.crs,
        "affine": {"doubleMatrix": list(request.transform)},
    }
    feature = {name: tf.io.FixedLenFeature([32, 32], tf.float32) for name in request.answer_bands}
    records = tf.data.TFRecordDataset(str(folder / "s2-00000.tfrecord.gz"), "GZIP")
    patches = [tf.io.parse_single_example(record, feature) for record in records]
    red = world.pixels(item)[3]
    for index, patch in enumerate(patches):
        row, col = 32 * (index // 3), 32 * (index % 3)
        np.testing.assert_array_equal(patch["B4"], red[row : row + 32, col : col + 32])
    assert len(patches) == 6


def test_an_export_that_fails_says_why(world, emulator, request_of):
    emulator.service.set_faults(FaultsConfig(failing_exports=1.0))
    state = wait(
        start_export(
            request_of(world.of_sensor("s1")[0]),
            bucket="exports",
            prefix="fails/s1",
            file_format="GEO_TIFF",
        )
    )
    assert state.state == "FAILED"
    assert "internal error" in state.error
    assert not (emulator.buckets_dir / "exports" / "fails").exists()


def test_a_waiting_export_can_be_cancelled_and_an_ended_one_stays(world, emulator, request_of):
    requests = [request_of(world.of_sensor("s1")[0], col=col) for col in range(4)]
    ids = [
        start_export(request, bucket="exports", prefix=f"cancel/{n}", file_format="GEO_TIFF")
        for n, request in enumerate(requests)
    ]
    # Two run at a time, so the last has not begun.
    ee.data.cancelOperation(ids[-1])
    assert wait(ids[-1]).state == "CANCELLED"
    assert wait(ids[0]).state == "SUCCEEDED"
    ee.data.cancelOperation(ids[0])
    assert get_task(ids[0]).state == "SUCCEEDED"
    assert wait(ids[2]).state == "SUCCEEDED"
    assert not (emulator.buckets_dir / "exports" / "cancel" / "3.tif").exists()


def test_an_unknown_task_is_not_found(emulator):
    with pytest.raises(EarthEngineError, match="no-such") as caught:
        get_task("projects/terrapair-emulator/operations/no-such")
    assert (caught.value.reason, caught.value.status) == ("not_found", 404)


def test_a_refused_export_is_an_error_at_once(world, emulator, request_of):
    emulator.service.set_faults(FaultsConfig(too_many_requests=1.0))
    with pytest.raises(EarthEngineError, match="export of COPERNICUS/S1_GRD") as caught:
        start_export(
            request_of(world.of_sensor("s1")[0]),
            bucket="exports",
            prefix="x",
            file_format="GEO_TIFF",
        )
    assert caught.value.reason == "quota_exceeded"
