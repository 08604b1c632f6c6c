"""Trainers of TFX around the trainings of `models`.

- `pretrain`, `segment`, `distill`: one Trainer each, and the function that it calls.
- `arguments`: what TFX gives that function, as shards and folders.
- `attempts`: where checkpoints lie, so that a killed training goes on.
- `training_log`: steps as lines, and as figures for TensorBoard.
- `workers`: the same training on several machines.
"""
