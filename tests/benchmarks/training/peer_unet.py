"""Time the training steps of a U-Net on a ResNet-18 in plain PyTorch.

It is the peer of `segmentation_speed.py`: what a user would choose instead of this
project. It runs in a separate environment that has torch.

The encoder is that of He et al. 2015. The decoder has the widths of
segmentation_models: 256, 128, 64, 32, 16. The script prints a JSON line with
`seconds_per_step`, the median after two steps of warm-up.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
DECODER_WIDTHS = (256, 128, 64, 32, 16)
NUM_WARMUP_STEPS = 2


def conv(inputs, outputs, size=3, stride=1):
    """Return a convolution with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """Basic residual block."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = conv(inputs, outputs, 3, stride), conv(outputs, outputs)
        self.skip = (
            nn.Identity() if inputs == outputs and stride == 1 else conv(inputs, outputs, 1, stride)
        )

    def forward(self, x):
        """Map [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
        return functional.relu(
            self.second(functional.relu(self.first(x), inplace=True)) + self.skip(x), inplace=True
        )


class UNet(nn.Module):
    """ResNet-18 with a decoder. Skip connections are at strides 2 to 16."""

    def __init__(self, channels, classes):
        super().__init__()
        self.stem = conv(channels, 64, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = [64, *(width for width, _ in STAGES)]
        self.stages = nn.ModuleList(
            nn.Sequential(Block(before, width, stride), Block(width, width, 1))
            for before, (width, stride) in zip(widths, STAGES, strict=False)
        )
        skips = (256, 128, 64, 64, 0)
        inputs = (512, *DECODER_WIDTHS)
        self.decoder = nn.ModuleList(
            nn.ModuleList((conv(before + skip, width), conv(width, width)))
            for before, skip, width in zip(inputs, skips, DECODER_WIDTHS, strict=False)
        )
        self.head = nn.Conv2d(DECODER_WIDTHS[-1], classes, 1)

    def forward(self, x):
        """Map [B, C, H, W] to logits [B, K, H, W]."""
        levels = [functional.relu(self.stem(x), inplace=True)]
        x = self.pool(levels[0])
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for number, (first, second) in enumerate(self.decoder):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            if number < len(levels) - 1:
                x = torch.cat([x, levels[-2 - number]], 1)
            x = functional.relu(second(functional.relu(first(x), inplace=True)), inplace=True)
        return self.head(x)


def main():
    """Time optimizer steps on random pixels."""
    parser = argparse.ArgumentParser()
    for name in ("--batch", "--size", "--bands", "--classes", "--steps"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], required=True)
    asked = parser.parse_args()
    model = UNet(asked.bands, asked.classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    pixels = torch.randn(asked.batch, asked.bands, asked.size, asked.size).to(
        memory_format=torch.channels_last
    )
    label = torch.randint(asked.classes, (asked.batch, asked.size, asked.size))
    times = []
    for _ in range(NUM_WARMUP_STEPS + asked.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.dtype == "bf16"):
            logits = model(pixels)
        loss = functional.cross_entropy(logits.float(), label)
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[NUM_WARMUP_STEPS:])
    print(json.dumps({"peer": f"torch {torch.__version__}", "seconds_per_step": round(seconds, 4)}))


if __name__ == "__main__":
    main()
