"""Objectives of contrastive pretraining: what is pulled together, what is pushed apart, over the global batch."""
