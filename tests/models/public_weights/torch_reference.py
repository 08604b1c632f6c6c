"""ResNets in torch.nn: their files and their outputs.

Run by a Python that has PyTorch, never imported. Usage: python torch_reference.py
FOLDER. Writes <name>.pth, <name>.safetensors (by the safetensors library, where it is
installed), <name>.npz with the pixels and the levels P1 to P5, and moco.pth and old.pth
with other layouts of one state dict.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """Basic block or bottleneck (stride on the 3x3 convolution)."""

    def __init__(self, num_in, width, num_out, stride):
        super().__init__()
        is_bottleneck = num_out != width
        shapes = (
            [(width, 1, 1), (width, 3, stride), (num_out, 1, 1)]
            if is_bottleneck
            else [(width, 3, stride), (width, 3, 1)]
        )
        self.num_parts, channels = len(shapes), num_in
        for part, (out, size, step) in enumerate(shapes, start=1):
            setattr(
                self, f"conv{part}", nn.Conv2d(channels, out, size, step, size // 2, bias=False)
            )
            setattr(self, f"bn{part}", nn.BatchNorm2d(out))
            channels = out
        self.downsample = None
        if stride != 1 or num_in != num_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out)
            )

    def forward(self, x):
        y = x
        for part in range(1, self.num_parts + 1):
            y = getattr(self, f"bn{part}")(getattr(self, f"conv{part}")(y))
            y = torch.relu(y) if part < self.num_parts else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Names and arithmetic of torchvision's."""

    def __init__(self, num_bands, num_blocks, expansion):
        super().__init__()
        self.conv1 = nn.Conv2d(num_bands, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        num_in = 64
        for stage, count in enumerate(num_blocks, start=1):
            width, blocks = 32 * 2**stage, []
            for index in range(count):
                blocks.append(
                    Block(num_in, width, width * expansion, 2 if stage > 1 and index == 0 else 1)
                )
                num_in = width * expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(num_in, 10)

    def forward(self, x):
        levels = {"P1": torch.relu(self.bn1(self.conv1(x)))}
        x = self.pool(levels["P1"])
        for stage in range(1, 5):
            x = levels[f"P{stage + 1}"] = getattr(self, f"layer{stage}")(x)
        return levels


def main(folder):
    torch.manual_seed(0)
    for name, bands, blocks, expansion in (
        ("torch_resnet18", 2, (2, 2, 2, 2), 1),
        ("torch_resnet50", 13, (3, 4, 6, 3), 4),
    ):
        model = ResNet(bands, blocks, expansion).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0.0, 0.2)
                nn.init.normal_(module.running_mean, 0.0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        torch.save(model.state_dict(), folder / f"{name}.pth")
        try:
            from safetensors.torch import save_file

            save_file(model.state_dict(), folder / f"{name}.safetensors")
        except ImportError:
            pass
        pixels = torch.randn(2, bands, 64, 96)
        with torch.no_grad():
            levels = model(pixels)
        arrays = {level: values.numpy().transpose(0, 2, 3, 1) for level, values in levels.items()}
        np.savez(folder / f"{name}.npz", pixels=pixels.numpy().transpose(0, 2, 3, 1), **arrays)
    state = model.state_dict()
    # Parameters, views, halves and a second network, as a checkpoint of MoCo has them.
    wrapped = {
        f"module.encoder_q.{key}": value for key, value in state.items() if not key.startswith("fc")
    }
    wrapped |= {f"module.encoder_k.{key}": torch.zeros_like(value) for key, value in state.items()}
    wrapped["module.encoder_q.conv1.weight"] = nn.Parameter(
        state["conv1.weight"].permute(1, 0, 2, 3).contiguous().transpose(0, 1)
    )
    wrapped["module.queue"] = torch.randn(128, 64).bfloat16()
    torch.save(
        {"epoch": 99, "arch": "resnet50", "state_dict": wrapped, "optimizer": {"state": {}}},
        folder / "moco.pth",
    )
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
