"""Pusher that puts a model in service whole, or not at all.

TFX's Pusher copies into the final folder, under the clock's time as the version. A push
that dies, or that fills the disk, leaves a numbered folder with a part of the model,
and servers look at every numbered folder. The publishing here is that of
`models.publishing`.
"""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.components.pusher.component import Pusher
from tfx.dsl.components.base import executor_spec
from tfx.proto.pusher_pb2 import PushDestination
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts.locations import locate
from components.blessing import read_approval
from models.publishing import store
from models.publishing.publication import publish

Artifacts = dict[str, list[types.Artifact]]


class Executor(executor.Executor):
    """Pusher's executor with a version that becomes visible at once."""

    def Do(  # noqa: N802 - TFX names it
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Publish the model if it is blessed.

        Raises:
            OSError: e.g. the disk is full; what was in service stays.
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
        store.copy_model(locate(model), locate(pushed.uri))
        approval = read_approval(input_dict[standard_component_specs.MODEL_BLESSING_KEY][0].uri)
        target = publish(model, destination.filesystem.base_directory, approval)
        self._MarkPushed(pushed, pushed_destination=str(target), pushed_version=target.name)


class WholePusher(Pusher):
    """Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
