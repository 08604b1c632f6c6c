"""TFX adapters around `models` and the shard contracts; no formulas of their own.

Read `examples.py` first, then the trainers.

- Data: `examples` (ExampleGen to manifest), `shard_gen`, `shard_readers`,
  `data_manifest`, `drift_check` with `watched_statistics`, `overlap_audit`.
- Training: `trainers/`. `artifacts` knows the files of artifacts.
- Judging and publishing: `encoder_probe` with `blessing`, `evaluation` with
  `iou_metrics`, `scorer`, `champion_gate`, `canary` with `canary_process`, `publishing`
  with `pusher`.
- `tfx_types`: TFX's annotations, typed for mypy.

Only `pipeline` may import this package. It may import `models` and `beam_jobs`.
"""
