"""The annotations of TFX's function components, in a form that mypy understands.

At run time these names are TFX's own, and `@component` reads them. For mypy an
annotated parameter has the type of its value: `InputArtifact[Model]` is a `Model`, and
`Parameter[str]` is a `str`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Annotated, TypeVar

    from tfx.dsl.components.base.base_component import BaseComponent

    Value = TypeVar("Value")
    InputArtifact = Annotated[Value, "artifact that the component reads"]
    OptionalInputArtifact = Annotated[Value | None, "the same; None when it is not wired"]
    OutputArtifact = Annotated[Value, "artifact that the component fills"]
    Parameter = Annotated[Value, "plain value, fixed when the pipeline is built"]

    def component(function: Callable[..., None]) -> Callable[..., BaseComponent]:
        """Turn a function into a TFX component that is named after it."""
        ...

else:
    from tfx.dsl.component.experimental.annotations import (
        InputArtifact,
        OutputArtifact,
        Parameter,
    )
    from tfx.dsl.component.experimental.decorators import component

    # TFX takes an input as optional when its default is None.
    OptionalInputArtifact = InputArtifact

__all__ = ["InputArtifact", "OptionalInputArtifact", "OutputArtifact", "Parameter", "component"]
