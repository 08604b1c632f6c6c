"""HealthConfig: when pretraining is checked, and the thresholds of the checks.

Input: `pretrain.health` of a run's YAML. Output: a checked frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """Schedule and thresholds of the health checks.

    `docs/health.md` says what to do when a threshold is crossed.

    Attributes:
        check_every: steps between two checks; 0 checks only after the last step.
            Default 500; origin: this project. A check costs about as much as the
            forward pass of 2 x `max_patches` images.
        max_patches: number of eval patches that a check embeds. Default 1024; origin:
            this project. Recall@1 is then known to within 0.03 (95 % interval of a
            share of 1024 independent patches).
        min_steps: nothing is judged before this step, nor before the warm-up has ended.
            Default 300; origin: this project. Its trainings on simulated pairs were
            below ln N long before.
        min_spread: training stops when the spread of the embeddings is lower, 0-1.
            Default 0.05; origin: this project, between the two ends of Chen and He 2021
            (SimSiam), arXiv 2011.10566, figure 2: healthy embeddings have 1, collapsed
            ones 0.
        min_effective_rank: training stops when the embeddings vary in fewer directions.
            Default 2: fewer is a line. Origin: this project.
        max_shortcut: how much the embedding may encode of the orbit, the latitude or
            the no-data edge, as a share of the way from chance (0) to certainty (1).
            Default 0.8; origin: this project. Some of it is legitimate: land cover
            depends on latitude.
        max_recall_gap: how far recall on the eval split may be below the recall that
            the train loss implies, 0-1. Default 0.25; origin: this project.
        min_probe_gain: least gain in R2 over the untrained encoder, once the train loss
            says that the task is solved. The probe predicts the other sensor's band
            means. Default 0.02; origin: this project.
        stuck_margin_nats: a loss is stuck unless it is at least this much below the
            loss of random guessing. Default 0.05; origin: this project.
        stop_on_alarm: every alarm ends the run. A collapse always does.
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
        # Measures of spread need at least two points.
        if self.max_patches < 2:
            raise ValueError(f"max_patches must be at least 2, got {self.max_patches}")
        for name in ("min_spread", "max_shortcut", "max_recall_gap"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be within 0 and 1, got {getattr(self, name)}")
