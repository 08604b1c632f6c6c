"""Keras 3 encoders, losses, input pipeline, training and export; runs without TFX or Beam."""
