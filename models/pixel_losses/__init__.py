"""Losses of segmentation.

- `segment_loss`: start here. The weighted sum of the losses that a config names.
- `config`: which losses, with which weights.
- `regions`: losses of whole regions (Dice, Lovász). `models.losses` has pixel losses.

`models.segment` and its config import it.
"""
