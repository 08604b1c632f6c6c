"""The cluster: compiled pipelines on Kubeflow, and trainings on several machines.

Read `package` first: a compiled YAML file is what `submit` and `schedule` start from.

- `package`: the YAML file -> name, parameters and tasks; values of parameters.
- `connection`: address, credentials and TLS -> kfp's client; its errors in one line.
- `backend`: the calls: experiments, pipelines, runs, recurring runs.
- `runs`: what a run says of itself -> how it ended; waiting for that end.
- `crons`: an ordinary cron expression -> Kubeflow's, with the next dates.
- `training_job`: the manifests of a training on several machines.
- `commands`: the verbs.

`kfp` is imported only in `connection`.
"""
