"""Parts: predict a part of a scene, and keep the answer in a file.

Input: MapTask, the scenes of one map and their grid; an area of it. Output: a GeoTIFF
with the bands class, probability of each class, entropy, and the highest probability.
With an ensemble follow mutual information and deviation. `maps.py` joins the parts of a
map.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.locations import staged
from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict import blending, memory
from beam_jobs.predict.blending import Area, Block, Pixels, Source, Windows
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.pipelining import ahead
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.rasters import open_files, writing
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import grids, readers, windows
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene

SHARE_PER_COUNT = 0.004
"""The probability or entropy that one stored count stands for: 250 counts are 1.0."""
NO_DATA = IGNORE
"""Value of bytes where no sensor has data: 255. In bands of floats it is NaN."""
NUM_MOMENTS = 2
"""Channels that follow the probabilities of an ensemble; see `disagreement`."""
_ROWS_PER_BLOCK = 32
_BYTES_OF_SAMPLE: dict[Sensor, int] = {"s1": 4, "s2": 2}
"""Bytes of a pixel of a band, as archives store it."""
_CACHE_PER_PIXEL = 1.1
"""GDAL's cache counts each block with some bytes of its own. A cache that is a little
too small forgets each block just before it is needed."""


@dataclass(frozen=True, kw_only=True)
class MapTask:
    """One map to be made.

    Attributes:
        map_id: name of the map: the id of its scene, or of both with "+" between.
        scenes: inspected scene of each sensor of the model; one of two may be absent.
        grid: of the map.
        made_from: hash of everything that decides its files.
    """

    map_id: str
    scenes: dict[Sensor, Scene]
    grid: Grid
    made_from: str

    @property
    def acquired(self) -> datetime.datetime:
        """When the scene of the first sensor was acquired, in UTC."""
        first = next(scene for scene in self.scenes.values() if not scene.is_absent)
        return datetime.datetime.fromtimestamp(first.acquired_at, datetime.timezone.utc)


def task_of(
    scenes: dict[Sensor, Scene], pixel_size_m: float, made_from: str = ""
) -> MapTask | None:
    """Return the map of one scene, or of a pair; None if a pair shares no pixel.

    The grid is that of the Sentinel-2 scene, or else of the only scene there is. If its
    CRS has no metres on the ground, it is replaced by UTM or polar stereographic.
    """
    there = [scene for scene in scenes.values() if not scene.is_absent]
    found = [scene.grid for scene in there if scene.grid is not None]
    if len(found) < len(there):
        raise ValueError(f"scenes must be inspected first: {[one.scene_id for one in there]}")
    grid = grids.common_grid(found[-1], found[0], pixel_size_m)
    if grid is None:
        return None
    return MapTask(
        map_id="+".join(one.scene_id for one in there),
        scenes=scenes,
        grid=grid,
        made_from=made_from,
    )


def windows_of(grid: Grid, segmenter: Segmenter, config: PredictConfig) -> Windows:
    """Return the windows of a map."""
    lattice = config.window
    return Windows(
        rows=lattice.windows(grid.height, segmenter.stride),
        cols=lattice.windows(grid.width, segmenter.stride),
    )


def areas(grid: Grid, config: PredictConfig) -> list[Area]:
    """Return the parts of a map that are predicted one by one, row by row."""
    rows = itertools.pairwise(config.window.cuts(grid.height, config.part_height_px))
    cols = list(itertools.pairwise(config.window.cuts(grid.width, config.part_width_px)))
    return [
        Area(rows=slice(*of_rows), cols=slice(*of_cols)) for of_rows in rows for of_cols in cols
    ]


def part_name(area: Area) -> str:
    """Return the name of the file of a part."""
    return f"part-{area.rows.start:06d}-{area.cols.start:06d}.tif"


def predict(
    task: MapTask,
    area: Area,
    segmenter: Segmenter,
    config: PredictConfig,
    path: str,
    *,
    model: Callable[[Pixels], FloatArray],
) -> None:
    """Predict a part of a map and write it; the file appears when it is complete.

    Args:
        task: the map.
        area: of it, one of `areas`.
        segmenter: the model.
        config: windows and outputs.
        path: of the file.
        model: pixels [B, H, W, C] -> probabilities [B, H, W, K], and NUM_MOMENTS more
            channels for the uncertainty "disagreement", as `ensembles.joined` gives it.

    Raises:
        DataError: a raster or the model cannot be read.
    """
    memory.keep_apart()
    num_classes = len(segmenter.classes)
    width = area.cols.stop - area.cols.start + 2 * config.window.margin_px
    of_windows = task.grid.window(area.rows.start, area.cols.start, config.window.size_px, width)
    num_more = NUM_MOMENTS if config.uncertainty == "disagreement" else 0
    is_float = config.probability_dtype == "float16"
    num_bands = 3 + num_classes + num_more
    # Rows of the part lie in the same cache until they are written.
    bytes_of_rows = num_bands * of_windows.height * of_windows.width * (4 if is_float else 1)
    source = Source(
        read=reader(task, segmenter.bands),
        model=model,
        num_classes=num_classes + num_more,
        reading=lambda: open_files.keep_open(
            cache_bytes(task, segmenter.bands, of_windows) + bytes_of_rows
        ),
    )
    blocks = blending.blend(
        source, windows_of(task.grid, segmenter, config), area, config.max_batch_px
    )
    grid = task.grid.window(
        area.rows.start,
        area.cols.start,
        area.rows.stop - area.rows.start,
        area.cols.stop - area.cols.start,
    )
    with (
        staged(path) as partial,
        writing.whole(partial),
        rasterio.open(
            partial,
            "w",
            driver="GTiff",
            count=num_bands,
            height=grid.height,
            width=grid.width,
            crs=grid.crs,
            transform=grid.affine,
            # GDAL 3.9 has no type float16; the file has 16 bits a value.
            **({"dtype": "float32", "nbits": 16} if is_float else {"dtype": "uint8"}),
            blockysize=_ROWS_PER_BLOCK,
            interleave="band",
            compress="deflate",
            zlevel=1,
        ) as file,
        ahead(blocks) as finished,
    ):
        bands = (
            (block, _bands_of(block, num_classes, segmenter.threshold, is_float=is_float))
            for block in finished
        )
        for row, pixels in whole_rows(bands):
            at = Window(0, row - area.rows.start, pixels.shape[2], pixels.shape[1])
            file.write(pixels, window=at)
            memory.give_back()


def whole_rows(
    blocks: Iterable[tuple[Block, npt.NDArray[Any]]],
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the pixels of an area so that each block of its file is written once.

    A block that is written in pieces can lose a piece: GDAL's cache writes it out from
    the thread that reads the scene, while this one reads it back (seen with GDAL 3.9).

    Args:
        blocks: of the area, row by row of windows, with their bands [bands, H, W].

    Yields:
        First row, and pixels [bands, H, W] of all columns. H is a multiple of
        _ROWS_PER_BLOCK, but for the last.
    """
    held, start = None, 0
    for first, of_row in itertools.groupby(blocks, key=lambda one: one[0].area.rows.start):
        found = np.concatenate([bands for _, bands in of_row], axis=2)
        if held is None:
            held, start = found, first
        else:
            held = np.concatenate([held, found], axis=1)
        if num_whole := held.shape[1] // _ROWS_PER_BLOCK * _ROWS_PER_BLOCK:
            yield start, held[:, :num_whole]
            held, start = held[:, num_whole:], start + num_whole
    if held is not None and held.shape[1]:
        yield start, held


