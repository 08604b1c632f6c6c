"""Measure the seams of maps: windows with several margins against one pass.

The scene is random radar with structures of many sizes. For each margin: the largest
and the mean difference of a probability, the share of pixels of another class, and how
often the class changes across a border of two windows, divided by how often it changes
there in one pass. Without arguments the models are untrained; an argument names a published
segmenter of Sentinel-1:

    python -m tests.benchmarks.maps.map_seams runs/demo/serving/flood
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MARGINS_PX = (0, 32, 64, 96, 128, 224)
CORE_PX, BLEND_PX = 256, 32
SIDE_PX = 1024
WHOLE_MARGIN_PX = 256


def measure() -> dict[str, object]:
    """Return the seams of two untrained U-Nets by backbone and margin."""
    found = {}
    for backbone in ("small", "resnet18"):
        with tempfile.TemporaryDirectory() as folder:
            found[backbone] = of_model(publish(backbone, Path(folder) / "1"))
    return found


def publish(backbone: str, folder: Path, bands: Sequence[str] = ("VV", "VH")) -> str:
    """Publish an untrained U-Net with two classes for bands of one sensor."""
    import keras

    from beam_jobs.contracts.bands import S1_BANDS
    from models.encoders import SensorEncoder
    from models.published import signatures
    from models.segmenter import Segmenter
    from tests.data.networks import make_segmenter

    keras.utils.set_random_seed(0)
    if bands[0] in S1_BANDS:
        sensor, mean, std = "s1", [-12.0, -19.0], [5.0, 5.0]
    else:
        sensor, mean, std = "s2", [0.1] * len(bands), [0.1] * len(bands)
    encoder = SensorEncoder(sensor=sensor, bands=list(bands), mean=mean, std=std, backbone=backbone)
    widths = (256, 128, 64, 32, 16)
    model = Segmenter(encoders={sensor: encoder}, num_classes=2, decoder_channels=widths)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", signatures.pixels_endpoint(model), signatures.pixel_specs(model)
    )
    archive.write_out(str(folder), verbose=False)
    return make_segmenter.write_card(
        folder, {sensor: tuple(bands)}, stride=model.stride, threshold=0.5
    )


def scene(side: int, seed: int = 0) -> np.ndarray:
    """Return backscatter in dB, float32 [side, side, 2], with structures of 2 to 128 px."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    smooth = sum(
        ndimage.zoom(rng.normal(size=(side // size + 1,) * 2), size, order=1)[:side, :side]
        for size in (2, 8, 32, 128)
    )
    speckle = 10 * np.log10(rng.gamma(4.4, 1 / 4.4, (side, side, 2)))
    level = np.where(smooth[..., np.newaxis] > 0, [-20.0, -27.0], [-9.0, -16.0])
    return (level + speckle).astype(np.float32)


def of_model(path: str) -> dict[str, object]:
    """Return the seams of a published segmenter by margin."""
    from beam_jobs.predict import parts, segmenters
    from beam_jobs.predict.blending import Area, Source, Windows, blend
    from beam_jobs.predict.windows import Lattice

    segmenter = segmenters.find(path)
    pixels = scene(SIDE_PX)
    source = Source(
        read=lambda rows, cols: {"s1": pixels[rows, cols]},
        model=segmenters.load(segmenter),
        num_classes=len(segmenter.classes),
    )

    def predict(lattice: Lattice) -> np.ndarray:
        lattice.check(segmenter.stride)
        axis = lattice.windows(SIDE_PX, segmenter.stride)
        area = Area(rows=slice(0, SIDE_PX), cols=slice(0, SIDE_PX))
        found = np.empty((SIDE_PX, SIDE_PX, len(segmenter.classes)), np.float32)
        for block in blend(source, Windows(rows=axis, cols=axis), area, 1 << 19):
            found[block.area.rows, block.area.cols] = block.probabilities
        return found

    whole = predict(
        Lattice(size_px=SIDE_PX + 2 * WHOLE_MARGIN_PX, margin_px=WHOLE_MARGIN_PX, blend_px=0)
    )
    found = {}
    for margin in MARGINS_PX:
        lattice = Lattice(size_px=CORE_PX + 2 * margin, margin_px=margin, blend_px=BLEND_PX)
        windows = predict(lattice)
        difference = np.abs(windows - whole)
        ids, expected = (parts.class_ids(one, segmenter.threshold) for one in (windows, whole))
        found[f"margin {margin} px"] = {
            "largest_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            "pixels_of_another_class": float((ids != expected).mean()),
            "changes_at_borders_to_one_pass": _at_borders(ids, lattice)
            / _at_borders(expected, lattice),
        }
    return found


def _at_borders(ids: np.ndarray, lattice: object) -> float:
    """Return the rate at which neighbouring pixels across a border have two classes."""
    changes = (ids[:, 1:] != ids[:, :-1]).mean(axis=0)
    # The shared pixels of two windows begin and end where one of them begins or ends.
    step = lattice.step_px
    borders = np.zeros(len(changes), bool)
    for first in range(step, SIDE_PX - 1, step):
        borders[[at for at in (first - 1, first + BLEND_PX - 1) if at < len(changes)]] = True
    return float(changes[borders].mean())


if __name__ == "__main__":
    print(json.dumps(of_model(sys.argv[1]) if sys.argv[1:] else measure(), indent=2))
