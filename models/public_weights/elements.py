"""Element types of stored tensors: raw little-endian bytes -> NumPy arrays.

The readers of the two file formats check sizes and bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Names as in safetensors. Source: https://huggingface.co/docs/safetensors (format) and
# torch/storage.py (PyTorch's names).
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}
TORCH_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Storage classes of `torch` that a checkpoint names -> element type."""


def is_known(element: str) -> bool:
    """Return whether `decode` can read the element type."""
    return element in _DTYPES


def size_of(element: str) -> int:
    """Return the number of bytes of one element."""
    return np.dtype(_DTYPES[element]).itemsize


def decode(raw: bytes | memoryview, element: str) -> Array:
    """Return the values in `raw` as a one-dimensional array.

    NumPy has no bfloat16; it becomes float32.
    """
    values = np.frombuffer(raw, _DTYPES[element])
    if element == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values
