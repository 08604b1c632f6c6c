"""What is in service of a run's models, and how that changes.

- `preconditions`: refuses a run whose models could not be judged or published.
- `rolling_back`: puts an earlier version in service again; model servers follow.
- `new_scenes`: fetches from Earth Engine what is newer than the last span.
- `retraining`: one attempt to bring new scenes into service; `attempts` records it, and
  `notification` tells a command or a webhook how it ended.
- `history`: attempts, runs, versions and what was served when, as a table and a page.
- `cleaning`: removes versions that nobody needs.
- `drift`: compares a span with the data of the models in service, without a run.
- `commands`: the verbs `rollback`, `history`, `gc` and `drift`.

The rules are in `models/publishing`.
"""
