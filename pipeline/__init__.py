"""What runs, where and when: run configs, the TFX pipeline, its runners and the report."""
