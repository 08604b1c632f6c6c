"""cross-validate: a score of few labels, by models that did not see what they judge.

Words: a *fold* is a set of blocks. In turn each fold is the test split, the next one is
eval, and all others are train.

- `validation`: the whole way from catalogs to page; read it first.
- `choice`: which tasks.
- `folds`: config and data of each fold, checked before anything is trained.
- `trainings`: the trainings of a fold, found again by hash.
- `outcomes`: pooled scores -> the document.
- `page`: the HTML page, and what the terminal shows.

`pipeline/commands.py` imports it.
"""
