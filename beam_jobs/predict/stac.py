"""STAC items of maps, and the collection of a run.

Input: a finished map. Output: JSON documents beside its files, so that any STAC reader
finds the maps, their classes, and the model and scenes that they come from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyproj
import pystac
import shapely

from beam_jobs.contracts.manifest import CODE_VERSION
from beam_jobs.predict.parts import NO_DATA, MapTask
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.scenes import footprints

ITEM_FILE = "item.json"
COLLECTION_FILE = "collection.json"
MADE_FROM = "terrapair:made_from_sha256"
"""Property of an item: hash of everything that decides its files."""
_EXTENSIONS = (
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
)


def make_item(
    task: MapTask, segmenter: Segmenter, files: Mapping[str, Sequence[float]]
) -> pystac.Item:
    """Return the item of a map.

    Args:
        task: the map.
        segmenter: the model that made it.
        files: name of a file in the item's folder -> scale of each of its bands; none
            for a file without bands.
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
            "processing:software": {"terrapair": CODE_VERSION},
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
    for name, scales in files.items():
        item.add_asset(Path(name).stem, _asset(name, scales, segmenter))
    return item


_MEDIA_TYPES = {
    ".tif": pystac.MediaType.COG,
    ".gpkg": pystac.MediaType.GEOPACKAGE,
    ".fgb": pystac.MediaType.FLATGEOBUF,
    ".png": pystac.MediaType.PNG,
}


def _asset(name: str, scales: Sequence[float], segmenter: Segmenter) -> pystac.Asset:
    suffix = os.path.splitext(name)[1]
    fields: dict[str, Any] = {}
    if scales:
        fields["raster:bands"] = [
            {"data_type": "uint8", "nodata": NO_DATA, **({"scale": scale} if scale != 1.0 else {})}
            for scale in scales
        ]
    if name == "class.tif":
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


def make_collection(items: Mapping[str, Mapping[str, Any]], segmenter: Segmenter) -> dict[str, Any]:
    """Return the collection of a run as JSON values.

    Args:
        items: path of an item, relative to the collection -> its JSON values.
        segmenter: the model.
    """
    boxes = [item["bbox"] for item in items.values()]
    times = sorted(item["properties"]["datetime"] for item in items.values())
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": f"{segmenter.name}-maps",
        "description": (
            f"Maps by the segmenter {segmenter.name}, version {segmenter.version or 'unknown'}."
        ),
        "license": "other",
        "extent": {
            "spatial": {
                "bbox": [
                    [
                        *(min(box[i] for box in boxes) for i in (0, 1)),
                        *(max(box[i] for box in boxes) for i in (2, 3)),
                    ]
                ]
            },
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [{"rel": "item", "href": f"./{path}"} for path in sorted(items)],
    }
