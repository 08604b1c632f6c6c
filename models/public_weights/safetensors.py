"""Reads .safetensors files.

The format is a JSON header of names, types, shapes and byte ranges, then the bytes.
Input: a file. Output: arrays by name. These few lines replace the library of that name,
which would add one more binary wheel to the lock.

Source: https://huggingface.co/docs/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from models.public_weights import elements
from models.public_weights.elements import Array

MAX_HEADER_BYTES = 100_000_000
"""Source: the limit of the reference implementation."""
_LENGTH_BYTES = 8


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the arrays of a file by name.

    Raises:
        ValueError: the file is cut short, or its header does not match its tensors.
    """
    # Slice a view: slices of the bytes would copy 100 MB for each of 300 tensors.
    content = memoryview(path.read_bytes())
    num_header_bytes = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + num_header_bytes
    if len(content) < start or num_header_bytes > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path}: not a safetensors file, or cut short: header of {num_header_bytes} bytes"
        )
    try:
        header = json.loads(bytes(content[_LENGTH_BYTES:start]))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        # The format forbids tensors that share bytes. A copy of all the data for each
        # of a million names would fill the memory.
        ranges = [entry["data_offsets"] for entry in entries.values()]
        num_bytes = sum(max(end - begin, 0) for begin, end in ranges)
        if num_bytes > len(content) - start:
            raise ValueError(f"tensors of {num_bytes} bytes share {len(content) - start} bytes")
        return {name: _array(content[start:], entry) for name, entry in entries.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its header does not describe its tensors: {error}") from error


def _array(data: memoryview, entry: dict[str, Any]) -> Array:
    element, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not elements.is_known(element):
        raise ValueError(f"tensors of type {element!r} are not read")
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= len(data):
        raise ValueError(
            f"shape {shape} or offsets {begin}-{end} do not fit into {len(data)} bytes"
        )
    if end - begin != math.prod(shape) * elements.size_of(element):
        raise ValueError(f"shape {shape} of {element} does not take the bytes {begin}-{end}")
    return elements.decode(data[begin:end], element).reshape(shape)
