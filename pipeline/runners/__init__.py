"""Where the pipeline runs; read `nodes.py` first, then `local.py`.

- `root`: one run at a time in a folder, and names that TFX can read.
- `nodes`: launches the nodes of a compiled pipeline one at a time; `retrying` tries
  again after transient faults, `artifact_files` finds outputs that lost files.
- `local`: all nodes in this process. `whole_run`: the data before and the report after.
- `one_node`: a single node, as a task of Kubeflow; `data_jobs`: those before TFX's.
  `node_record` is what all processes know of the run, and `recorded` writes it.
- `vertex`: write a PipelineJob for Vertex AI; `pod` is the entry point of its
  containers.

`pipeline/kubeflow` compiles for Kubeflow Pipelines.
"""
