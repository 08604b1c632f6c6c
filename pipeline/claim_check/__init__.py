"""claim-check: does pretraining on pairs help, by how much, with how few labels?

Words: an *arm* is a way to get an encoder, a *cell* is one question (task, inputs,
regime, share of the labels), a *trial* is one model of an arm in a cell.

- `claim`: the whole check from data to page; read it first. `config`: its settings.
- `data_checks`: what refuses a check before anything is trained.
- `arms`: what each arm pretrains. `published_arms`: arms whose encoders exist already.
- `jobs`: all trainings and their folders. `trainings`: do one job. `processes`: do
  several at a time. `label_subsets`: the labels of a trial.
- `outcomes`: results of the trials. `measures`: the scores that compare arms.
- `comparison`: the intervals and the verdict. `controls`: trainings that must not
  succeed.
- `page`, `curves`: the HTML page and its picture.

`pipeline/commands.py` imports `claim` and `page`, `pipeline/config.py` imports
`config`.
"""
