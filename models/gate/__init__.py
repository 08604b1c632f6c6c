"""The gate: may a new segmenter take the place of the one in service?

- `config`: margins and guards.
- `judgement`: start here. Scores of both models on the same patches -> verdict.
- `champion`: finds the model in service, and scores it.
- `verdict`: the verdict as JSON, `gate.json`.

The new model is called the candidate, the one in service the champion. The component
`ChampionGate` calls it after the Evaluator.
"""
