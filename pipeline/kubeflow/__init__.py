"""Kubeflow Pipelines: one task for each node of the pipeline.

Read `compiling.py` first.

- `config`: the pods of a run: resources, GPUs, secrets, volumes, by kind of node.
- `pods`: puts these settings on a task of kfp.
- `parameters`: the parameters of a compiled pipeline, as overrides of settings.
- `compiling`: RunConfig -> the YAML that Kubeflow Pipelines loads.

What a task does is in `runners/one_node.py`. Only `pipeline/commands.py` and the run's
config import this room.
"""
