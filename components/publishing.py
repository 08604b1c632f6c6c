"""Publishing: Pushers that copy models to `<serving>/<model>/<version>`.

TF Serving reads that folder. A Pusher copies a model only when it is blessed: a
segmenter by its ChampionGate, the encoder by EncoderProbe. The label `stable` there
means the model that was blessed last, unless it was rolled back.
"""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto.pusher_pb2 import PushDestination

from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.published import in_service
from components.pusher import WholePusher


def create_pusher(
    name: str,
    model: BaseComponent,
    serving_dir: str,
    judge: BaseComponent,
    canary: BaseComponent,
) -> BaseComponent:
    """Return the Pusher of one model.

    Args:
        name: "encoder" or the task's name: the model's folder below `serving_dir`, and
            the suffix of the component id.
        model: the Trainer that made the model.
        serving_dir: base folder of all published models; may be an object store.
        judge: ChampionGate or EncoderProbe, whose `blessing` decides.
        canary: the model's Canary, whose `blessing` decides too.
    """
    destination = PushDestination(
        filesystem=PushDestination.Filesystem(base_directory=f"{serving_dir.rstrip('/')}/{name}")
    )
    return WholePusher(
        model=model.outputs["model"],
        model_blessing=judge.outputs["blessing"],
        infra_blessing=canary.outputs["blessing"],
        push_destination=destination,
    ).with_id(f"Pusher-{name}")


def find_published(serving_dir: str, name: str) -> Location | None:
    """Return the version of a model that is in service; None: nothing is published.

    Args:
        serving_dir: base folder of all published models.
        name: the model's folder below it.
    """
    return in_service(f"{serving_dir.rstrip('/')}/{name}")
