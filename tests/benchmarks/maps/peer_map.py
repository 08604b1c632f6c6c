"""Time a map of a U-Net on a ResNet-18 in plain PyTorch: a loop over windows.

It is the peer of `map_speed.py`: what a user would write instead of using this project.
It runs in a separate environment that has torch and NumPy. It shares with ours the
windows and the mirrored borders. It reads pixels from an array on disk, which costs
less than a GeoTIFF, and it writes the likeliest class of what each window answers for,
without blending, probabilities and overviews.

The script prints a JSON line with `seconds` and `cpu_seconds`.
"""

import argparse
import json
import time

import numpy as np
import torch
from peer_unet import UNet


def mirrored(first, size, length):
    """Return the pixels of a window along an axis, mirrored at the ends of the scene."""
    position = np.abs(np.arange(first, first + size))
    return np.where(position < length, position, 2 * (length - 1) - position)


def main():
    """Time one map of random weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scene", required=True, help="float32 [H, W, C], .npy")
    parser.add_argument("--windows", required=True, help="JSON: first, size, core, end by axis")
    parser.add_argument("--output", required=True, help="uint8 [H, W], .npy")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], required=True)
    asked = parser.parse_args()
    scene = np.load(asked.scene, mmap_mode="r")
    with open(asked.windows) as file:
        axes = json.load(file)
    height, width, num_bands = scene.shape
    model = UNet(num_bands, 2).to(memory_format=torch.channels_last).eval()
    classes = np.lib.format.open_memmap(asked.output, "w+", np.uint8, (height, width))
    size = axes["rows"][0]["size"], axes["cols"][0]["size"]
    with (
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=asked.dtype == "bf16"),
    ):
        model(torch.zeros(1, num_bands, *size).to(memory_format=torch.channels_last))
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for row in axes["rows"]:
            for col in axes["cols"]:
                pixels = scene[
                    np.ix_(
                        mirrored(row["first"], row["size"], height),
                        mirrored(col["first"], col["size"], width),
                    )
                ]
                # [1, C, H, W] in the memory order of the pixels.
                batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
                answer = model(batch).float().softmax(1).argmax(1)[0].byte().numpy()
                rows = slice(row["core"] - row["first"], row["end"] - row["first"])
                cols = slice(col["core"] - col["first"], col["end"] - col["first"])
                classes[row["core"] : row["end"], col["core"] : col["end"]] = answer[rows, cols]
        classes.flush()
    found = {
        "peer": f"torch {torch.__version__}",
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
