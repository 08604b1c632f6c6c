"""Earth Engine TFRecord exports: any window equals the image that was cut into patches.

Every broken export is named in the error.
"""

import gzip
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from rasterio.windows import Window

from beam_jobs.errors import DataError
from beam_jobs.rasters import ee_tfrecord
from beam_jobs.rasters.opening import open_raster, split_member
from tests.data.scenes.make_exports import float_feature, write_export, write_records
from tests.data.scenes.make_rasters import XMIN, YMAX

SHAPE = (48, 72)
WINDOWS = ((0, 0, 48, 72), (7, 11, 1, 1), (10, 20, 25, 30), (16, 24, 16, 24), (40, 60, 8, 12))
"""Row, column, height, width: all, within a patch, over several, exactly one, the last corner."""


def planes(names=("VV", "VH", "B2")) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-30, 0, SHAPE).astype(np.float32) for name in names}


@pytest.mark.parametrize(
    ("margin", "compressed", "files"), [(0, True, 2), (8, True, 3), (4, False, 1)]
)
def test_a_window_over_patches_is_that_of_the_image(tmp_path, margin, compressed, files):
    image = planes()
    mixer = write_export(tmp_path, "x", image, margin=margin, compressed=compressed, files=files)
    with open_raster(str(mixer)) as raster:
        assert raster.descriptions == ("B2", "VH", "VV")
        assert (raster.height, raster.width) == SHAPE
        assert raster.bounds == (XMIN, YMAX - 480, XMIN + 720, YMAX)
        for row, col, height, width in WINDOWS:
            window = Window(col, row, width, height)
            expected = np.stack([image["VV"], image["B2"]])[
                :, row : row + height, col : col + width
            ]
            assert np.array_equal(raster.read([3, 1], window=window), expected)
            assert raster.window_transform(window) * (0, 0) == (XMIN + 10 * col, YMAX - 10 * row)


def test_a_thinned_out_read_is_every_nth_pixel(tmp_path):
    image = planes()
    with open_raster(str(write_export(tmp_path, "x", image, margin=4))) as raster:
        got = raster.read([1], out_shape=(1, 12, 24))
    assert np.array_equal(got[0], image["B2"][2::4, 1::3])


def test_one_band_of_an_export_and_byte_bands(tmp_path):
    ids = np.random.default_rng(1).integers(0, 256, (4, 6)).astype(np.uint8)
    record = {
        "label": tf.train.Feature(bytes_list=tf.train.BytesList(value=[ids.tobytes()])),
        "a": float_feature(ids),
    }
    mixer = write_export(tmp_path, "x", {"a": ids}, patch=(4, 6), files=1)
    write_records(tmp_path / "x-00000.tfrecord.gz", [record])
    with open_raster(f"{mixer}#label") as raster:
        assert raster.descriptions == ("label",)
        assert np.array_equal(raster.read([1])[0], ids)


def test_files_that_were_written_again_are_read_again(tmp_path):
    one, two = planes(), {name: plane + 1 for name, plane in planes().items()}
    for image in (one, two):
        with open_raster(str(write_export(tmp_path, "x", image))) as raster:
            assert np.array_equal(raster.read([1])[0], image["B2"])


def test_a_single_record_without_mixer_is_a_square_without_a_place(tmp_path):
    tiles = [
        np.random.default_rng(seed).uniform(0, 1, (5, 5)).astype(np.float32) for seed in range(3)
    ]
    path = write_records(
        tmp_path / "a.tfrecord.gz",
        [{"B2": float_feature(t), "x": float_feature(-t)} for t in tiles],
    )
    with open_raster(f"{path}#2") as raster:
        assert raster.crs is None
        assert np.array_equal(raster.read([1, 2]), np.stack([tiles[2], -tiles[2]]))
    with open_raster(f"{path}#1/x") as raster:
        assert np.array_equal(raster.read([1])[0], -tiles[1])


def refusal(path: str) -> DataError:
    with pytest.raises(DataError) as error, open_raster(path) as raster:
        raster.read(list(range(1, len(raster.descriptions) + 1)))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(path.split("#")[0].rsplit("/", 1)[0])
    return error.value


def edited(mixer, **values) -> str:
    mixer.write_text(json.dumps({**json.loads(mixer.read_text()), **values}))
    return str(mixer)


