"""Tolerances: how far the answers of a SavedModel may be from those of its Keras model.

Constants, for the parity check and for the canary.
"""

from __future__ import annotations

from models.config import ExportPrecision

TOLERANCES: dict[ExportPrecision, float] = {
    "float32": 1e-4,
    "bfloat16": 1e-4,
    "mixed_bfloat16": 1e-2,
}
"""Precision of a SavedModel -> largest allowed difference from Keras.

Both have the same weights, in bfloat16 rounded ones, but the graph fuses and reorders
operations. Sums of some thousand float32 products then differ by about 1e-6 relative,
on features of size 1-10. 1e-4 leaves a margin, and is far below the effect of a wrong
weight or a missing normalization. Where results are rounded to bfloat16, which has 8
bits, other orders give other roundings. On CPUs there was no difference; all roundings
of such a network together change its probabilities by 0.005 (docs/performance.md).
"""
CLEAR_MARGIN = 1e-3
"""Probabilities further apart cannot change order within a tolerance of half of it."""
