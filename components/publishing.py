"""Publishing: Pushers that copy models to `<serving>/<model>/<version>`, where TF Serving looks.

A model with an evaluator is pushed only when blessed; the encoder has no gate yet and is pushed as trained.
"""

from __future__ import annotations

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent


def create_pusher(
    name: str, model: BaseComponent, serving_dir: str, evaluator: BaseComponent | None = None
) -> BaseComponent:
    """Pusher of one model.

    Args:
        name: "encoder" or the task's name: the model's folder below `serving_dir` and suffix of the component id.
        model: the Trainer that made it.
        serving_dir: base folder of all published models; may be an object store.
        evaluator: gives the blessing; None pushes without a gate.
    """
    destination = tfx.proto.PushDestination(
        filesystem=tfx.proto.PushDestination.Filesystem(base_directory=f"{serving_dir.rstrip('/')}/{name}")
    )
    return tfx.components.Pusher(
        model=model.outputs["model"],
        model_blessing=evaluator.outputs["blessing"] if evaluator else None,
        push_destination=destination,
    ).with_id(f"Pusher-{name}")