def reader(
    task: MapTask, bands: Mapping[Sensor, tuple[str, ...]]
) -> Callable[[slice, slice], Pixels]:
    """Return the function from rows and columns of a map to its pixels [H, W, C]."""

    def read(rows: slice, cols: slice) -> Pixels:
        grid = task.grid.window(
            rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start
        )
        return {
            sensor: readers.read_bands(task.scenes[sensor], names, grid)
            for sensor, names in bands.items()
        }

    return read


def cache_bytes(task: MapTask, bands: Mapping[Sensor, tuple[str, ...]], rows: Grid) -> int:
    """Return the bytes of the blocks of the scenes' files that some rows touch, about.

    It is the bound of GDAL's cache while a map's scenes are read from top to bottom.
    With a larger cache, memory would grow with the scene: GDAL forgets nothing before
    its cache is full.

    Args:
        task: the map.
        bands: of each sensor that is read.
        rows: grid of the rows that are read together.
    """
    total = 0
    for sensor, names in bands.items():
        scene = task.scenes[sensor]
        for path, found in readers.by_file(scene.bands, names).items() if scene.bands else ():
            with open_raster(path) as raster:
                # GDAL then keeps the blocks of all bands, also of those nobody reads.
                num_bands = len(raster.descriptions) if raster.decodes_all_bands else len(found)
                num_px = num_bands * windows.num_block_px(raster, rows)
                total += _BYTES_OF_SAMPLE[sensor] * num_px
    return min(int(_CACHE_PER_PIXEL * total), open_files.CACHE_BYTES)


