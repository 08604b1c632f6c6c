"""What runs, where and when: the verbs of the command line, and the TFX pipeline.

Read `config.py` first: a RunConfig is one run.

- `config`, `task_files`: a run's YAML -> RunConfig; `configs/` and `tasks/` hold the
  shipped files.
- `published_encoder`: the encoder that tasks start from in place of a pretraining.
- `__main__`, `commands`: the command line; `run_settings` loads what its verbs need.
- `data_build`: catalogs -> shards, before TFX starts; `data_config` is how.
- `refused_spans`: data of a run that a check set aside.
- `metadata_file`: checks the file of ML Metadata.
- `assembly/`: RunConfig -> TFX pipeline; `runners/`: local, Kubeflow.
- `kubeflow/`: compiled pipelines on a cluster: uploads, runs, schedules.
- `report/`: the results of a run; `serving/`: checks of published models.
- `training_jobs`: trainings whose results are found again. `html_page`: the style of
  the pages of results.
- `cross_validation/`: scores of few labels.
- `claim_check/`: does pretraining on pairs help? `neighbours/`: search for similar
  patches.

No other package imports this one.
"""
