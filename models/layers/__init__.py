"""Keras layers that encoders and heads are made of.

- `masked`: start here. Normalization with a valid mask, masked pooling, label output.
- `batch_norm`, `group_norm`, `convolution`, `upsampling`: Keras' layers with the same
  results, faster on CPU. `convolution` can also mirror its border.
- `torch_resnet`: a ResNet that computes what PyTorch's does, for public weights.

`models.encoders`, `models.segmenter` and `models.heads` import it.
"""
