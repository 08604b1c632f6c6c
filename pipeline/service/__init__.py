"""What is in service of a run's models, and how that changes.

- `thresholds`: refuses a first model that nothing would judge.
- `rolling_back`: puts an earlier version in service again; model servers follow.
- `history`: runs, versions and what was served when, as a table and a page.
- `cleaning`: removes versions that nobody needs.
- `drift`: compares a span with the data of the models in service, without a run.
- `commands`: the verbs `rollback`, `history`, `gc` and `drift`.

The rules are in `models/publishing`.
"""