def test_a_mixer_that_does_not_fit_is_refused(tmp_path):
    mixer = write_export(tmp_path, "x", planes())
    whole = mixer.read_text()
    error = refusal(edited(mixer, totalPatches=12))
    assert error.reason == "wrong_patch_count"
    assert "says 12 patches, the 2 TFRecord files beside it hold 9" in str(error)
    mixer.write_text(whole)
    assert "9 patches, 4 a row" in str(refusal(edited(mixer, patchesPerRow=4)))
    mixer.write_text(whole)
    error = refusal(edited(mixer, patchDimensions=[17, 16]))
    assert error.reason == "wrong_patch_size"
    assert "a band has 384 values a patch, which is neither 17 x 16" in str(error)
    mixer.write_text("{}")
    assert "not a mixer file of Earth Engine: lacks 'patchDimensions'" in str(refusal(str(mixer)))
    mixer.unlink()
    error = refusal(str(mixer))
    assert error.reason == "missing_file"
    assert "the mixer file is missing" in str(error)


def test_missing_and_damaged_records_are_refused(tmp_path):
    mixer = write_export(tmp_path, "x", planes(), files=3)
    second = tmp_path / "x-00001.tfrecord.gz"
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    error = refusal(str(mixer))
    assert error.reason == "unreadable_raster"
    assert f"{second}: cut short or damaged after" in str(error)
    second.unlink()
    assert "numbered from 0 without gaps, got [0, 2]" in str(refusal(str(mixer)))
    for path in tmp_path.glob("*.gz"):
        path.unlink()
    assert "no x-00000.tfrecord.gz lies beside it" in str(refusal(str(mixer)))


def test_a_record_with_other_bands_or_sizes_is_refused(tmp_path):
    image = planes()
    mixer = write_export(tmp_path, "x", image, patch=SHAPE, files=1)
    records = [{name: float_feature(plane) for name, plane in image.items()} for _ in range(2)]
    records[1]["VV"] = float_feature(image["VV"][:-1])
    write_records(tmp_path / "x-00000.tfrecord.gz", records)
    edited(mixer, totalPatches=2)
    error = refusal(str(mixer))
    assert "patch 1: band VV has 3384 values, needs 48 x 72 = 3456" in str(error)
    del records[1]["VV"]
    write_records(tmp_path / "x-00000.tfrecord.gz", records)
    error = refusal(str(mixer))
    assert error.reason == "missing_bands"
    assert "patch 1: has no band VV; it has B2, VH" in str(error)
    assert "has no band nir; it has B2, VH, VV" in str(refusal(f"{mixer}#nir"))


def test_records_that_cannot_be_patches_are_refused(tmp_path):
    path = write_records(tmp_path / "a.tfrecord.gz", [{"B2": float_feature(np.zeros(24))}])
    assert "band B2 has 24 values, which are no square patch" in str(refusal(f"{path}#0"))
    assert "needs a record from 0 to 0 after #, got '1'" in str(refusal(f"{path}#1"))
    with gzip.open(path, "wb") as file:
        file.write(b"no record")
    assert refusal(f"{path}#0").reason == "unreadable_raster"
    write_records(path, [{}])
    assert "record 0 has no bands (exported with sequenceData?)" in str(refusal(f"{path}#0"))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff no example")
    assert refusal(f"{path}#0").reason == "unreadable_raster"


def test_a_sign_in_the_name_of_a_file_that_holds_one_raster_is_part_of_it():
    assert split_member("/a/b#1.tif") == ("/a/b#1.tif", "")
    assert split_member("/a#b/x-mixer.json") == ("/a#b/x-mixer.json", "")
    assert split_member("/a#b/x.zarr.zip#bands/0") == ("/a#b/x.zarr.zip", "bands/0")


@pytest.mark.parametrize("length", [1 << 40, (1 << 30) + 1])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_record_that_claims_all_memory_is_refused(length, is_packed, tmp_path):
    """TensorFlow would end the process: it takes the memory that the record claims."""
    path = tmp_path / "a.tfrecord.gz"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"abc")
    whole = path.read_bytes()
    # Only the length is read here; TensorFlow would need its checksum too.
    content = whole + struct.pack("<Q", length) + whole[8:]
    path.write_bytes(gzip.compress(content) if is_packed else content)
    with pytest.raises(DataError, match=f"may have 1073741824 bytes, got {length}") as refused:
        ee_tfrecord.num_records(path)
    assert refused.value.reason == "unreadable_raster"
