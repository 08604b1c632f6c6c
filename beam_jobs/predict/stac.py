"""STAC items of maps, and the collection of a run.

Input: a finished map. Output: JSON documents beside its files, so that any STAC reader
finds the maps, their classes, and the model and scenes that they come from. Items and
collection are of the version of STAC that pystac writes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pystac
import shapely

from beam_jobs.contracts.manifest import CODE_VERSION
from beam_jobs.predict.maps import CLASS_FILE, Layer
from beam_jobs.predict.parts import MapTask
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.scenes import footprints

ITEM_FILE = "item.json"
COLLECTION_FILE = "collection.json"
MODEL_FILE = "model.json"
"""Item of the model, beside the collection."""
MADE_FROM = "terrapair:made_from_sha256"
"""Property of an item: hash of everything that decides its files."""
_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
_EXTENSIONS = (
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    _RASTER,
)
_OF_MODELS = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""The successor of the extension ml-model, which is deprecated."""
_UNITS = {"s1": "backscatter in dB", "s2": "reflectance 0-1"}


def make_item(
    task: MapTask, segmenter: Segmenter, files: Mapping[str, Sequence[Layer]]
) -> pystac.Item:
    """Return the item of a map.

    Args:
        task: the map.
        segmenter: the model that made it.
        files: name of a file in the item's folder -> its layers; none for a file that
            is no raster.
    """
    grid = task.grid
    geometry = footprints.of_bounds(grid.crs, grid.bounds)
    there = [scene for scene in task.scenes.values() if not scene.is_absent]
    crs = pyproj.CRS.from_user_input(grid.crs)
    epsg = crs.to_epsg()
    item = pystac.Item(
        id=task.map_id,
        geometry=shapely.geometry.mapping(geometry),
        bbox=list(geometry.bounds),
        datetime=task.acquired,
        properties={
            "proj:code": f"EPSG:{epsg}" if epsg else None,
            **({} if epsg else {"proj:wkt2": crs.to_wkt("WKT2_2019")}),
            "proj:shape": [grid.height, grid.width],
            "proj:transform": list(grid.transform),
            "processing:level": "L4",
            "processing:software": {"terrapair": CODE_VERSION},
            "processing:expression": {"format": "stac-mlm", "expression": f"../{MODEL_FILE}"},
            "processing:lineage": (
                f"segmenter {segmenter.name} version {segmenter.version or 'unknown'} on "
                f"{' and '.join(scene.scene_id for scene in there)}"
            ),
            "terrapair:scenes": [scene.scene_id for scene in there],
            "terrapair:model": segmenter.name,
            "terrapair:model_version": segmenter.version,
            "terrapair:model_sha256": segmenter.sha256,
            "terrapair:data_manifest_sha256": segmenter.data_sha256,
            MADE_FROM: task.made_from,
        },
        stac_extensions=list(_EXTENSIONS),
    )
    for name, layers in files.items():
        item.add_asset(Path(name).stem, _asset(name, layers, segmenter))
    item.collection_id = _collection_id(segmenter)
    for rel in ("root", "parent", "collection"):
        item.add_link(pystac.Link(rel, f"../{COLLECTION_FILE}", media_type=pystac.MediaType.JSON))
    item.add_link(
        pystac.Link(
            "derived_from",
            f"../{MODEL_FILE}",
            media_type=pystac.MediaType.GEOJSON,
            extra_fields={"mlm:name": segmenter.name},
        )
    )
    return item


def _collection_id(segmenter: Segmenter) -> str:
    return f"{segmenter.name}-maps"


_MEDIA_TYPES = {
    ".tif": pystac.MediaType.COG,
    ".gpkg": pystac.MediaType.GEOPACKAGE,
    ".fgb": pystac.MediaType.FLATGEOBUF,
    ".png": pystac.MediaType.PNG,
}


def _asset(name: str, layers: Sequence[Layer], segmenter: Segmenter) -> pystac.Asset:
    suffix = os.path.splitext(name)[1]
    fields: dict[str, Any] = {}
    if layers:
        fields["bands"] = [{"name": layer.description} for layer in layers]
        fields["raster:bands"] = [_band(layer) for layer in layers]
    if name == CLASS_FILE:
        fields["classification:classes"] = [
            {"value": one.id, "name": one.name, "color_hint": one.color.lstrip("#").upper()}
            for one in segmenter.classes
        ]
    return pystac.Asset(
        href=f"./{name}",
        media_type=_MEDIA_TYPES[suffix],
        roles=["overview"] if suffix == ".png" else ["data"],
        extra_fields=fields,
    )


