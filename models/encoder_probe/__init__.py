"""Whether a pretrained encoder is good enough: its measurements, the thresholds, and the one before it."""
