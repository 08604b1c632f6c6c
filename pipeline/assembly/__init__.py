"""The TFX pipeline of a run, built by functions that only depend on the RunConfig.

Read `full.py` first; the other modules build its parts: `labels` (data of a task and
overlap audit), `pretraining`, `distillation`, `segmentation`. Every module takes its
components from the package `components`. Only `pipeline/runners` imports this room.
"""