def _band(layer: Layer) -> dict[str, Any]:
    # JSON has no NaN.
    nodata = "nan" if math.isnan(layer.nodata) else int(layer.nodata)
    scale = {"scale": layer.scale} if layer.scale != 1.0 else {}
    return {"data_type": layer.dtype, "nodata": nodata, **scale}


def make_model_item(
    segmenter: Segmenter, items: Sequence[Mapping[str, Any]], folder: str
) -> dict[str, Any]:
    """Return the item of a model as JSON values, by the extension MLM.

    Its place and time are those of the maps, for which it was used.

    Args:
        segmenter: the model.
        items: JSON values of the items of the maps.
        folder: of the maps, from which local models are named.
    """
    box, times = _extent(items)
    first, last = (pystac.utils.str_to_datetime(time) for time in times)
    num_classes = len(segmenter.classes)
    item = pystac.Item(
        id=f"{segmenter.name}-{segmenter.version or 'unknown'}",
        geometry=shapely.geometry.mapping(shapely.box(*box)),
        bbox=box,
        datetime=None,
        start_datetime=first,
        end_datetime=last,
        properties={
            "mlm:name": segmenter.name,
            "mlm:architecture": segmenter.architecture,
            "mlm:framework": "TensorFlow",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:input": [
                {
                    "name": sensor,
                    "description": f"{_UNITS[sensor]}, NaN = no data",
                    "bands": list(names),
                    "input": _tensor(len(names), "bands"),
                }
                for sensor, names in segmenter.bands.items()
            ],
            "mlm:output": [
                {
                    "name": "probabilities",
                    "description": "of " + ", ".join(one.name for one in segmenter.classes),
                    "tasks": ["semantic-segmentation"],
                    "result": _tensor(num_classes, "class"),
                }
            ],
            "gsd": segmenter.pixel_size_m,
            "terrapair:model_sha256": segmenter.sha256,
        },
        stac_extensions=[_OF_MODELS, _RASTER],
    )
    bands = [{"name": name} for names in segmenter.bands.values() for name in names]
    for number, one in enumerate(segmenter.models, start=1):
        local = "://" not in one.path
        item.add_asset(
            f"model-{number}" if segmenter.members else "model",
            pystac.Asset(
                href=os.path.abspath(one.path) if local else one.path,
                media_type="application/octet-stream; framework=tensorflow",
                roles=["mlm:model"],
                extra_fields={
                    "mlm:artifact_type": "tf.saved_model.save",
                    "raster:bands": bands,
                    "terrapair:model_version": one.version,
                    "terrapair:model_sha256": one.sha256,
                    "terrapair:data_manifest_sha256": one.data_sha256,
                    "terrapair:code_version": one.code_version,
                },
            ),
        )
    return item.to_dict(include_self_link=False)


def _tensor(channels: int, name: str) -> dict[str, Any]:
    return {
        "shape": [-1, -1, -1, channels],
        "dim_order": ["batch", "height", "width", name],
        "data_type": "float32",
    }


def _extent(items: Sequence[Mapping[str, Any]]) -> tuple[list[float], tuple[str, str]]:
    """Return the bounds of items in degrees, and the first and last of their times."""
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    return [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()], (times[0], times[-1])


def make_collection(items: Mapping[str, Mapping[str, Any]], segmenter: Segmenter) -> dict[str, Any]:
    """Return the collection of a run as JSON values.

    Args:
        items: path of an item, relative to the collection -> its JSON values.
        segmenter: the model.
    """
    box, times = _extent(list(items.values()))
    return {
        "type": "Collection",
        "stac_version": pystac.get_stac_version(),
        "id": _collection_id(segmenter),
        "description": (
            f"Maps by the segmenter {segmenter.name}, version {segmenter.version or 'unknown'}."
        ),
        "license": "other",
        "extent": {"spatial": {"bbox": [box]}, "temporal": {"interval": [list(times)]}},
        "links": [
            {"rel": "root", "href": f"./{COLLECTION_FILE}", "type": pystac.MediaType.JSON},
            {
                "rel": "derived_from",
                "href": f"./{MODEL_FILE}",
                "type": pystac.MediaType.GEOJSON,
                "mlm:name": segmenter.name,
            },
            *(
                {"rel": "item", "href": f"./{path}", "type": pystac.MediaType.GEOJSON}
                for path in sorted(items)
            ),
        ],
    }
