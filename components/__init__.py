"""TFX adapters around `models` and the shard contracts; no formulas of their own.

Read `examples.py` first, then the trainers.

- Data: `examples` (ExampleGen to manifest), `shard_gen`, `shard_readers`,
  `data_manifest`, `drift_check` with `watched_statistics`, `overlap_audit`.
- Training: `pretrain_trainer`, `segment_trainer`, `distill_trainer`; what they share
  is in `attempts` (checkpoints), `training_log` and `artifacts` (files of artifacts).
  `workers` trains on several machines.
- Judging and publishing: `encoder_probe` with `blessing`, `evaluation` with
  `iou_metrics`, `scorer`, `champion_gate`, `canary` with `canary_process`, `publishing`
  with `pusher`.
- `tfx_types`: TFX's annotations, typed for mypy.

Only `pipeline` may import this package. It may import `models` and `beam_jobs`.
"""
