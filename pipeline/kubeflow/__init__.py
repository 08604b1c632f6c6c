"""Kubeflow Pipelines from outside: upload a compiled pipeline, run it, schedule it.

Read `package` first: a compiled YAML file is what all verbs start from.

- `package`: the YAML file -> name, parameters and tasks; values of parameters.
- `connection`: address, credentials and TLS -> kfp's client; its errors in one line.
- `backend`: the calls: experiments, pipelines, runs, recurring runs.
- `runs`: what a run says of itself -> how it ended; waiting for that end.
- `crons`: an ordinary cron expression -> Kubeflow's, with the next dates.
- `commands`: the verbs `submit` and `schedule`.

`kfp` is imported only in `connection`.
"""
