"""Drift: is a new span like the data that the model in service was trained on?

- `reference`: start here. What is kept of a data set with the model it trained.
- `summary`: the figures of a data set that are compared, with their noise.
- `patch_columns`: reads what a summary needs from shards.
- `comparison`: two summaries -> findings.
- `embedding_drift`: two samples of embeddings -> findings.
- `report`: findings and outcome as JSON, `drift.json`.
- `config`: rules, limits and their reasons.

The component `DriftCheck` and the verb `drift` call it, and add the findings of
TensorFlow Data Validation. Nothing here imports TFX, TFDV or Beam.
"""
