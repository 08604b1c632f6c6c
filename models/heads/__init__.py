"""Heads of a segmenter: from the encoders' pyramids to logits at full size.

- `registry`: start here. The heads by name, and what a head gets and returns.
- `unet`, `deeplab`, `linear`: one head each.
- `blocks`: what several heads share.

`models.segmenter` imports it.
"""
