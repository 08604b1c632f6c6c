"""Keras 3 models: encoders, segmenters, their losses, training and export.

Runs without TFX and Beam; of `beam_jobs` it imports the contracts only. Components and
`pipeline` import it.

Read first: `pretrain`, `segment` and `distillation.train`, the three trainers;
`training.scaffold` holds the order of events that they share.

- `config`, `segment_config`, `value_checks`: what a run can choose, and its checks.
- `encoders`, `dual_encoder`, `contrastive_model`, `segmenter`: the models.
- `input_pipeline`, `views`: shards to batches; a batch to the views of an objective.
- `losses`, `metrics`: losses of pixels; metrics from confusion matrices.
- `intervals`: confidence intervals of scores and differences.

Rooms: `training`, `optimization` (how it trains), `reading` (shards), `augmentation`,
`objectives` (contrastive losses), `pixel_losses`, `layers`, `heads`, `published`
(export and card), `health` and `encoder_probe` (are the encoders any good), `scores`
(patch by patch), `neighbours` (search), `public_weights` (import), `distillation`.
"""
