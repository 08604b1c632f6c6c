"""Encoders from public weights: state dicts of PyTorch (.pth, .safetensors) -> published Keras encoders, without PyTorch."""
