"""The encoder probe: whether a pretrained encoder is good enough to publish.

It compares the encoder with fixed limits, with an untrained encoder and with the
encoder in service. Confidence intervals keep noise from causing a refusal.

- `config.py`: the limits.
- `measurements.py`: what one encoder computes for the data.
- `checks.py`: single checks of these measurements.
- `probe.py`: runs all checks.
- `report.py`: the result, as JSON.

Read `probe.py` first. `components` and `pipeline` may import it; nothing here imports
TFX or Beam.
"""
