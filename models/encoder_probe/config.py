"""ProbeConfig: what an encoder must show before it is published and trained on.

Input: the `probe` section of a run's YAML. Output: a checked frozen dataclass. Used by
the rest of this package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Thresholds of the encoder probe. The defaults tell a trained encoder from a broken one; they are no mark of quality.

    Attributes:
        task: labelled task whose train patches the linear probe is fitted on, and whose
            eval patches it is scored on; its test patches are never read. Empty: the
            first task.
        num_pairs: most pairs of the eval split that are embedded.
        num_train_patches: most labelled patches that the probe is fitted on: a small
            labelled split. Default 512.
        num_eval_patches: most labelled patches that it is scored on.
        num_candidates: recall@1 is that among so many patches, the partner and others
            by lot, so that thresholds mean the same whatever the size of the eval
            split; fewer when the split has fewer. Default 32.
        min_recall_over_chance: least recall@1 in each direction, in multiples of chance
            (1 / candidates). Default 3; origin: this project's demo, which reaches 15
            (docs/encoder_probe.md); broken pairs give 1.
        min_spread: least spread of each sensor's embeddings, 0 (one point) to 1
            (centred on the sphere). Default 0.05; origin: `HealthConfig`, which stops
            pretraining at the same bound.
        min_effective_rank: least number of directions that each sensor's embeddings
            vary in; at most half of what so few patches could. Default 2; origin: as
            above.
        min_accuracy: least balanced accuracy of the linear probe, 0-1. 0 = any, since
            it depends on the labels.
        min_gain_over_random: the probe's balanced accuracy must not lie below that on
            an untrained encoder plus this, beyond noise. Default 0.
        tolerance: recall and accuracy, 0-1, may fall this far below the last published
            encoder's before it counts: the bootstrap sees the noise of the patches, not
            that of pretraining with another seed. Default 0.02.
        confidence: of the bootstrap intervals, 0-1. Default 0.99: with one tail of 0.5
            % each, four comparisons refuse about one in fifty equal encoders, fewer
            with the tolerance.
        seed: of the bootstrap and of the untrained encoder.
    """

    task: str = ""
    num_pairs: int = 1024
    num_train_patches: int = 512
    num_eval_patches: int = 512
    num_candidates: int = 32
    min_recall_over_chance: float = 3.0
    min_spread: float = 0.05
    min_effective_rank: float = 2.0
    min_accuracy: float = 0.0
    min_gain_over_random: float = 0.0
    tolerance: float = 0.02
    confidence: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_pairs", "num_candidates"):
            # One pair alone finds its partner whatever the encoder.
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("num_train_patches", "num_eval_patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("min_recall_over_chance", "min_effective_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("min_spread", "min_accuracy", "tolerance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be within 0 and 1, got {getattr(self, name)}")
        if not -1.0 <= self.min_gain_over_random <= 1.0:
            raise ValueError(
                f"min_gain_over_random must be within -1 and 1, got {self.min_gain_over_random}"
            )
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(
                f"confidence must be between 0 and 1, both excluded, got {self.confidence}"
            )
