"""A keras-cv ResNet that computes what PyTorch's ResNet computes.

Input: the pyramid of `encoders.py`. Output: a new pyramid with the same layer names.
With the weights of torchvision's or timm's ResNets (`public_weights/resnet.py`) its
outputs equal theirs.
Source: torchvision 0.28, torchvision/models/resnet.py, class Bottleneck ("ResNet
V1.5"), and torch.nn.BatchNorm2d.
"""

from __future__ import annotations

from typing import Any

import keras

BATCH_NORM_EPSILON = 1e-5
"""Default of torch.nn.BatchNorm2d; keras-cv has 1.001e-5."""


def with_torch_semantics(pyramid: keras.Model) -> keras.Model:
    """Return a copy of `pyramid` with new weights and three differences.

    - The 3x3 convolution of a bottleneck has the stride, not the 1x1 before it.
    - Strided convolutions and the pooling have equal zero padding on both sides.
      TensorFlow's "same" puts fewer zeros on the top and the left of an even size.
    - Batch normalizations have PyTorch's epsilon.
    """
    # keras-cv has no option for any of the three.
    return keras.models.clone_model(
        pyramid, clone_function=lambda layer: _clone(layer, pyramid), call_function=_call_padded
    )


def _clone(layer: keras.layers.Layer, pyramid: keras.Model) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["epsilon"] = BATCH_NORM_EPSILON
    elif isinstance(layer, keras.layers.Conv2D):
        config["strides"] = strides = _torch_strides(layer, pyramid)
        config["padding"] = "valid" if max(strides) > 1 else layer.padding
    elif isinstance(layer, keras.layers.MaxPooling2D):
        config["padding"] = "valid"
    return layer.__class__.from_config(config)


def _torch_strides(layer: keras.layers.Conv2D, pyramid: keras.Model) -> tuple[int, int]:
    """Return the strides of a convolution in PyTorch's ResNet.

    A bottleneck begins with a 1x1 convolution; there the second convolution gets the
    strides of the first.
    """
    block, _, index = layer.name.removesuffix("_conv").rpartition("_")
    if index == "1" and layer.kernel_size == (1, 1):
        return 1, 1
    if index == "2":
        first = pyramid.get_layer(f"{block}_1_conv")
        return first.strides if first.kernel_size == (1, 1) else layer.strides
    return layer.strides


def _call_padded(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    """Call a cloned layer; add zero padding before strided layers with a window."""
    window = (1, 1)
    if isinstance(layer, keras.layers.Conv2D):
        window = layer.kernel_size
    elif isinstance(layer, keras.layers.MaxPooling2D):
        window = layer.pool_size
    if window == (1, 1) or max(layer.strides) == 1:
        return layer(*args, **kwargs)
    # Zeros are right for max pooling too: after a ReLU no value is below 0.
    (inputs,) = args
    return layer(
        keras.layers.ZeroPadding2D(window[0] // 2, name=f"{layer.name}_pad")(inputs), **kwargs
    )
