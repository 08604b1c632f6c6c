"""Optimizers, and how fast each weight is updated.

- `optimizers`: start here. AdamW or LARS on a schedule, with loss scaling.
- `adamw`: AdamW that updates a weight with one kernel.
- `pacing`, `regimes`: a rate and a first step for each variable; which encoders train.

The trainers import it.
"""
