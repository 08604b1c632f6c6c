"""Make state dicts of torchvision's ResNets, as .pth and as .safetensors files.

Neither PyTorch nor safetensors is needed. The pickle is assembled opcode by opcode, so
the reader is tested against the format and not against itself.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

BLOCKS = {"torch_resnet18": (2, 2, 2, 2), "torch_resnet50": (3, 4, 6, 3)}
_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
}
_SAFE_TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}


def make_state(backbone: str, num_bands: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random weights and statistics by the names of torchvision.

    The fc layer and the counters of batch normalization are included.
    """
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def conv(name: str, num_in: int, num_out: int, size: int) -> None:
        spread = np.sqrt(2.0 / (num_in * size * size))
        state[f"{name}.weight"] = (
            rng.standard_normal((num_out, num_in, size, size)) * spread
        ).astype(np.float32)

    def norm(name: str, num: int) -> None:
        state[f"{name}.weight"] = rng.uniform(0.5, 1.0, num).astype(np.float32)
        state[f"{name}.bias"] = rng.normal(0.0, 0.2, num).astype(np.float32)
        state[f"{name}.running_mean"] = rng.normal(0.0, 0.3, num).astype(np.float32)
        state[f"{name}.running_var"] = rng.uniform(0.5, 2.0, num).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(7, np.int64)

    conv("conv1", num_bands, 64, 7)
    norm("bn1", 64)
    is_bottleneck = backbone == "torch_resnet50"
    num_in = 64
    for stage, num_blocks in enumerate(BLOCKS[backbone], start=1):
        width = 64 * 2 ** (stage - 1)
        num_out = 4 * width if is_bottleneck else width
        for index in range(num_blocks):
            block = f"layer{stage}.{index}"
            sizes = (
                ((width, 1), (width, 3), (num_out, 1))
                if is_bottleneck
                else ((width, 3), (num_out, 3))
            )
            if num_in != num_out:
                conv(f"{block}.downsample.0", num_in, num_out, 1)
                norm(f"{block}.downsample.1", num_out)
            for part, (channels, size) in enumerate(sizes, start=1):
                conv(f"{block}.conv{part}", num_in, channels, size)
                norm(f"{block}.bn{part}", channels)
                num_in = channels
    state["fc.weight"] = rng.standard_normal((10, num_in)).astype(np.float32)
    state["fc.bias"] = np.zeros(10, np.float32)
    return state


def write_safetensors(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """Write `state` as .safetensors, and return the path."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in state.items():
        raw = array.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {
            "dtype": _SAFE_TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write_pth(path: Path, state: Mapping[str, np.ndarray], wrapper: str | None = None) -> Path:
    """Write `state` as torch.save does, and return the path.

    With `wrapper`, write a checkpoint {"epoch": 3, wrapper: state}.
    """
    body = _dict(
        {name: _tensor(array, str(index)) for index, (name, array) in enumerate(state.items())}
    )
    if wrapper is not None:
        body = _dict({"epoch": b"K\x03", wrapper: body})
    return write_zip(
        path,
        b"\x80\x02" + body + b".",
        {str(i): array.tobytes() for i, array in enumerate(state.values())},
    )


def write_zip(path: Path, pickled: bytes, storages: Mapping[str, bytes]) -> Path:
    """Write the zip of a pickle and its storages, and return the path."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
        archive.writestr("archive/version", "3\n")
    return path


def _tensor(array: np.ndarray, key: str) -> bytes:
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor_opcodes(_STORAGES[array.dtype.name], key, array.size, 0, array.shape, strides)


def tensor_opcodes(
    storage: str,
    key: str,
    num_elements: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> bytes:
    """Return the opcodes that call torch._utils._rebuild_tensor_v2 on a storage."""
    identity = b"(" + _text("storage") + f"ctorch\n{storage}\n".encode() + _text(key) + _text("cpu")
    identity += _integer(num_elements) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = identity + _integer(offset) + _tuple(shape) + _tuple(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _dict(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(_text(key) + value for key, value in items.items()) + b"u"


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
