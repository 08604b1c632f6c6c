"""Inference: pixels through a published model, whatever their size.

Input: a function that is the model, and pixels in memory or a function that reads them.
Output: probabilities, or features and embeddings, of exactly these pixels. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict.blending import Area, Pixels, Source, Windows, blend, valid_mask
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.windows import mirrored

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """An encoder of one sensor, and the pixels it gets at once.

    Attributes:
        sensor: of the encoder.
        embed: float32 [B, H, W, C] -> features [B, h, w, F] and embedding [B, E].
        stride: H and W are multiples of it.
        max_batch_px: most pixels at once, but at least one patch.
    """

    sensor: Sensor
    embed: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
    stride: int
    max_batch_px: int = 1 << 20


def padded(stack: FloatArray, stride: int) -> FloatArray:
    """Return [B, H', W', C], mirrored below and right up to multiples of `stride`."""
    rows, cols = (
        mirrored(0, math.ceil(length / stride) * stride, length) for length in stack.shape[1:3]
    )
    return stack[:, rows][:, :, cols]


def predict_stack(
    model: Callable[[Pixels], FloatArray],
    stack: Pixels,
    config: PredictConfig,
    *,
    stride: int,
    num_classes: int,
) -> tuple[FloatArray, BoolArray]:
    """Return probabilities [B, H, W, K] and the valid mask [B, H, W] of a stack.

    Images that fit into a window go through the model whole; larger ones in windows.

    Args:
        model: pixels [B, H, W, C] -> probabilities [B, H, W, K].
        stack: physical values [B, H, W, C] by sensor.
        config: windows, and the bound on pixels at once.
        stride: of the model.
        num_classes: K.
    """
    count, height, width = next(iter(stack.values())).shape[:3]
    if max(height, width) > config.window.size_px:
        found = [
            predict_windows(
                _image(model, stack, number, num_classes), (height, width), config, stride
            )
            for number in range(count)
        ]
        return np.stack([one for one, _ in found]), np.stack([valid for _, valid in found])
    whole = {sensor: padded(values, stride) for sensor, values in stack.items()}
    together = max(1, config.max_batch_px // next(iter(whole.values()))[0, ..., 0].size)
    answers = [
        model({sensor: values[first : first + together] for sensor, values in whole.items()})
        for first in range(0, count, together)
    ]
    return np.concatenate(answers)[:, :height, :width], valid_mask(stack)


def _image(
    model: Callable[[Pixels], FloatArray], stack: Pixels, number: int, num_classes: int
) -> Source:
    return Source(
        read=lambda rows, cols: {
            sensor: values[number, rows, cols] for sensor, values in stack.items()
        },
        model=model,
        num_classes=num_classes,
    )


def predict_windows(
    source: Source, shape: tuple[int, int], config: PredictConfig, stride: int
) -> tuple[FloatArray, BoolArray]:
    """Return probabilities [H, W, K] and the valid mask [H, W] of a scene."""
    height, width = shape
    windows = Windows(
        rows=config.window.windows(height, stride), cols=config.window.windows(width, stride)
    )
    found = np.empty((height, width, source.num_classes), np.float32)
    valid = np.empty((height, width), np.bool_)
    area = Area(rows=slice(0, height), cols=slice(0, width))
    for block in blend(source, windows, area, config.max_batch_px):
        at = block.area.rows, block.area.cols
        found[at], valid[at] = block.probabilities, block.valid
    return found, valid


def embed_stack(embedder: Embedder, stack: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return features [B, ceil(H / stride), ..., F] and embedding [B, E] of patches.

    An embedding is NaN where no pixel of its patch has data.

    Args:
        embedder: the encoder.
        stack: physical values [B, H, W, C]; mirrored up to multiples of the stride.
    """
    whole = padded(stack, embedder.stride)
    together = max(1, embedder.max_batch_px // whole[0, ..., 0].size)
    answers = [
        embedder.embed(whole[first : first + together]) for first in range(0, len(whole), together)
    ]
    features, embedding = (np.concatenate(part) for part in zip(*answers, strict=True))
    embedding[~valid_mask({embedder.sensor: stack}).any(axis=(1, 2))] = np.nan
    return features, embedding


def embed_patches(
    embedder: Embedder, image: FloatArray, patch_px: int
) -> tuple[FloatArray, FloatArray]:
    """Return features and embeddings of the patches of an image; see `embed_scene`.

    Args:
        embedder: the encoder.
        image: physical values [H, W, C].
        patch_px: height and width of a patch.
    """
    height, width = image.shape[:2]

    def read(rows: slice, cols: slice) -> Pixels:
        return {embedder.sensor: image[rows, cols]}

    return embed_scene(embedder, read, (height, width), patch_px)


def embed_scene(
    embedder: Embedder,
    read: Callable[[slice, slice], Pixels],
    shape: tuple[int, int],
    patch_px: int,
) -> tuple[FloatArray, FloatArray]:
    """Return features [h, w, F] and embeddings [R, C, E] of the patches of a scene.

    The scene is mirrored where the last row and column of patches go beyond it; the
    features there are cut off.

    Args:
        embedder: the encoder.
        read: rows and columns of the scene -> its pixels [H, W, C].
        shape: height and width of the scene.
        patch_px: height and width of a patch, a multiple of the stride.
    """
    height, width = shape
    cols = mirrored(0, math.ceil(width / patch_px) * patch_px, width)
    features, embeddings = [], []
    for first in range(0, height, patch_px):
        rows = mirrored(first, patch_px, height)
        top = int(rows.min())
        strip = read(slice(top, int(rows.max()) + 1), slice(0, width))[embedder.sensor]
        # [P, columns, C] -> [number of patches, P, P, C].
        strip = strip[np.ix_(rows - top, cols)]
        patches = strip.reshape(patch_px, -1, patch_px, strip.shape[-1]).swapaxes(0, 1)
        cells, embedding = embed_stack(embedder, patches)
        features.append(cells.swapaxes(0, 1).reshape(cells.shape[1], -1, cells.shape[-1]))
        embeddings.append(embedding)
    joined = np.concatenate(features)
    cut = tuple(slice(0, math.ceil(length / embedder.stride)) for length in shape)
    return joined[cut], np.stack(embeddings)
