"""Random access to gzip files: any part is read at the same cost.

Input: a gzip file. Output: any range of its content. Without an index, all content
before a range would have to be decompressed.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_POINT_BYTES = 4 << 20
"""Content between two kept states.

A state is about 50 kB, so 1 GiB of content costs about 13 MB.
"""
_BLOCK_BYTES = 1 << 16
_GZIP_WBITS = 31
"""Makes zlib read gzip's header and checksum.

Source: https://docs.python.org/3/library/zlib.html#zlib.decompress
"""


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A place from which decompression can go on.

    Attributes:
        position: bytes of content before it.
        file_offset: bytes of the compressed file before it.
        state: zlib's decompressor; it is copied before use.
    """

    position: int
    file_offset: int
    state: Any


class GzipIndex:
    """States of the decompressor along a file; the content itself is not held."""

    def __init__(self, path: str, on_content: Callable[[bytes], None] | None = None) -> None:
        """Read the file once; `on_content` gets each piece of its content."""
        self._path = path
        start = _Point(position=0, file_offset=0, state=zlib.decompressobj(_GZIP_WBITS))
        self._points = [start]
        position = 0
        with open(path, "rb") as file:
            for content, state in _inflate(file, start.state.copy()):
                if on_content is not None:
                    on_content(content)
                position += len(content)
                if position - self._points[-1].position >= _POINT_BYTES and not state.eof:
                    self._points.append(
                        _Point(position=position, file_offset=file.tell(), state=state.copy())
                    )

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes of content from `offset` on.

        Raises:
            EOFError: the content ends before.
        """
        after = bisect_right(self._points, offset, key=lambda point: point.position)
        point = self._points[after - 1]
        position = point.position
        found = bytearray()
        with open(self._path, "rb") as file:
            file.seek(point.file_offset)
            for content, _ in _inflate(file, point.state.copy()):
                found += content[max(offset - position, 0) :]
                position += len(content)
                if len(found) >= length:
                    return bytes(found[:length])
        raise EOFError(f"content ends before byte {offset + length}")


def _inflate(file: BinaryIO, state: Any) -> Iterator[tuple[bytes, Any]]:
    """Yield the content of each block, with the decompressor's state after it.

    Reading begins at the file's current position.
    """
    while block := file.read(_BLOCK_BYTES):
        content = b""
        while block:
            # A file may be several gzip streams in a row.
            state = zlib.decompressobj(_GZIP_WBITS) if state.eof else state
            content += state.decompress(block)
            block = state.unused_data
        yield content, state
