"""Distillation: a student learns from a published teacher on unlabeled pairs.

- `train`: start here. The stages of the training.
- `config`: how a student is taught.
- `loss`, `edges`: the loss against the teacher; larger weights near edges.

Components import it.
"""
