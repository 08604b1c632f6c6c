"""What claim-check compares: arms, cells, seeds, and the one cell that decides.

Part of a run's YAML (`claim`) -> checked frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.scores.units import Unit

TrainedArm = Literal["multimodal", "simclr", "multimodal_intra", "shuffled", "random", "scratch"]
"""Where a task's encoders come from; see `arms.py`."""

Arm = str
"""A `TrainedArm`, or `weights:<folder>` of a published encoder."""

PUBLISHED_PREFIX = "weights:"

Regime = Literal["linear", "frozen", "finetune"]
Inputs = Literal["s1", "s2", "s1+s2"]
MeasureName = Literal["mean_iou", "mean_iou_tuned", "average_precision"]
"""A score by which arms are compared; see `measures.py`."""
Draw = Literal["patch", "event", "scene"]

MIN_SEEDS = 3
"""With fewer seeds, the spread between seeds cannot be estimated."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One question: a task, its inputs, the regime, and the share of the labels.

    Attributes:
        task: name of the run's task.
        inputs: sensors that its model sees.
        regime: "linear" (1x1 probe on a frozen encoder), "frozen" (the task's head on a
            frozen encoder) or "finetune".
        fraction: share of the task's train patches, above 0 and at most 1.
    """

    task: str
    inputs: Inputs
    regime: Regime = "linear"
    fraction: float = 0.1

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("inputs", self.inputs, Inputs),
            ("regime", self.regime, Regime),
        ):
            if value not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}"
                )
        _check_fraction("fraction", self.fraction)

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The sensors of `inputs`, in the order of SENSORS."""
        return tuple(sensor for sensor in SENSORS if sensor in self.inputs.split("+"))

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.task}-{self.inputs}-{self.regime}-{self.fraction:g}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of the settings that each contrastive arm may choose from.

    Attributes:
        temperature: temperature of the loss.
        strength: factor on the photometric augmentation of views; 1 = as configured.
    """

    temperature: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ClaimConfig:
    """A comparison that is fixed before it runs.

    Attributes:
        primary: the cell whose interval decides on the claim; the other cells are only
            reported.
        inputs: sensors that tasks are tried with.
        regimes: how tasks are trained.
        fractions: shares of the train labels. They are nested: a larger one holds all
            patches of a smaller one. Default: 1 to 100 %. Origin: the question of this
            project, how few labels are enough.
        arms: what is compared; the claim is that `multimodal` beats `simclr`. An arm
            `weights:<folder>` starts from a published encoder, such as public weights
            that `import-weights` made.
        settings: settings that every contrastive arm tries with the first seed, judged
            on `eval`; the best one is used for all seeds. Baselines have the same
            budget as `multimodal`.
        linear_learning_rate: learning rate of the linear probe on a frozen encoder, in
            place of the task's. The probe's problem is convex and has one solution. At
            the rate of deep nets, some hundred steps do not reach it, and arms would
            differ by how far they got. Default 0.03. Origin: trials on simulated scenes
            (200 steps of 32 patches of 32 px, mean IoU on eval: multimodal and an
            untrained encoder reached 0.25 and 0.20 at 0.001, 0.33 and 0.27 at 0.03).
        score: the score that decides: `mean_iou`, `mean_iou_tuned` (two classes, with
            the threshold that is best on `eval`) or `average_precision` (no threshold).
            The page shows all of them.
        draw: what a fraction of the labels is drawn from: "patch" spreads it evenly
            over all blocks, "event" and "scene" take whole ones, as people label them.
        unit: what intervals count: "event", "scene", "block", or "auto", which takes
            events when all test patches have one and there are at least five.
        num_seeds: number of trainings of every arm; each also draws its own labels.
        num_processes: trainings at a time.
        confidence: confidence level of the intervals, 0-1.
        num_resamples: resamples of the bootstrap.
    """

    primary: Cell
    inputs: tuple[Inputs, ...] = ("s1",)
    regimes: tuple[Regime, ...] = ("linear",)
    fractions: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5, 1.0)
    arms: tuple[Arm, ...] = get_args(TrainedArm)
    settings: tuple[Setting, ...] = field(
        default=(Setting(), Setting(temperature=0.3), Setting(strength=2.0)),
    )
    linear_learning_rate: float = 0.03
    score: MeasureName = "mean_iou"
    draw: Draw = "patch"
    unit: Unit = "auto"
    num_seeds: int = 5
    num_processes: int = 1
    confidence: float = 0.95
    num_resamples: int = 2000

    def __post_init__(self) -> None:
        for name in ("inputs", "regimes", "fractions", "arms", "settings"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"{name} must hold at least one value and none twice, got {list(values)}"
                )
        for fraction in self.fractions:
            _check_fraction("fractions", fraction)
        for arm in self.arms:
            if arm not in get_args(TrainedArm) and not is_published(arm):
                raise ValueError(
                    f"arms must be among {', '.join(get_args(TrainedArm))}, or "
                    f"{PUBLISHED_PREFIX}<folder of a published encoder>, got {arm!r}"
                )
        for name, choices in (("regimes", Regime), ("inputs", Inputs)):
            for value in getattr(self, name):
                if value not in get_args(choices):
                    raise ValueError(
                        f"{name} must be among {', '.join(get_args(choices))}, got {value!r}"
                    )
        for name, choices in (("score", MeasureName), ("draw", Draw), ("unit", Unit)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, "
                    f"got {getattr(self, name)!r}"
                )
        for arm in ("multimodal", "simclr"):
            if arm not in self.arms:
                raise ValueError(
                    f"arms must hold {arm!r}, because the claim is about it, got {list(self.arms)}"
                )
        if self.num_seeds < MIN_SEEDS:
            raise ValueError(
                f"num_seeds must be at least {MIN_SEEDS}, got {self.num_seeds}: the verdict needs "
                "the spread between trainings"
            )
        if not self.linear_learning_rate > 0:
            raise ValueError(
                f"linear_learning_rate must be above 0, got {self.linear_learning_rate}"
            )
        for name in ("num_processes", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")
        for name, known in (
            ("inputs", self.inputs),
            ("regime", self.regimes),
            ("fraction", self.fractions),
        ):
            if getattr(self.primary, name) not in known:
                raise ValueError(
                    f"primary.{name} must be among {list(known)}, "
                    f"got {getattr(self.primary, name)!r}"
                )

    def cells(self, task: str) -> tuple[Cell, ...]:
        """Return all cells of a task, the smallest fraction first."""
        return tuple(
            Cell(task=task, inputs=inputs, regime=regime, fraction=fraction)
            for inputs in self.inputs
            for regime in self.regimes
            for fraction in sorted(self.fractions)
        )


def is_published(arm: Arm) -> bool:
    """Return whether the encoders of `arm` are published already."""
    return arm.startswith(PUBLISHED_PREFIX)


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
