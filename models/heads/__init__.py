"""Heads of a segmenter: from the pyramids of its encoders to logits at full size, one module a head."""
