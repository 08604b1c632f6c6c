"""ProbeConfig: what an encoder must reach before it is published.

Input: the `probe` section of a run's YAML. Output: a checked frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Limits of the encoder probe.

    The defaults separate a trained encoder from a broken one. They are no measure of
    quality.

    Attributes:
        task: labelled task of the linear probe; empty: the first task. The probe is
            fitted on its train patches and scored on its eval patches. Its test patches
            are never read.
        num_pairs: largest number of eval pairs to embed.
        num_train_patches: largest number of labelled patches to fit the linear probe
            on. Default 512, a small labelled split.
        num_eval_patches: largest number of labelled patches to score it on.
        num_candidates: recall@1 is measured among this many patches, the partner and
            others drawn at random. So the limits mean the same for eval splits of any
            size. Smaller splits have fewer candidates. Default 32.
        min_recall_over_chance: least recall@1 in each direction, as a multiple of
            chance (1 / candidates). Default 3; origin: this project's demo, which
            reaches 15 (docs/encoder_probe.md). An encoder of shuffled pairs has 1.
        min_spread: least spread of each sensor's embeddings, 0 (one point) to 1
            (centred on the sphere). Default 0.05; origin: `HealthConfig`, which stops
            pretraining at the same limit.
        min_effective_rank: least number of directions in which each sensor's embeddings
            vary; at most half of what so few patches can reach. Default 2; origin: as
            above.
        min_accuracy: least balanced accuracy of the linear probe, 0-1. Default 0, no
            limit, since the accuracy depends on the labels.
        min_gain_over_random: least gain in balanced accuracy over an untrained encoder,
            -1 to 1. The check fails only if the gain is lower beyond noise. Default 0.
        tolerance: how far recall and accuracy may be below those of the last published
            encoder, 0-1. It is needed since the bootstrap shows the noise of the
            patches, not that of pretraining with another seed. Default 0.02.
        confidence: confidence of the bootstrap intervals, 0-1. Default 0.99. Each tail
            is then 0.5 %, so four comparisons refuse about one in fifty equal encoders,
            fewer with the tolerance.
        seed: seed of the bootstrap and of the untrained encoder.
        accept_incomparable: publish an encoder that cannot be compared with the one in
            service, e.g. since that has other bands. It must pass all other checks.
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
    accept_incomparable: bool = False

    def __post_init__(self) -> None:
        for name in ("num_pairs", "num_candidates"):
            # A single pair finds its partner with any encoder.
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
