"""Objectives of contrastive pretraining.

- `objective.py`: the interface; read this first.
- `contrastive.py`, `sigmoid.py`, `decur.py`, `dense.py`: the objectives.
- `registry.py`: objectives by the names of the config.
- `global_batch.py`: weights of pairs and negatives over all replicas.
- `chunks.py`: losses of a few rows at a time, to save memory.
- `chance.py`: the loss of guessing in the last batches, for the health checks.
- `temperature.py`: a fixed or learned temperature.

Shapes: B pairs on this replica, N in the global batch, E dimensions of an embedding.
`models/contrastive_model.py` and the health checks import it.
"""
