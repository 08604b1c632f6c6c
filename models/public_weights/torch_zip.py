"""Reads files of `torch.save` (.pth, .pt, since PyTorch 1.6).

The format is a zip of one pickle and one file per storage. Input: a file. Output: the
pickled tree of dicts, lists and numbers, with tensors as NumPy arrays. A pickle can
call any function. This reader allows only tensors and ordered dicts, and refuses
everything else before it is loaded.

Source: PyTorch 2.13, torch/serialization.py and torch/_utils.py (names and arguments of
the functions that rebuild tensors).
"""

from __future__ import annotations

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from models.public_weights import elements
from models.public_weights.elements import Array


def read_torch_zip(path: Path) -> Any:
    """Return the pickled object.

    Raises:
        ValueError: the file is not a zip of PyTorch, or its pickle holds anything but
            tensors, containers, numbers and text.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: must be a zip file of torch.save: load and save a file "
            "from before PyTorch 1.6 again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(pickled) as file:
                return _TensorUnpickler(file, archive, pickled.removesuffix("data.pkl")).load()
    # All that a crafted or damaged file can make pickle and zipfile raise.
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,  # also: an encrypted file, an unknown compression, nesting too deep
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path}: the state dict cannot be read: {error}") from error


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows only the names that a state dict needs."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        if (
            f"{root}byteorder" in archive.namelist()
            and archive.read(f"{root}byteorder") != b"little"
        ):
            raise ValueError("written on a big-endian machine")

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may call; this is the only way to get a callable."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in elements.TORCH_STORAGES:
            # Return a text, not a class: storages are read by their persistent id and
            # never called.
            return elements.TORCH_STORAGES[name]
        raise pickle.UnpicklingError(
            f"holds {module}.{name}, only tensors and dicts are read: "
            "save only the state_dict, or use safetensors"
        )

    def persistent_load(self, pid: Any) -> Array:
        """Return a storage.

        Its id is ("storage", type, key, device, number of elements).
        """
        _, element, key, _, num_elements = pid
        if element not in elements.TORCH_STORAGES.values():
            raise pickle.UnpicklingError(f"storage of type {element!r} is not read")
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        # Compare sizes before reading: a small zip could unpack into all of the memory.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != num_elements * elements.size_of(element)
        ):
            raise pickle.UnpicklingError(
                f"storage {key} must hold {num_elements} {element}, got {entry.file_size} bytes"
            )
        return elements.decode(self._archive.read(entry), element)


def _rebuild_tensor(
    storage: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> Array:
    """Return a copy of a tensor's view of its storage."""
    if (
        not isinstance(storage, np.ndarray)
        or len(shape) != len(strides)
        or min((offset, *shape, *strides)) < 0
    ):
        raise pickle.UnpicklingError(
            f"tensor with shape {shape}, strides {strides} and offset {offset}"
        )
    last = offset + sum(
        (length - 1) * stride for length, stride in zip(shape, strides, strict=True)
    )
    # Reading out of bounds would expose other memory. A tensor larger than its storage
    # would repeat it without end.
    if math.prod(shape) and (last >= storage.size or math.prod(shape) > storage.size):
        raise pickle.UnpicklingError(
            f"tensor with shape {shape} reaches outside of its storage of {storage.size}"
        )
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False).copy()


def _rebuild_parameter(data: Array, *_: Any) -> Array:
    return data
