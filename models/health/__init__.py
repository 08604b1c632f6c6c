"""Health checks of pretraining: what embeddings encode, and when training must stop.

Modules, bottom up:

- `config.py`: when to check, and the thresholds.
- `embedded_split.py`: features and embeddings of a split; `embeddings.py` makes them.
- `spread.py`, `retrieval.py`: collapse, and recall of partners across the sensors.
- `linear_probe.py`: what a linear model can predict from features.
- `shortcuts.py`: pretext shortcuts that the embedding could use.
- `checkup.py`: all measures of one split; `alarms.py`: the rules on them.
- `embedding_map.py`: a picture of the embeddings.
- `monitor.py`: runs the checks during training.

Read `docs/health.md` first, then `checkup.py`. `encoder_probe` and `neighbours` use the
measures. Nothing here imports TFX or Beam.
"""
