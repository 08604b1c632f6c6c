"""The cluster: a run as a pipeline of Kubeflow, and trainings on several machines.

Read `compiling.py` first.

- `config`: the pods of a run: resources, GPUs, secrets, volumes, by kind of node.
- `pods`: puts these settings on a task of kfp.
- `parameters`: the parameters of a compiled pipeline, as overrides of settings.
- `compiling`: RunConfig -> the YAML that Kubeflow Pipelines loads, one task for each
  node.
- `package`: that YAML file -> name, parameters and tasks; values of parameters.
- `connection`: address, credentials and TLS -> kfp's client; its errors in one line.
- `backend`: the calls: experiments, pipelines, runs, recurring runs.
- `runs`: what a run says of itself -> how it ended; waiting for that end.
- `crons`: an ordinary cron expression -> Kubeflow's, with the next dates.
- `training_job`: the manifests of a training on several machines.
- `task_commands`: the verbs `compile` and `node`.
- `commands`: the verbs `submit`, `schedule`, `training-job` and `follow`.

What a task does is in `runners/one_node.py`. Outside this room only the run's config
and the table of verbs name it.
"""
