"""Make maps of whole simulated frames, and check where they lie and what they cost.

Each frame is mapped in a process of its own with an untrained U-Net. Figures: wall and
CPU seconds, and the peak memory, which must not grow with the frame. Checks: the grid
is that of the frame, no data is where the frame has none, and around bright squares at
known coordinates the probabilities are those of one pass over what lies there.

    python -m tests.benchmarks.maps.map_frames s1_frame s2_tile --backbone small
    python -m tests.benchmarks.maps.map_frames small sparse --backbone resnet18
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L2A_BANDS
from tests.data.scenes import make_frames
from tests.data.scenes.make_frames import Frame

if TYPE_CHECKING:
    import numpy as np

FRAMES = {
    "small": Frame(
        name="small", bands=S1_DEFAULT_BANDS, height=2_000, width=2_000, targets=((700, 900),)
    ),
    "s2_tile": Frame(
        name="s2_tile",
        bands=S2_L2A_BANDS,
        height=10_980,
        width=10_980,
        askew=0.05,
        targets=((5_432, 5_431), (2_000, 9_000)),
    ),
    "s1_frame": Frame(
        name="s1_frame",
        bands=S1_DEFAULT_BANDS,
        height=17_000,
        width=25_000,
        askew=0.12,
        targets=((8_000, 4_833), (15_001, 20_003)),
    ),
    # Nearly all of it has no data.
    "sparse": Frame(
        name="sparse",
        bands=S1_DEFAULT_BANDS,
        height=20_000,
        width=20_000,
        askew=0.46,
        targets=((10_000, 10_000), (1_500, 10_000)),
    ),
}
_AROUND_PX, _SURROUNDINGS_PX = 128, 256
_NUM_STRIPS = 3


def measure(names: Sequence[str] = tuple(FRAMES), backbone: str = "small") -> dict[str, object]:
    """Return the figures and checks of frames by name."""
    found: dict[str, object] = {"backbone": backbone}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = _of_frame(FRAMES[name], backbone, Path(folder))
    return found


def _of_frame(frame: Frame, backbone: str, folder: Path) -> dict[str, object]:
    from tests.benchmarks.maps import map_seams, map_speed

    model = map_seams.publish(backbone, folder / "model" / "1", frame.bands)
    catalog = make_frames.write(folder, [frame])
    figures = map_speed.run("ours", model, catalog, "--output", folder / "maps")
    megapixels = frame.height * frame.width / 1e6
    return {
        **figures,
        "megapixels_per_second": round(megapixels / figures["seconds"], 3),
        **_checks(frame, model, folder / "maps" / frame.name),
    }


def _checks(frame: Frame, model: str, folder: Path) -> dict[str, object]:
    """Return whether a map lies where its frame lies, and how far its values are off.

    Values are counts of the file around the bright squares, against one pass of the
    model over the pixels there; for comparison, also against the same pass one pixel
    aside.
    """
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from beam_jobs.predict import parts, segmenters

    predict = segmenters.load(segmenters.find(model))
    differences, shifted = [], []
    with rasterio.open(folder / "probability.tif") as file:
        is_placed = (file.crs.to_string(), file.transform, file.shape) == (
            make_frames.UTM,
            frame.transform,
            (frame.height, frame.width),
        )
        is_cog = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        num_wrong = 0
        for first in np.linspace(0, frame.height - 64, _NUM_STRIPS).astype(int):
            stored = file.read_masks(1, window=Window(0, int(first), frame.width, 64)) != 0
            num_wrong += int((stored != frame.valid_mask(slice(first, first + 64))).sum())
        for target in frame.targets:
            row, col = file.index(*(frame.transform * (target[1] + 0.5, target[0] + 0.5)))
            half = _AROUND_PX // 2
            at = Window(col - half, row - half, _AROUND_PX, _AROUND_PX)
            stored = np.moveaxis(file.read(window=at).astype(int), 0, -1)
            expected = _one_pass(frame, predict, target)
            for aside, found in ((0, differences), (1, shifted)):
                inside = slice(aside, aside + _AROUND_PX)
                counts = parts.to_counts(expected[inside, inside])
                found.append(int(np.abs(stored - counts).max()))
    return {
        "is_placed": is_placed,
        "is_cog": is_cog,
        "pixels_of_wrong_validity": num_wrong,
        "largest_difference_in_counts": differences,
        "the_same_one_pixel_aside": shifted,
    }


def _one_pass(
    frame: Frame, predict: Callable[..., np.ndarray], target: tuple[int, int]
) -> np.ndarray:
    """Return the probabilities [h, w, K] around a target and one pixel beyond."""
    import numpy as np

    from beam_jobs.scenes import radiometry

    half = _AROUND_PX // 2 + _SURROUNDINGS_PX
    # As large a piece as begins at a multiple of the model's stride.
    first, left = ((place - half) // 32 * 32 for place in target)
    size = 2 * half + 64
    stored = frame.pixels(slice(first, first + size))[:, :, left : left + size]
    if frame.sensor == "s2":
        stored = np.where(stored == 0, np.nan, radiometry.dn_to_reflectance(stored, 0))
    pixels = np.moveaxis(stored, 0, -1).astype(np.float32)[np.newaxis]
    found = predict({frame.sensor: pixels})[0]
    top, side = (
        place - _AROUND_PX // 2 - begin for place, begin in zip(target, (first, left), strict=True)
    )
    return found[top : top + _AROUND_PX + 1, side : side + _AROUND_PX + 1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="See the docstring of this module.")
    parser.add_argument("names", nargs="*", choices=list(FRAMES), default=list(FRAMES))
    parser.add_argument("--backbone", default="small")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.names, asked.backbone)))
