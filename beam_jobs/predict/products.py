"""Products: all files of one map, from its parts.

Input: the files of `parts.py`. Output: name of each file -> its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beam_jobs.predict import maps, parts, pictures, polygons
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.maps import Layer
from beam_jobs.predict.parts import MapTask
from beam_jobs.predict.segmenters import Segmenter


def files_of(segmenter: Segmenter, config: PredictConfig) -> dict[str, Sequence[Layer]]:
    """Return name -> layers of the files of a map; no layers for one without bands."""
    files: dict[str, Sequence[Layer]] = {maps.CLASS_FILE: [maps.class_layer(segmenter.classes)]}
    if config.polygons.classes:
        files[polygons.FILES[config.polygons.format]] = ()
    files[pictures.PICTURE_FILE] = ()
    for name, layers in (
        (maps.PROBABILITY_FILE, maps.probability_layers(segmenter.classes, config)),
        (maps.UNCERTAINTY_FILE, maps.uncertainty_layers(segmenter.classes, config)),
    ):
        if layers:
            files[name] = layers
    return files


def groups(segmenter: Segmenter, config: PredictConfig) -> list[tuple[str, ...]]:
    """Return the names of the files of a map in two groups that take about as long.

    The first holds the classes and what is drawn from them. The second may be missing.
    """
    names = tuple(files_of(segmenter, config))
    measures = tuple(
        name for name in names if name in (maps.PROBABILITY_FILE, maps.UNCERTAINTY_FILE)
    )
    drawn = tuple(name for name in names if name not in measures)
    return [group for group in (drawn, measures) if group]


def write(
    task: MapTask,
    segmenter: Segmenter,
    config: PredictConfig,
    names: Sequence[str],
    *,
    parts_dir: Path,
    folder: Path,
) -> None:
    """Write a group of the files of a map.

    Args:
        task: the map.
        segmenter: the model that made it.
        config: of the run.
        names: of the files; see `groups`.
        parts_dir: folder of the parts.
        folder: receives the files.

    Raises:
        DataError: a scene cannot be read for its picture.
        rasterio.errors.RasterioError: a file cannot be written.
    """
    areas = parts.areas(task.grid, config)
    tags = {
        "TERRAPAIR_MODEL": f"{segmenter.name} {segmenter.version}".strip(),
        "TERRAPAIR_CLASSES": ", ".join(f"{one.id} {one.name}" for one in segmenter.classes),
    }
    class_file = folder / maps.CLASS_FILE
    layers_of = files_of(segmenter, config)
    for name in names:
        path = folder / name
        if layers := layers_of[name]:
            maps.write_cog(parts_dir, areas, task.grid, layers, tags, path)
        elif name == pictures.PICTURE_FILE:
            pictures.draw(class_file, task, segmenter.classes, path)
        else:
            acquired = f"{task.acquired:%Y-%m-%dT%H:%M:%S.000Z}"
            polygons.write(class_file, segmenter.classes, config.polygons, path, acquired)
