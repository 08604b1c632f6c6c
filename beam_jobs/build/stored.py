"""Stored results: dataclasses with counts and arrays as NPZ, never as pickles.

Input: a CutResult or a Summary. Output: bytes, and the same value from them. The folder
of a build may be writable by others, and loading a pickle runs whatever code it names.
The NPZ holds one JSON document and the arrays that it numbers.
"""

from __future__ import annotations

import dataclasses
import io
import json
import types
import typing
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.archives import Bounds, check_zip

T = TypeVar("T")
BOUNDS = Bounds(max_members=10_000, max_bytes=4 << 30)
_DOCUMENT = "document"
_SCALARS = (str, int, float, bool)
_Arrays = list[npt.NDArray[Any]]


def pack(value: Any) -> bytes:
    """Return a dataclass as the bytes of an NPZ file."""
    arrays: _Arrays = []
    document = np.frombuffer(json.dumps(_encoded(value, arrays)).encode(), np.uint8)
    buffer = io.BytesIO()
    numbered = {str(number): array for number, array in enumerate(arrays)}
    np.savez_compressed(buffer, **{_DOCUMENT: document}, **numbered)
    return buffer.getvalue()


def unpack(cls: type[T], content: bytes) -> T:
    """Return the dataclass `cls` that `pack` made `content` from.

    Raises:
        ValueError: `content` is anything else, such as a pickle or a file cut short.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_zip(archive, BOUNDS)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            document = json.loads(file[_DOCUMENT].tobytes())
            arrays = [file[str(number)] for number in range(len(file.files) - 1)]
        found: T = _decoded(cls, document, arrays)
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        OSError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        detail = " ".join(str(error).split())
        raise ValueError(f"must be an NPZ of a {cls.__name__}: {detail}") from error
    return found


def _encoded(value: Any, arrays: _Arrays) -> Any:
    """Return what JSON can hold; each array becomes its number."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"arrays must hold numbers, got {value.dtype}: NumPy would pickle it")
        arrays.append(value)
        return len(arrays) - 1
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _encoded(getattr(value, name), arrays) for name in names}
    if isinstance(value, Mapping):
        # Keys may be tuples or dataclasses, so a JSON object would not do.
        return [[_encoded(key, arrays), _encoded(item, arrays)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_encoded(item, arrays) for item in value]
    return value


def _decoded(hint: Any, node: Any, arrays: _Arrays) -> Any:
    """Return the value of type `hint` that `_encoded` made `node` from."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        values = {name: _decoded(hints[name], item, arrays) for name, item in node.items()}
        return typing.cast(Any, hint)(**values)
    if origin is np.ndarray:
        return arrays[_checked(int, node)]
    if origin is Counter:
        return Counter(
            {_decoded(arguments[0], key, arrays): _checked(int, count) for key, count in node}
        )
    if origin is dict:
        key_hint, item_hint = arguments
        return {
            _decoded(key_hint, key, arrays): _decoded(item_hint, item, arrays) for key, item in node
        }
    if origin is list:
        return [_decoded(arguments[0], item, arrays) for item in node]
    if origin is tuple:
        is_open = len(arguments) == 2 and arguments[1] is Ellipsis
        hints_of = [arguments[0]] * len(node) if is_open else arguments
        return tuple(
            _decoded(hint, item, arrays) for hint, item in zip(hints_of, node, strict=True)
        )
    if origin in (typing.Union, types.UnionType) or origin is typing.Literal:
        # Only scalars, None and names of a closed set are in unions.
        if node is not None and not isinstance(node, _SCALARS):
            raise ValueError(f"expected {hint}, got {node!r}")
        return node
    return _checked(hint, node)


def _checked(hint: Any, node: Any) -> Any:
    if hint is float and type(node) is int:
        return float(node)
    if type(node) is not hint:
        raise ValueError(f"expected {hint}, got {node!r}")
    return node
