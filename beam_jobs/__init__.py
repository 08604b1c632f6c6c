"""Beam jobs: Earth Engine exports (or simulated and public scenes) in, paired TFRecord shards out."""
