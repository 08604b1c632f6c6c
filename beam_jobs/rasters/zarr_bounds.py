"""Bounds of zarr stores: nothing in a store runs code or unpacks without a limit.

Input: a zip or tar file, or an array of a store. Output: the same, checked. A store
comes from elsewhere. One of zarr's codecs is pickle, which runs code when an array is
opened, and a chunk of a few kilobytes can unpack into all of the memory.
"""

from __future__ import annotations

import bz2
import itertools
import json
import lzma
import math
import tarfile
import zipfile
import zlib
from typing import Any

import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.blosc import cbuffer_sizes
from numcodecs.compat import ensure_bytes, ndarray_copy

from beam_jobs.contracts.archives import ArchiveError, Bounds, check_zip

STORE_BOUNDS = Bounds(max_members=1_000_000, max_bytes=8 << 30)
"""A store of one patch has about 50 members; a batch of 64 patches takes 0.2 GB."""
MAX_SHARD_MEMBERS = 1_000_000
MAX_CHUNK_BYTES = 1 << 30
"""Largest chunk. The chunks of SSL4EO-S12 and TerraMesh take 1 to 100 MB."""
MAX_COORDINATE_BYTES = 64 << 20
"""Largest array of texts. Coordinates hold one value for each row or column."""
_CODECS = frozenset(("blosc", "lz4", "zstd", "zlib", "gzip", "bz2", "lzma"))
_FILTERS = frozenset(
    ("astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle")
)
_TEXT_FILTER = "vlen-utf8"


class BoundedCodec(Codec):
    """A codec that refuses chunks larger than the array declares."""

    codec_id = "terrapair-bounded"

    def __init__(self, codec: Codec, max_bytes: int) -> None:
        self._codec, self._max_bytes = codec, max_bytes

    def encode(self, buf: Any) -> Any:
        """Return encoded bytes; nothing writes arrays here."""
        return self._codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the decoded bytes, at most as many as a chunk has.

        Raises:
            ValueError: the chunk is larger.
        """
        packed = ensure_bytes(buf)
        kind = self._codec.codec_id
        if kind in ("blosc", "lz4", "zstd"):
            claimed = _claimed_bytes(kind, packed)
            if claimed > self._max_bytes:
                raise ValueError(f"a chunk takes {claimed} bytes, not {self._max_bytes}")
            return self._codec.decode(packed, out)
        content = _unpacked(kind, packed, self._max_bytes)
        if len(content) > self._max_bytes:
            raise ValueError(f"a chunk takes more than its {self._max_bytes} bytes")
        return ndarray_copy(content, out)


def members_of(shard: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of a tar file; `tarfile` checks that the file holds them.

    Raises:
        ArchiveError: there are too many.
    """
    members = list(itertools.islice(shard, MAX_SHARD_MEMBERS + 1))
    if len(members) > MAX_SHARD_MEMBERS:
        raise ArchiveError(f"an archive may have {MAX_SHARD_MEMBERS} members here, got more")
    return members


def check_store(archive: zipfile.ZipFile) -> None:
    """Check the members of a zipped store.

    Raises:
        ArchiveError: there are too many or too large members.
    """
    check_zip(archive, STORE_BOUNDS)


def open_array(group: zarr.Group, name: str) -> zarr.Array | None:
    """Return an array of a group, with bounded chunks; None when there is none.

    Raises:
        ValueError: the array has a type or a codec that is not read, or too large
            chunks.
    """
    key = f"{group.path}/{name}/.zarray".lstrip("/")
    if key not in group.store:
        return None
    # Read the metadata before zarr does: opening an array of objects already decodes
    # its fill value.
    meta = json.loads(ensure_bytes(group.store[key]))
    max_bytes = _checked_chunk_bytes(meta, name)
    array = group[name]
    if array.compressor is not None:
        array._compressor = BoundedCodec(array.compressor, max_bytes)
    return array


def _checked_chunk_bytes(meta: dict[str, Any], name: str) -> int:
    """Return the most bytes that a decompressed chunk of an array may take."""
    try:
        kind, sizes = meta["dtype"], (meta["shape"], meta["chunks"])
        codec = (meta.get("compressor") or {"id": None})["id"]
        filters = [entry["id"] for entry in meta.get("filters") or ()]
        is_sized = all(type(size) is int and size >= 0 for part in sizes for size in part)
    except (KeyError, TypeError) as error:
        raise ValueError(f"array {name!r} has no plain metadata: {error}") from error
    if not isinstance(kind, str) or not is_sized:
        raise ValueError(f"array {name!r} must have a plain type and sizes, got {kind!r}")
    if codec is not None and codec not in _CODECS:
        raise ValueError(f"array {name!r} has the codec {codec!r}, which is not read")
    is_text = np.dtype(kind).hasobject
    if filters != [_TEXT_FILTER] if is_text else not _FILTERS.issuperset(filters):
        raise ValueError(f"array {name!r} has the filters {filters}, which are not read")
    if is_text:
        return MAX_COORDINATE_BYTES
    num_bytes = math.prod(meta["chunks"]) * np.dtype(kind).itemsize
    if num_bytes > MAX_CHUNK_BYTES:
        raise ValueError(
            f"array {name!r}: a chunk may take {MAX_CHUNK_BYTES} bytes, got {num_bytes}"
        )
    # A filter may store values in a wider type, of 8 bytes at most.
    return num_bytes if not filters else 8 * math.prod(meta["chunks"])


def _claimed_bytes(kind: str, packed: bytes) -> int:
    """Return the size that the header of a packed chunk tells."""
    if kind == "blosc":
        return int(cbuffer_sizes(packed)[0])
    if kind == "lz4":
        return int.from_bytes(packed[:4], "little")
    return _zstd_bytes(packed)


def _zstd_bytes(packed: bytes) -> int:
    """Return the content size of a zstd frame.

    Source: RFC 8878, section 3.1.1.1 (frame header).

    Raises:
        ValueError: the frame does not tell its size.
    """
    descriptor = packed[4] if len(packed) > 4 else 0
    size_flag, is_single = descriptor >> 6, bool(descriptor & 0x20)
    width = 1 << size_flag if size_flag or is_single else 0
    if not width:
        raise ValueError("a chunk does not tell its size")
    start = 5 + (0 if is_single else 1) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(packed[start : start + width], "little") + (256 if width == 2 else 0)


def _unpacked(kind: str, packed: bytes, max_bytes: int) -> bytes:
    """Return the content of a packed chunk, at most one byte more than allowed."""
    if kind in ("zlib", "gzip"):
        # 32 more than the window's 15 bits lets zlib find out which of both it is.
        return zlib.decompressobj(32 + 15).decompress(packed, max_bytes + 1)
    if kind == "bz2":
        return bz2.BZ2Decompressor().decompress(packed, max_bytes + 1)
    return lzma.LZMADecompressor().decompress(packed, max_bytes + 1)
