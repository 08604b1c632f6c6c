"""The state dict in a file: arrays by name, and which of them are the ResNet.

Input: a .pth or .safetensors file as projects publish it: bare, inside a training
checkpoint, or with the names of a wrapper (`module.encoder_q.` of MoCo,
`teacher.backbone.` of DINO). Output: arrays by torchvision's names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.public_weights.elements import Array
from models.public_weights.safetensors import read_safetensors
from models.public_weights.torch_zip import read_torch_zip

_STEM = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")
"""A ResNet has these names, whatever text is before them."""

_PREFERRED = ("encoder_q.", "teacher.")
"""Prefixes in order: if a checkpoint holds two networks, take the evaluated one.

These are the query encoder (MoCo, He et al. 2020) and the teacher (DINO, Caron et al.
2021).
"""

_MAX_DEPTH = 8
"""Limit of nested dicts; checkpoints have two to four levels."""
MAX_TENSORS = 100_000
"""Limit of tensors; a ResNet-152 with its optimizer has about 3,000."""


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return all arrays of a file by dotted name; both file formats are read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds no tensor.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    tree = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_zip(path)
    state = dict(itertools.islice(_flatten(tree, "", 0), MAX_TENSORS + 1))
    if len(state) > MAX_TENSORS:
        raise ValueError(f"{path}: may hold {MAX_TENSORS} tensors, got more")
    if not state:
        raise ValueError(f"{path}: must hold tensors by name, got none")
    return state


def select_resnet(state: Mapping[str, Array], prefix: str | None) -> tuple[str, dict[str, Array]]:
    """Return the prefix of the ResNet's names, and its arrays without the prefix.

    Args:
        state: all arrays.
        prefix: text before `conv1.weight`, may be ""; None = detect it.

    Raises:
        ValueError: there is no ResNet, or there are several and none is preferred.
    """
    found = [name.removesuffix(_STEM[0]) for name in state if name.endswith(_STEM[0])]
    found = sorted(start for start in found if all(start + name in state for name in _STEM))
    if prefix is not None:
        if prefix not in found:
            raise ValueError(f"prefix must be one of {_listed(found)}, got {prefix!r}")
        chosen = prefix
    else:
        preferred = [start for start in found if any(marker in start for marker in _PREFERRED)]
        candidates = preferred if len(found) > 1 else found
        if len(candidates) != 1:
            raise ValueError(
                f"must hold one ResNet (conv1, bn1, layer1 ...), got {len(found)}"
                + (
                    f": choose by prefix {_listed(found)}"
                    if found
                    else f": its first names are {_listed(list(state))}"
                )
            )
        (chosen,) = candidates
    return chosen, {
        name.removeprefix(chosen): array for name, array in state.items() if name.startswith(chosen)
    }


def _flatten(node: Any, path: str, depth: int) -> Iterator[tuple[str, Array]]:
    if isinstance(node, np.ndarray):
        yield path, node
    elif isinstance(node, Mapping) and depth < _MAX_DEPTH:
        for key, child in node.items():
            yield from _flatten(child, f"{path}.{key}" if path else str(key), depth + 1)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:4]) + (" ..." if len(names) > 4 else "")
