"""Publishing: Pushers that copy models to `<serving>/<model>/<version>`.

TF Serving reads that folder. A Pusher copies a model only when it is blessed: a
segmenter by its Evaluator, the encoder by EncoderProbe. So the newest version there is
the model that was blessed last.
"""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto.pusher_pb2 import PushDestination

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.published import versions
from components.pusher import WholePusher

ENCODER_NAME = "encoder"
"""Folder of the published encoder below the serving folder."""


def create_pusher(
    name: str, model: BaseComponent, serving_dir: str, judge: BaseComponent
) -> BaseComponent:
    """Return the Pusher of one model.

    Args:
        name: "encoder" or the task's name: the model's folder below `serving_dir`, and
            the suffix of the component id.
        model: the Trainer that made the model.
        serving_dir: base folder of all published models; may be an object store.
        judge: Evaluator or EncoderProbe, whose `blessing` decides.
    """
    destination = PushDestination(
        filesystem=PushDestination.Filesystem(base_directory=f"{serving_dir.rstrip('/')}/{name}")
    )
    return WholePusher(
        model=model.outputs["model"],
        model_blessing=judge.outputs["blessing"],
        push_destination=destination,
    ).with_id(f"Pusher-{name}")


def find_published(serving_dir: str, name: str) -> Location | None:
    """Return the newest complete version of a model; None: nothing is published.

    Args:
        serving_dir: base folder of all published models.
        name: the model's folder below it.
    """
    found = versions(f"{serving_dir.rstrip('/')}/{name}")
    return found[-1] if found else None
