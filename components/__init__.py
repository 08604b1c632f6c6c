"""Thin TFX adapters around `models` and the shard contracts."""