def _bands_of(
    block: Block, num_classes: int, threshold: float | None, *, is_float: bool
) -> npt.NDArray[Any]:
    """Return the bands of a part for the pixels of a block, [bands, H, W].

    They are bytes. With `is_float` they are floats: the probabilities themselves, and
    the other bands as before.
    """
    found = block.probabilities[..., :num_classes]
    shares = [np.moveaxis(found, -1, 0), found.max(axis=-1)[np.newaxis]]
    of_classes, highest = shares if is_float else map(to_counts, shares)
    spread = [entropy(found)]
    if found.shape[-1] < block.probabilities.shape[-1]:
        spread += disagreement(found, block.probabilities[..., num_classes:])
    others = [to_counts(one)[np.newaxis] for one in spread]
    ids = class_ids(found, threshold)[np.newaxis]
    no_share = np.nan if is_float else NO_DATA
    return np.concatenate(
        [
            np.where(block.valid, planes, np.asarray(fill, planes.dtype))
            for planes, fill in (
                (ids, NO_DATA),
                (of_classes, no_share),
                (others[0], NO_DATA),
                (highest, no_share),
                *((one, NO_DATA) for one in others[1:]),
            )
        ]
    )


def class_ids(probabilities: FloatArray, threshold: float | None) -> npt.NDArray[np.uint8]:
    """Return the class of each pixel [H, W] of probabilities [H, W, K].

    Args:
        probabilities: of the classes.
        threshold: of the second of two classes, as the published model has it; None =
            the likeliest class.
    """
    if threshold is None:
        return probabilities.argmax(axis=-1).astype(np.uint8)
    return (probabilities[..., 1] > threshold).astype(np.uint8)


def entropy(probabilities: FloatArray) -> FloatArray:
    """Return the entropy of each pixel [H, W]: 0 = sure, 1 = all classes are as likely.

    Source: Shannon 1948, A mathematical theory of communication; in units of the
    largest entropy of K classes, log K.
    """
    shares = np.clip(probabilities, 1e-12, 1.0)
    total: FloatArray = -(shares * np.log(shares)).sum(axis=-1)
    return np.clip(total / np.log(probabilities.shape[-1]), 0.0, 1.0)


def disagreement(probabilities: FloatArray, moments: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how much the members of an ensemble differ, two arrays [H, W].

    The first is the mutual information of class and member, in the unit of `entropy`: 0
    = all members say the same, 1 = each is sure of another class. The second is the
    standard deviation of the probability over the members: of either class if there are
    two, and of more classes the root of half the sum of their variances.

    Source: Depeweg et al. 2018, arXiv 1710.07283, eq. 2, for the first.

    Args:
        probabilities: mean over the members, [H, W, K].
        moments: means over the members of the entropy and of the sum of the squares of
            the probabilities, [H, W, 2].
    """
    information = np.maximum(entropy(probabilities) - moments[..., 0], 0.0)
    variances = moments[..., 1] - np.square(probabilities).sum(axis=-1)
    return information, np.sqrt(np.maximum(variances, 0.0) / 2)


def to_counts(shares: FloatArray) -> npt.NDArray[np.uint8]:
    """Return numbers of 0-1 as they are stored; see SHARE_PER_COUNT."""
    return np.rint(np.clip(shares, 0.0, 1.0) / np.float32(SHARE_PER_COUNT)).astype(np.uint8)
