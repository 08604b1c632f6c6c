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
import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from beam_jobs.contracts.archives import Bounds, check_zip
from models.public_weights import elements
from models.public_weights.elements import Array

BOUNDS = Bounds(max_members=100_000, max_bytes=64 << 30)
"""A state dict has one member for each tensor, about 320 for a ResNet-50."""
MAX_PICKLE_BYTES = 16 << 20
"""Largest pickle. One tensor takes about 200 bytes in it, a ResNet-50 60 kB."""
MAX_COPIES = 2
"""Tensors may take so many times the bytes of all storages; tied weights share one."""


def read_torch_zip(path: Path) -> Any:
    """Return the pickled object.

    Raises:
        ValueError: the file is not a zip of PyTorch, its pickle holds anything but
            tensors, containers, numbers and text, or it would take more memory than a
            state dict needs.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: must be a zip file of torch.save: load and save a file "
            "from before PyTorch 1.6 again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, BOUNDS)
            (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            content = _checked_pickle(archive, pickled)
            root = pickled.removesuffix("data.pkl")
            return _TensorUnpickler(io.BytesIO(content), archive, root).load()
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


def _checked_pickle(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the pickle of the archive, if loading it takes no more memory than itself.

    Raises:
        UnpicklingError: it is too large, or its memo has gaps. The unpickler makes a
            memo as long as the largest number that the pickle names.
    """
    size = archive.getinfo(name).file_size
    if size > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(
            f"the pickle may have {MAX_PICKLE_BYTES} bytes, got {size}: save only the state_dict"
        )
    content = archive.read(name)
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise pickle.UnpicklingError(f"the memo may have {len(content)} entries")
    return content


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows only the names that a state dict needs."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Array] = {}
        data = [entry for entry in archive.infolist() if entry.filename.startswith(f"{root}data/")]
        # bfloat16 becomes float32, which takes twice the bytes.
        self._num_bytes_left = 2 * MAX_COPIES * sum(entry.file_size for entry in data)
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
            return self._rebuild_tensor
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
        if key in self._storages:
            return self._storages[key]
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        # Compare sizes before reading: a small zip could unpack into all of the memory.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != num_elements * elements.size_of(element)
        ):
            raise pickle.UnpicklingError(
                f"storage {key} must hold {num_elements} {element}, got {entry.file_size} bytes"
            )
        self._storages[key] = elements.decode(self._archive.read(entry), element)
        return self._storages[key]

    def _rebuild_tensor(self, *arguments: Any) -> Array:
        tensor = _rebuild_tensor(*arguments)
        self._num_bytes_left -= tensor.nbytes
        if self._num_bytes_left < 0:
            raise pickle.UnpicklingError(
                f"tensors may take {MAX_COPIES} times the bytes of their storages, got more"
            )
        return tensor


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
