"""Public weights of ResNets, imported as published encoders of one sensor.

- `catalog.py`: what must be known about a file of weights, and known ones.
- `importing.py`: file -> published encoder; read this first.
- `state_dict.py`: tensors of a file, and which of them are the ResNet.
- `torch_zip.py`, `safetensors.py`, `elements.py`: the two file formats.
- `resnet.py`: state dict -> weights of our encoder.

`pipeline` imports it. PyTorch is not needed.
"""
