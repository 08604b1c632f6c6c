"""Pusher that shows a model only when all of it is there.

TFX's Pusher copies into the final folder. A push that dies, or that fills the disk,
leaves a numbered folder with a part of the model, and servers look at every numbered
folder. Here the copy gets a hidden name first, and its own name at the end.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.components.pusher.component import Pusher
from tfx.dsl.components.base import executor_spec
from tfx.proto.pusher_pb2 import PushDestination
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts import locations
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import ASSETS_DIR, CARD_NAME
from components.artifacts import list_tree

_HIDDEN = ".pushing-"
"""Begins the name of a copy that is being written; no server takes it for a version."""
_GRAPH = "saved_model.pb"
_LAST = (_GRAPH, f"{ASSETS_DIR}/{CARD_NAME}")
"""Files that make a model visible, in this order: to servers, and to later runs."""

Artifacts = dict[str, list[types.Artifact]]


class Executor(executor.Executor):
    """Pusher's executor with a copy that becomes visible at once."""

    def Do(  # noqa: N802 - TFX names it
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Push the model if it is blessed.

        Raises:
            OSError: e.g. the disk is full; nothing of the model is visible then.
        """
        pushed = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        )
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        model = self.GetModelPath(input_dict)
        destination = PushDestination()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination
        )
        # TFX keeps a copy among the artifacts. It comes first: what makes the model
        # visible must be the last thing that can fail.
        copy_model(locate(model), locate(pushed.uri))
        target = push(model, destination.filesystem.base_directory)
        self._MarkPushed(pushed, pushed_destination=str(target), pushed_version=target.name)


class WholePusher(Pusher):
    """Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def push(model: str, base_dir: str) -> Location:
    """Copy a model to a new version below `base_dir`; return the version's folder.

    Args:
        model: folder of the SavedModel.
        base_dir: folder of the model's versions; may be on an object store.

    Raises:
        OSError: the copy fails; what was written is removed.
    """
    base = locate(base_dir)
    base.mkdir(parents=True, exist_ok=True)
    number = int(time.time())
    while (base / str(number)).exists():
        number += 1
    target = base / str(number)
    # A push that was killed has left its copy.
    for left in base.glob(f"{_HIDDEN}*"):
        locations.remove_tree(left)
    # An object store cannot rename a folder. There `copy_model` writes last the files
    # that make a model visible.
    copy = base / f"{_HIDDEN}{number}" if isinstance(base, Path) else target
    try:
        copy_model(locate(model), copy)
        if copy != target:
            os.replace(copy, target)
    except BaseException:
        with contextlib.suppress(Exception):
            locations.remove_tree(copy)
        raise
    return target


def copy_model(source: Location, target: Location) -> None:
    """Copy a model's folder; write the files last that make it visible.

    Raises:
        FileNotFoundError: there is no such model.
    """
    names = list_tree(source).keys()
    if not names:
        raise FileNotFoundError(f"{source}: no such model, or it is empty")
    for name in (*sorted(names - set(_LAST)), *(name for name in _LAST if name in names)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        locations.copy_file(source / name, target / name)
