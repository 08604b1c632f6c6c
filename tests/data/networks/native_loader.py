"""Load SavedModels as TensorFlow Serving does: by TensorFlow's C++ loader, by ctypes.

Python has a loader of its own. The C++ one is in the same library, under the C API.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_FLOAT = 1
"""TF_FLOAT in tensorflow/c/tf_datatype.h."""


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(tf.__file__).parent / "libtensorflow_cc.so.2"))
    for name in (
        "TF_NewStatus",
        "TF_NewSessionOptions",
        "TF_NewGraph",
        "TF_LoadSessionFromSavedModel",
        "TF_GraphOperationByName",
        "TF_AllocateTensor",
        "TF_TensorData",
    ):
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    library.TF_Message.restype = ctypes.c_char_p
    return library


def answer(folder: Path, signature: str, values: np.ndarray) -> np.ndarray:
    """Return what a signature with one float32 input and one output answers, flat.

    Raises:
        ValueError: the model does not load, or does not answer.
    """
    document = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (called,) = [document.meta_graphs[0].signature_def[signature]]
    (source,), (target,) = called.inputs.values(), called.outputs.values()
    library = _library()
    status, graph, options = (
        ctypes.c_void_p(make())
        for make in (library.TF_NewStatus, library.TF_NewGraph, library.TF_NewSessionOptions)
    )

    def check() -> None:
        if library.TF_GetCode(status):
            raise ValueError(library.TF_Message(status).decode())

    def find(name: str) -> ctypes.Array:
        operation, _, index = name.partition(":")
        found = library.TF_GraphOperationByName(graph, operation.encode())
        return (_Output * 1)(_Output(found, int(index)))

    tags = (ctypes.c_char_p * 1)(b"serve")
    session = library.TF_LoadSessionFromSavedModel(
        options, None, bytes(folder), tags, 1, graph, None, status
    )
    check()
    values = np.ascontiguousarray(values, np.float32)
    shape = (ctypes.c_int64 * values.ndim)(*values.shape)
    size = ctypes.c_size_t(values.nbytes)
    given = ctypes.c_void_p(library.TF_AllocateTensor(_FLOAT, shape, values.ndim, size))
    ctypes.memmove(library.TF_TensorData(given), values.tobytes(), values.nbytes)
    found = (ctypes.c_void_p * 1)()
    library.TF_SessionRun(
        ctypes.c_void_p(session),
        None,
        *(find(source.name), (ctypes.c_void_p * 1)(given), 1),
        *(find(target.name), found, 1),
        *(None, 0, None, status),
    )
    check()
    tensor = ctypes.c_void_p(found[0])
    data = ctypes.string_at(library.TF_TensorData(tensor), library.TF_TensorByteSize(tensor))
    return np.frombuffer(data, np.float32)
