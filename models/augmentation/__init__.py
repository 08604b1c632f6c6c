"""Augmentation: what training changes in a batch of pixels, all of it seeded, batch-wise and aware of no data."""
