"""A SavedModel in one file: a graph that sets its variables from values in it.

A SavedModel has its weights in files beside `saved_model.pb`, so there may be a part of
it that does not load. One file is there or not. An object store needs that: it writes
one file at a time.

Input: the folder of a SavedModel. Output: another `saved_model.pb`, which loads alone.
Signatures and functions are the same, so the answers are the same to the last bit. What
is in `variables/` beside it is not read, be it all or a part.
"""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from beam_jobs.contracts import locations
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.published import GRAPH_NAME

_INIT_SIGNATURE, _INIT_COLLECTION = "__saved_model_init_op", "saved_model_main_op"
"""Name what loaders run after they read the variables. The first one has precedence.

Source: `GetInitOp` in tensorflow/cc/saved_model/loader_util.cc.
"""
_SET_WEIGHTS = "set_weights_from_graph"
_READ_NOTHING = "read_no_variables"


class OneFileError(TerrapairError, ValueError):
    """A SavedModel that cannot be made one file; one line."""

    exit_code = ExitCode.BAD_DATA


def pack(saved_model_dir: str | os.PathLike[str]) -> bytes:
    """Return a `saved_model.pb` that needs no other file.

    Args:
        saved_model_dir: folder of the SavedModel; may be on an object store. If its
            graph holds the weights already, it is returned as it is.

    Raises:
        OneFileError: the folder holds no model that loads, the model reads files of
            `assets/`, or the file would exceed 2 GiB, the limit of protobuf.
    """
    try:
        content = (locations.locate(saved_model_dir) / GRAPH_NAME).read_bytes()
        document = saved_model_pb2.SavedModel.FromString(content)
        (meta,) = document.meta_graphs
        if meta.asset_file_def:
            raise ValueError(f"it reads {meta.asset_file_def[0].filename} of assets/")
        if any(node.name == _SET_WEIGHTS for node in meta.graph_def.node):
            return content
        with locations.without_pattern(saved_model_dir) as readable:
            _set_weights(meta, readable)
        # Without the objects of Python, `tf.saved_model.load` runs the graph, as
        # TensorFlow Serving does.
        meta.ClearField("object_graph_def")
        return document.SerializeToString()
    except (OSError, ValueError, LookupError, DecodeError, tf.errors.OpError) as error:
        why = " ".join(str(error).split())[:300]
        raise OneFileError(
            f"{saved_model_dir}: must load from one file to be published on an object store: {why}"
        ) from error


def _set_weights(meta: tf.compat.v1.MetaGraphDef, saved_model_dir: str) -> None:
    """Let the graph of a model assign its variables when it is loaded."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(meta.graph_def, name="")
        handles = [node.outputs[0] for node in graph.get_operations() if node.type == "VarHandleOp"]
        values = _read_values(graph, handles, meta, saved_model_dir)
        assigned = [
            tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(value))
            for handle, value in zip(handles, values, strict=True)
        ]
        before = meta.signature_def[_INIT_SIGNATURE].outputs[_INIT_SIGNATURE].name
        with tf.control_dependencies([graph.as_graph_element(before), *assigned]):
            init = tf.no_op(name=_SET_WEIGHTS).name
        # As a signature, Python's loader would show it to callers.
        del meta.signature_def[_INIT_SIGNATURE]
        meta.collection_def[_INIT_COLLECTION].node_list.value[:] = [init]
        # A loader that finds `variables.index` runs the operation that reads it, even
        # if the other files are not there yet.
        meta.saver_def.restore_op_name = tf.no_op(name=_READ_NOTHING).name
        meta.graph_def.CopyFrom(graph.as_graph_def())


def _read_values(
    graph: tf.Graph,
    handles: list[tf.Tensor],
    meta: tf.compat.v1.MetaGraphDef,
    saved_model_dir: str,
) -> list[np.ndarray]:
    """Return the values of a model's variables, which its own graph reads."""
    reads = [
        tf.raw_ops.ReadVariableOp(resource=handle, dtype=handle.op.get_attr("dtype"))
        for handle in handles
    ]
    if not reads:
        return []
    # The processor has room for two copies; a graphics card may have none.
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        restore, prefix = meta.saver_def.restore_op_name, meta.saver_def.filename_tensor_name
        session.run(restore, {prefix: f"{saved_model_dir}/variables/variables"})
        values: list[np.ndarray] = session.run(reads)
    return values
