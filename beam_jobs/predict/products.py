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


def write(
    task: MapTask, segmenter: Segmenter, config: PredictConfig, *, parts_dir: Path, folder: Path
) -> dict[str, Sequence[Layer]]:
    """Write the files of a map; return name -> layers, none without bands.

    Args:
        task: the map.
        segmenter: the model that made it.
        config: which files are written.
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
    rasters = {
        maps.CLASS_FILE: [maps.class_layer(segmenter.classes)],
        maps.PROBABILITY_FILE: maps.probability_layers(segmenter.classes, config),
        maps.UNCERTAINTY_FILE: maps.uncertainty_layers(segmenter.classes, config),
    }
    files: dict[str, Sequence[Layer]] = {}
    for name, layers in rasters.items():
        if layers:
            maps.write_cog(parts_dir, areas, task.grid, layers, tags, folder / name)
            files[name] = layers
    if config.polygons.classes:
        name = polygons.FILES[config.polygons.format]
        polygons.write(
            folder / maps.CLASS_FILE,
            segmenter.classes,
            config.polygons,
            folder / name,
            f"{task.acquired:%Y-%m-%dT%H:%M:%S.000Z}",
        )
        files[name] = ()
    pictures.draw(folder / maps.CLASS_FILE, task, segmenter.classes, folder / pictures.PICTURE_FILE)
    files[pictures.PICTURE_FILE] = ()
    return files
