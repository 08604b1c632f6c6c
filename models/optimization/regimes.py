"""Regimes: which weights of a segmenter a training moves, and how fast.

Input: a segmenter, `SegmentConfig`. Output: encoders that train or do not, and a pace
for each variable that does. Called by `segment.py`.
"""

from __future__ import annotations

from models.optimization.pacing import Pace
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter


def set_encoders_trainable(model: Segmenter, is_trainable: bool) -> None:
    """Encoders that do not train keep their weights and, since their batch normalizations then take them, their statistics.

    Always to be said, also for those that do: a published model may have been frozen
    when it was saved.
    """
    for encoder in model.encoders.values():
        encoder.trainable = is_trainable


def make_paces(model: Segmenter, config: SegmentConfig) -> tuple[Pace, ...]:
    """A pace for each of `model.trainable_variables`, in order; empty when all are moved alike.

    The rate of the encoders' deepest level is that of the head times `layer_decay`, of
    the level before times its square, and so on down to the stem. The levels begin to
    move one after the other, the deepest first and at even distances, the stem after
    the share `unfreeze_after` of the steps; each as if its training began there. Batch
    normalizations follow the batches from the first step on.
    Source: layer-wise decay: Clark et al. 2020 (ELECTRA), arXiv 2003.10555, appendix B,
    and Bao et al. 2021 (BEiT), arXiv 2106.08254, appendix; gradual unfreezing: Howard
    and Ruder 2018 (ULMFiT), arXiv 1801.06146, section 3.3.
    """
    if config.layer_decay == 1.0 and not config.unfreeze_after:
        return ()
    paces = {
        id(variable): Pace(
            config.layer_decay**depth, _first_step(config, depth, len(encoder.levels))
        )
        for encoder in model.encoders.values()
        for depth, variables in enumerate(reversed(encoder.variables_by_level()), start=1)
        for variable in variables
    }
    return tuple(paces.get(id(variable), Pace()) for variable in model.trainable_variables)


def _first_step(config: SegmentConfig, depth: int, num_levels: int) -> int:
    """Steps before a level of the encoder begins to move; `depth` 1 is the deepest, which follows the head."""
    return round(config.unfreeze_after * config.num_steps * depth / num_levels)
