"""Loads the state dict of a torchvision or timm ResNet into one of our encoders.

Input: an encoder with a `torch_` backbone, and arrays by torchvision's names. Output:
the encoder with changed weights, and the names that were not used. Its outputs then
equal PyTorch's in eval mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from models.config import TORCH_PREFIX
from models.encoders import SensorEncoder
from models.public_weights.elements import Array

_BLOCK_LAYER = re.compile(r"v2_stack_(\d+)_block(\d+)_(\d)_(conv|bn)$")
_OURS = re.compile(r"(conv1|bn1|layer\d+)\.")
"""Names of the ResNet itself; the rest of a file changes no feature.

The rest is `fc`, projection heads or queues.
"""
_COUNTER = "num_batches_tracked"
"""PyTorch counts batches for a momentum that no published ResNet uses."""


def load_resnet(
    encoder: SensorEncoder, state: Mapping[str, Array], state_bands: Sequence[str]
) -> tuple[str, ...]:
    """Set the weights of the encoder's ResNet.

    Args:
        encoder: its bands are a choice of `state_bands`, in any order.
        state: arrays by torchvision's names; `conv1.weight` is [64, C, 7, 7].
        state_bands: the C bands of the state dict, in its order. Bands that the encoder
            does not take are removed from the first convolution. That is the same as a
            normalized value of 0 everywhere.

    Returns:
        Names in `state` that are not part of the ResNet, without PyTorch's counters.

    Raises:
        ValueError: a name is missing or unknown, a shape differs, a value is not
            finite, or a band is not in `state_bands`.
    """
    if not encoder.backbone.startswith(TORCH_PREFIX) or encoder.norm != "batch":
        raise ValueError(
            f"encoder must have a {TORCH_PREFIX} backbone and norm 'batch', "
            f"got {encoder.backbone!r} and {encoder.norm!r}"
        )
    arrays = {name: array for name, array in state.items() if not name.endswith(_COUNTER)}
    arrays["conv1.weight"] = _choose_bands(arrays, encoder.bands, state_bands)
    used = set()
    for variable, name in _variables(encoder.get_layer("resnet")):
        if name not in arrays:
            raise ValueError(
                f"{name}: {encoder.backbone} needs it, but the state dict does not have it"
            )
        variable.assign(_checked(name, arrays[name], tuple(variable.shape), encoder.backbone))
        used.add(name)
    unused = sorted(set(arrays) - used)
    # An extra bias or block would change the features: it is another network.
    foreign = [name for name in unused if _OURS.match(name)]
    if foreign:
        raise ValueError(
            f"{foreign[0]}: {encoder.backbone} has no place for it ({len(foreign)} such names)"
        )
    return tuple(unused)


def torch_name(layer_name: str) -> str:
    """Return the module of torchvision's ResNet that matches a layer of keras-cv.

    Raises:
        ValueError: none of our ResNets has such a layer.
    """
    if layer_name in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer_name]
    match = _BLOCK_LAYER.match(layer_name)
    if match is None:
        raise ValueError(f"layer must be conv1_* or v2_stack_*_block*_*, got {layer_name!r}")
    stack, block, index, kind = match.groups()
    # keras-cv numbers the shortcut 0; torchvision calls it "downsample", with two
    # parts.
    part = f"downsample.{0 if kind == 'conv' else 1}" if index == "0" else f"{kind}{index}"
    return f"layer{int(stack) + 1}.{int(block) - 1}.{part}"


def _variables(resnet: keras.Model) -> Iterator[tuple[keras.Variable, str]]:
    """Yield each weight of the ResNet with its name in a state dict."""
    for layer in resnet.layers:
        if isinstance(layer, keras.layers.Conv2D):
            yield layer.kernel, f"{torch_name(layer.name)}.weight"
        elif isinstance(layer, keras.layers.BatchNormalization):
            module = torch_name(layer.name)
            yield layer.gamma, f"{module}.weight"
            yield layer.beta, f"{module}.bias"
            yield layer.moving_mean, f"{module}.running_mean"
            yield layer.moving_variance, f"{module}.running_var"


def _choose_bands(
    arrays: Mapping[str, Array], bands: Sequence[str], state_bands: Sequence[str]
) -> Array:
    """Return `conv1.weight` with the input channels of `bands`, in that order."""
    kernel = arrays.get("conv1.weight")
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != len(state_bands):
        got = "none" if kernel is None else kernel.shape
        raise ValueError(
            f"conv1.weight: must take {len(state_bands)} bands {', '.join(state_bands)}, "
            f"got shape {got}"
        )
    unknown = [band for band in bands if band not in state_bands]
    if unknown:
        raise ValueError(f"bands must be among {', '.join(state_bands)}, got {', '.join(unknown)}")
    return kernel[:, [state_bands.index(band) for band in bands]]


def _checked(name: str, array: Array, shape: tuple[int, ...], backbone: str) -> Array:
    """Return `array` as float32, with the axes in the order of Keras.

    Convolutions change from [out, in, height, width] to [height, width, in, out].
    """
    values = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if values.shape != shape:
        expected = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
        raise ValueError(f"{name}: {backbone} needs shape {expected}, got {array.shape}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all() or (name.endswith("running_var") and values.min() < 0):
        raise ValueError(f"{name}: values must be finite, and variances not below 0")
    return values
