"""Regimes: which weights of a segmenter a training updates, and how fast.

Input: a segmenter and `SegmentConfig`. Output: frozen or trainable encoders, and a pace
for each trainable variable.
"""

from __future__ import annotations

from models.optimization.pacing import Pace
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter


def set_encoders_trainable(model: Segmenter, is_trainable: bool) -> None:
    """Freeze or unfreeze the encoders.

    A frozen encoder keeps its weights. Its batch normalizations use, and keep, their
    moving statistics. Call it also to unfreeze: a published model may have been saved
    frozen.
    """
    for encoder in model.encoders.values():
        encoder.trainable = is_trainable


def make_paces(model: Segmenter, config: SegmentConfig) -> tuple[Pace, ...]:
    """Return a pace for each of `model.trainable_variables`; empty when all are alike.

    The rate of the encoders' deepest level is that of the head times `layer_decay`, of
    the level before it times its square, and so on down to the stem. The levels begin
    to train one after the other, the deepest first, at equal intervals. The stem begins
    after the share `unfreeze_after` of the steps. The moving statistics of batch
    normalizations change from the first step on.
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
    """Return the steps before an encoder level begins to train; `depth` 1 = deepest."""
    return round(config.unfreeze_after * config.num_steps * depth / num_levels)
