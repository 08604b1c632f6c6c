"""The training loop, and the order of events that all trainers share.

- `scaffold`: start here. The stages of every training, from the first check to the
  removal of its checkpoints; `Shards` and `Folders`, what it reads and writes.
- `training`: the loop over the steps.
- `steps`, `gradient_cache`: one update of the weights, whole or by parts of the batch.
- `evaluations`: scores on the way, the weights of the best step, the early stop.
- `checkpoints`, `step_log`: what is saved on the way; TensorBoard events and errors.
- `distribution`, `replicas`: devices and workers; communication between replicas.

It knows nothing of contrastive learning or segmentation. `models.pretrain`,
`models.segment` and `models.distillation` import it; `replicas` serves all losses.
"""
