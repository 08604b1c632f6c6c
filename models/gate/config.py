"""GateConfig: how much a new model may lose against the one in service.

Input: the `gate` section of a task. Output: a checked frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.intervals import NUM_RESAMPLES
from models.scores.units import Unit

Guard = Literal["event", "orbit_state", "latitude", "class"]
GUARDS: tuple[Guard, ...] = ("event", "orbit_state", "latitude", "class")
_DEFAULT_GUARDS: Mapping[Guard, float] = dict.fromkeys(GUARDS, 0.05)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Limits of the comparison with the model in service.

    Attributes:
        metric: `mean_iou`, or `pooled_iou/<class>`, over the test patches of both
            models.
        margin: the lower end of the interval of candidate - champion must be above
            -margin, 0-1. 0 = only a model that is surely better is published.
            Default 0.02: with another seed, a model differs by about that much.
        guards: dimension -> how much any slice of it may lose, 0-1. `class` compares
            the IoU of each class, the others compare `metric` in each slice. A slice is
            refused if it lost more than that and the loss is no noise. An empty mapping
            guards nothing.
        confidence: of the intervals, 0-1. At 0.95, a candidate that is worse by the
            whole margin passes in 2.5 % of all cases, and the guards together refuse an
            equal candidate in at most 2.5 %.
        num_resamples: resamples of each interval.
        unit: what is drawn in the bootstrap; see `units_of`.
        accept_incomparable: publish a candidate that cannot be compared with the
            champion, e.g. since it has other bands. It must reach the thresholds.
    """

    metric: str = "mean_iou"
    margin: float = 0.02
    guards: dict[Guard, float] = field(default_factory=lambda: dict(_DEFAULT_GUARDS))
    confidence: float = 0.95
    num_resamples: int = NUM_RESAMPLES
    unit: Unit = "auto"
    accept_incomparable: bool = False

    def __post_init__(self) -> None:
        for name, value in {
            "margin": self.margin,
            **{f"guards.{guard}": value for guard, value in self.guards.items()},
        }.items():
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        if not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"confidence must be at least 0.5 and below 1, got {self.confidence}")
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples must be at least 100, got {self.num_resamples}")

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse a metric of a class that the task does not have.

        Raises:
            ValueError: the metric is unknown.
        """
        known = ("mean_iou", *(f"pooled_iou/{name}" for name in class_names))
        if self.metric not in known:
            raise ValueError(f"metric must be one of {', '.join(known)}, got {self.metric!r}")
