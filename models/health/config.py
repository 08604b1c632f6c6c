"""When pretraining is looked at, and what counts as ill.

Input: `pretrain.health` of a run's YAML. Output: a checked frozen dataclass. Used by
`alarms.py` and `monitor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """Thresholds of the health checks; `docs/health.md` says what to do when one is crossed.

    Attributes:
        check_every: steps between two checks. Default 500; origin: this project's
            choice: a check costs about as much as the forward pass of 2 x `max_patches`
            images. 0 = only after the last step.
        max_patches: patches of the eval split that a check looks at. Default 1024;
            origin: this project's choice: recall@1 is then known to within 0.03 (95 %
            interval of a share of 1024 independent patches).
        min_steps: nothing is judged before this step, nor before the warm-up has ended.
            Default 300; origin: this project's choice: its trainings on simulated pairs
            had left ln N long before.
        min_spread: below, the embeddings are one point, and training stops. Default
            0.05; origin: this project's choice between the two ends of Chen and He 2021
            (SimSiam), arXiv 2011.10566, figure 2: 1 is healthy, a collapse is at 0.
        min_effective_rank: below, the embeddings lie on a line, and training stops.
            Default 2; origin: this project's choice.
        max_shortcut: share of the way from chance to certainty that the embedding may
            know orbit, latitude or no-data edge, 0-1. Default 0.8; origin: this
            project's choice. Some knowledge is legitimate: land cover goes with
            latitude.
        max_recall_gap: how far recall on the eval split may lie below what the train
            loss implies. Default 0.25; origin: this project's choice.
        min_probe_gain: R2 that the probe of the other sensor's measurements must gain
            over the untrained encoder once the train loss says that the task is solved.
            Default 0.02; origin: this project's choice.
        stuck_margin_nats: a loss nearer than this to that of guessing is stuck. Default
            0.05; origin: this project's choice.
        stop_on_alarm: let every alarm end the run, as a collapse always does.
    """

    check_every: int = 500
    max_patches: int = 1024
    min_steps: int = 300
    min_spread: float = 0.05
    min_effective_rank: float = 2.0
    max_shortcut: float = 0.8
    max_recall_gap: float = 0.25
    min_probe_gain: float = 0.02
    stuck_margin_nats: float = 0.05
    stop_on_alarm: bool = False

    def __post_init__(self) -> None:
        for name in (
            "check_every",
            "min_steps",
            "min_effective_rank",
            "min_probe_gain",
            "stuck_margin_nats",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        # Two points are the least that can be apart.
        if self.max_patches < 2:
            raise ValueError(f"max_patches must be at least 2, got {self.max_patches}")
        for name in ("min_spread", "max_shortcut", "max_recall_gap"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be within 0 and 1, got {getattr(self, name)}")
