"""Augmentation: random changes of a batch of pixels in training.

All of it is seeded, works on whole batches and respects no data. It is written as plain
tensor operations: keras-cv's layers spread NaN or fall back to a loop over patches.

- `config.py`: strengths of all augmentations.
- `augmenter.py`: all of them in order; read this first.
- `symmetries.py`, `crops.py`: geometry, alike for all images of a patch.
- `radar.py`, `optical.py`, `blurring.py`: photometry of one sensor.
- `no_data.py`: masks, and hiding gaps that would identify the pair.
- `resampling.py`: weighted means of valid pixels, for crops and blur.
- `sensor_dropout.py`: removes one sensor from some patches.

`models/views.py` and the trainers import it. It imports only contracts.
"""
