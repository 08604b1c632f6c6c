"""Losses of segmentation: what each pixel costs, what each region costs, and their sums."""
