"""Stores from elsewhere run no code and do not fill the memory."""

import base64
import io
import json
import pickle
import tarfile
import tracemalloc
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd

from beam_jobs.errors import DataError
from beam_jobs.rasters import zarr_bounds, zarr_store
from beam_jobs.rasters.opening import open_raster
from tests.data.scenes.make_exports import make_batch, shard_arrays, stored_pixels, write_shard

PIXELS = np.random.default_rng(0).integers(1, 9000, (40, 40)).astype(np.int16)
BOMB_BYTES = 128 << 20


class Harmful:
    """Unpickling it runs code."""

    def __reduce__(self):
        return exec, ("raise SystemError('the pickle ran')",)


def changed(path, target, changes):
    """Copy a zip file with other members; None removes a member."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            new.writestr(name, content)
    return target


def refusal(path) -> str:
    """Return the one line that refuses a raster, and check that it took no memory."""
    tracemalloc.start()
    with pytest.raises(DataError) as refused:
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BOMB_BYTES / 4
    assert refused.value.reason == "unreadable_raster"
    assert "\n" not in str(refused.value)
    return str(refused.value)


def read(path):
    with open_raster(str(path)) as raster:
        return raster.read([1])


@pytest.fixture
def batch(tmp_path):
    return make_batch(tmp_path / "a.zarr.zip", "S2L2A")


@pytest.mark.parametrize("where", ["fill value", "filter", "codec"])
def test_no_pickle_in_an_array_is_run(where, batch, tmp_path):
    with zipfile.ZipFile(batch) as archive:
        meta = json.loads(archive.read("bands/.zarray"))
    code = base64.b64encode(pickle.dumps(Harmful())).decode()
    if where == "fill value":
        meta |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}], "fill_value": code}
    elif where == "filter":
        meta |= {"filters": [{"id": "pickle", "protocol": 4}]}
    else:
        meta |= {"compressor": {"id": "pickle", "protocol": 4}}
    path = changed(batch, tmp_path / "b.zarr.zip", {"bands/.zarray": json.dumps(meta)})
    assert "pickle" in refusal(f"{path}#bands/2/1")


@pytest.mark.parametrize(
    "codec",
    [Blosc(), LZ4(), Zstd(), Zlib(), GZip(), BZ2(), LZMA(), None],
    ids=lambda codec: codec and codec.codec_id,
)
def test_every_codec_gives_the_pixels_and_refuses_a_bomb(codec):
    store = {}
    group = zarr.open_group(store)
    group.create_dataset("a", data=PIXELS, chunks=(16, 40), compressor=codec)
    array = zarr_bounds.open_array(group, "a")
    assert (array[3:37, 5:] == PIXELS[3:37, 5:]).all()
    assert (array[...] == PIXELS).all()
    if codec is None:
        return
    store["a/0.0"] = codec.encode(np.zeros(32 << 20, np.uint8))
    assert len(store["a/0.0"]) < 2 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="a chunk takes"):
        array[:4]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_535, 65_791, 65_792, 1 << 20])
def test_the_size_of_a_zstd_frame_is_read(size):
    packed = bytes(numcodecs.Zstd().encode(np.zeros(size, np.uint8)))
    assert zarr_bounds._zstd_bytes(packed) == size


def test_texts_are_read():
    group = zarr.open_group({})
    names = np.array(["B02", "Bänd"], object)
    group.create_dataset("band", data=names, object_codec=numcodecs.VLenUTF8())
    assert zarr_store.band_names(group, "x") == ("B02", "Bänd")


def test_a_chunk_that_claims_all_memory_is_refused(batch, tmp_path):
    with zipfile.ZipFile(batch) as archive:
        meta = json.loads(archive.read("bands/.zarray"))
    meta["shape"][-2:] = meta["chunks"][-2:] = [1 << 20, 1 << 20]
    path = changed(batch, tmp_path / "b.zarr.zip", {"bands/.zarray": json.dumps(meta)})
    assert "a chunk may take" in refusal(f"{path}#bands/2/1")


def packed_zeros(num_bytes: int) -> bytes:
    """Return a deflated zip of one member of zeros, made in blocks."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bands/0.0", "w", force_zip64=True) as member,
    ):
        for _ in range(num_bytes >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def test_a_store_that_unpacks_into_too_much_is_refused(tmp_path, monkeypatch):
    bounds = zarr_bounds.Bounds(max_members=100, max_bytes=BOMB_BYTES // 2)
    monkeypatch.setattr(zarr_bounds, "STORE_BOUNDS", bounds)
    bomb = packed_zeros(BOMB_BYTES)
    assert len(bomb) < 1 << 20
    (tmp_path / "a.zarr.zip").write_bytes(bomb)
    assert "may unpack into" in refusal(f"{tmp_path}/a.zarr.zip#bands/0/0")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        member = tarfile.TarInfo("one.zarr.zip")
        member.size = len(bomb)
        shard.addfile(member, io.BytesIO(bomb))
    assert "may unpack into" in refusal(f"{tmp_path}/a.tar#one.zarr.zip/bands/0")


def test_members_may_not_share_bytes(tmp_path):
    """Overlapping members let a file of megabytes claim petabytes."""
    content = bytearray(packed_zeros(1 << 20))
    directory = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = bytes(content[directory:end])
    twice = content[:directory] + entry + entry.replace(b"bands/0.0", b"bands/0.1")
    twice += content[end : end + 8] + b"\2\0\2\0" + (2 * len(entry)).to_bytes(4, "little")
    (tmp_path / "a.zarr.zip").write_bytes(twice + content[end + 16 :])
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as archive:
        assert archive.namelist() == ["bands/0.0", "bands/0.1"]
    assert "shares bytes" in refusal(f"{tmp_path}/a.zarr.zip#bands/0/0")


def test_a_shard_of_too_many_members_is_refused(tmp_path, monkeypatch):
    arrays = shard_arrays("S1RTC", 4)
    path = write_shard(tmp_path / "a.tar", {"one.zarr.zip": arrays, "two.zarr.zip": arrays})
    monkeypatch.setattr(zarr_bounds, "MAX_SHARD_MEMBERS", 1)
    assert "may have 1 members" in refusal(f"{path}#one.zarr.zip/bands/0")


def test_a_member_of_a_shard_beyond_its_end_is_refused(tmp_path):
    path = write_shard(tmp_path / "a.tar", {"one.zarr.zip": shard_arrays("S1RTC", 4)})
    assert np.array_equal(read(f"{path}#one.zarr.zip/bands/0"), stored_pixels("S1RTC", 4)[:1])
    member = tarfile.TarInfo("two.zarr.zip")
    member.size = 1 << 40
    with tarfile.open(path, "r:") as shard:
        end = max(found.offset_data + found.size for found in shard)
    with path.open("r+b") as file:
        file.truncate(-(-end // 512) * 512)
        file.seek(0, 2)
        file.write(member.tobuf() + bytes(1024))
    assert "unexpected end of data" in refusal(f"{path}#two.zarr.zip/bands/0")


def test_names_in_a_shard_are_no_paths(tmp_path):
    source = write_shard(tmp_path / "source.tar", {"one.zarr.zip": shard_arrays("S1RTC", 4)})
    path = tmp_path / "a.tar"
    with tarfile.open(source) as old, tarfile.open(path, "w") as new:
        content = old.extractfile("one.zarr.zip").read()
        member = tarfile.TarInfo("../../one.zarr.zip")
        member.size = len(content)
        new.addfile(member, io.BytesIO(content))
    assert zarr_store.store_names(str(path)) == ["../../one.zarr.zip"]
    before = sorted(tmp_path.parent.iterdir())
    assert np.array_equal(read(f"{path}#../../one.zarr.zip/bands/0"), stored_pixels("S1RTC", 4)[:1])
    assert sorted(tmp_path.parent.iterdir()) == before
