"""Where the pipeline runs; read `local.py` first.

- `root`: one run at a time in a folder, and names that TFX can read.
- `local`: in this process, with ML Metadata in SQLite.
- `artifact_files`: outputs of earlier runs that lost files; they are made again.
- `kubeflow`: write a Kubeflow Pipelines v2 specification; `pod` is the entry point of
  its containers.

Only `pipeline/__main__.py` imports this room.
"""
