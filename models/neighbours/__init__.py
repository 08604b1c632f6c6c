"""Nearest neighbours across the sensors: an index of embeddings, and exact search.

- `index.py`: the index on disk; read this first.
- `embedding.py`: makes an index from a published encoder and a version of shards.
- `search.py`: finds the nearest patches of a patch.

`pipeline` imports it. Only `embedding.py` needs TensorFlow.
"""
