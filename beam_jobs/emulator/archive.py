"""The emulator's catalog: simulated scenes as Earth Engine assets.

Input: the simulator's folder. Output: images and collections with the names, ids and
properties of Earth Engine's. Sentinel-1 and -2 are the scenes. Cloud Score+ comes from
their cloud masks, Dynamic World and WorldCover from their labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from beam_jobs.contracts.labels import DYNAMIC_WORLD, IGNORE, WORLDCOVER, remap_table
from beam_jobs.emulator import costs, images
from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.images import Band, Image
from beam_jobs.emulator.rasters import Plane, band_names, sample
from beam_jobs.errors import DataError
from beam_jobs.scenes.grids import Grid, to_lonlat
from beam_jobs.simulation.simulate import CATALOG_NAME

S1 = "COPERNICUS/S1_GRD"
S2 = {"L1C": "COPERNICUS/S2_HARMONIZED", "L2A": "COPERNICUS/S2_SR_HARMONIZED"}
CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
DYNAMIC_WORLD_IMAGES = "GOOGLE/DYNAMICWORLD/V1"
WORLDCOVER_IMAGES = "ESA/WorldCover/v200"
CLEAR_SCORE, SCORE_OF_CLOUD = 0.95, 0.05
"""Cloud Score+ of clear sky and of cloud. The simulator's mask has only these two, but
real scores take every value between."""
# Source:
# https://developers.google.com/earth-engine/datasets/catalog/GOOGLE_DYNAMICWORLD_V1
_DYNAMIC_WORLD_MAX_CLOUD_PERCENT = 35.0
# Source:
# https://developers.google.com/earth-engine/datasets/catalog/ESA_WorldCover_v200
_WORLDCOVER_LATITUDES = (-60.0, 82.75)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """All images and collections.

    Attributes:
        images: image id -> image.
        collections: collection id -> its images.
    """

    images: Mapping[str, Image]
    collections: Mapping[str, tuple[Image, ...]]

    def image(self, image_id: str) -> Image:
        """Return the image of that id.

        Raises:
            RequestError: 400, as Earth Engine answers for an expression; there is no
                such image.
        """
        if image_id not in self.images:
            raise RequestError(
                400,
                f"Image.load: Image asset '{image_id}' not found "
                f"(does not exist or caller does not have access).",
            )
        return self.images[image_id]

    def collection(self, collection_id: str) -> tuple[Image, ...]:
        """Return the images of a collection, in the order of the catalog.

        Raises:
            RequestError: 400; there is no such collection.
        """
        if collection_id not in self.collections:
            raise RequestError(
                400,
                f"ImageCollection.load: ImageCollection asset '{collection_id}' not found "
                f"(does not exist or caller does not have access).",
            )
        return self.collections[collection_id]

    def profile(self, profile_ids: list[str]) -> str:
        """Return the cost of requests as text; see `costs.py`."""
        return costs.profile_text(profile_ids)


@dataclass(frozen=True, kw_only=True)
class MaskedArchive(Archive):
    """The same archive with the left half of every image masked: the fault `masked`."""

    def image(self, image_id: str) -> Image:
        """Return the image with half of its pixels."""
        return images.half_masked(super().image(image_id))

    def collection(self, collection_id: str) -> tuple[Image, ...]:
        """Return the images, each with half of its pixels."""
        return tuple(images.half_masked(image) for image in super().collection(collection_id))


def open_archive(scenes_dir: str | Path) -> Archive:
    """Return the scenes of a simulator's folder as Earth Engine assets.

    Raises:
        DataError: the folder holds no catalog.
    """
    scenes_dir = Path(scenes_dir)
    collections: dict[str, dict[str, Image]] = {
        name: {}
        for name in (S1, *S2.values(), CLOUD_SCORE, DYNAMIC_WORLD_IMAGES, WORLDCOVER_IMAGES)
    }
    same_ids = np.ma.masked_equal(remap_table(DYNAMIC_WORLD, DYNAMIC_WORLD), IGNORE)
    place_labels: dict[str, tuple[str, BaseGeometry]] = {}
    for item in _items(scenes_dir / CATALOG_NAME):
        if item["properties"]["constellation"] == "sentinel-1":
            _add(collections[S1], _s1_image(item, scenes_dir))
            continue
        scene = _s2_image(item, scenes_dir)
        index = _add(collections[S2[item["properties"]["processing:level"]]], scene)
        _add(
            collections[CLOUD_SCORE],
            _derived(
                item,
                "cloud_mask",
                scenes_dir=scenes_dir,
                index=index,
                band="cs_cdf",
                table=_cloud_to_score(),
            ),
        )
        label = _derived(
            item, "label", scenes_dir=scenes_dir, index=index, band="label", table=same_ids
        )
        if scene.properties["CLOUDY_PIXEL_PERCENTAGE"] <= _DYNAMIC_WORLD_MAX_CLOUD_PERCENT:
            _add(collections[DYNAMIC_WORLD_IMAGES], label)
        place_labels.setdefault(
            item["properties"]["terrapair:place"],
            (_path(item, "label", scenes_dir), scene.geometry),
        )
    _add(collections[WORLDCOVER_IMAGES], _worldcover(tuple(place_labels.values())))
    return Archive(
        images={
            f"{name}/{index}": image
            for name, found in collections.items()
            for index, image in found.items()
        },
        collections={name: tuple(found.values()) for name, found in collections.items()},
    )


def _items(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the simulator's items.

    The readers of `catalogs` are not used, because they import TensorFlow, which takes
    seconds and hundreds of MB.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; `terrapair simulate` writes it", "missing_file")
    with path.open() as lines:
        yield from map(json.loads, lines)


def _add(collection: dict[str, Image], image: Image) -> str:
    index = image.properties["system:index"]
    if index in collection:
        raise DataError(
            f"two simulated scenes have the Earth Engine index {index}; choose another seed",
            "duplicate",
        )
    collection[index] = image
    return index


def _s1_image(item: Mapping[str, Any], scenes_dir: Path) -> Image:
    properties, acquired_at = item["properties"], _acquired_at(item)
    relative_orbit = properties["sat:relative_orbit"]
    orbit = _s1_absolute_orbit(acquired_at, relative_orbit)
    unique = hashlib.sha256(item["id"].encode()).hexdigest().upper()
    stop = acquired_at + timedelta(seconds=25)
    index = (
        f"S1A_IW_GRDH_1SDV_{acquired_at:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}"
        f"_{orbit:06d}_{unique[:6]}_{unique[6:10]}"
    )
    return _scene(item, scenes_dir, index, {
        "instrumentMode": "IW",
        "transmitterReceiverPolarisation": properties["sar:polarizations"],
        "orbitProperties_pass": properties["sat:orbit_state"].upper(),
        "relativeOrbitNumber_start": relative_orbit,
        "orbitNumber_start": orbit,
        "resolution_meters": 10,
    })  # fmt: skip


def _s2_image(item: Mapping[str, Any], scenes_dir: Path) -> Image:
    properties, acquired_at = item["properties"], _acquired_at(item)
    tile = mgrs_tile(properties["proj:code"], *properties["proj:transform"][2:6:3])
    # The second time is that of the granule, some seconds after the datatake began. It
    # gives the places of one tile different names.
    granule = acquired_at + timedelta(
        seconds=1 + int(hashlib.sha256(item["id"].encode()).hexdigest(), 16) % 600
    )
    index = f"{acquired_at:%Y%m%dT%H%M%S}_{granule:%Y%m%dT%H%M%S}_T{tile}"
    return _scene(item, scenes_dir, index, {
        "CLOUDY_PIXEL_PERCENTAGE": properties["eo:cloud_cover"],
        "MGRS_TILE": tile,
        "SENSING_ORBIT_NUMBER": properties["sat:relative_orbit"],
        "SENSING_ORBIT_DIRECTION": properties["sat:orbit_state"].upper(),
        "SPACECRAFT_NAME": f"Sentinel-2{properties['platform'][-1].upper()}",
    })  # fmt: skip


def _scene(
    item: Mapping[str, Any], scenes_dir: Path, index: str, properties: Mapping[str, Any]
) -> Image:
    path = _path(item, "data", scenes_dir)
    bands = tuple(
        Band(name=name, read=_reader(path, number)) for number, name in enumerate(band_names(path))
    )
    milliseconds = int(_acquired_at(item).timestamp()) * 1000
    return Image(
        bands=bands,
        properties={"system:index": index, "system:time_start": milliseconds, **properties},
        geometry=shape(item["geometry"]),
    )


def _cloud_to_score() -> np.ma.MaskedArray:
    table = np.ma.masked_all(256, np.float32)
    table[:2] = CLEAR_SCORE, SCORE_OF_CLOUD
    return table


def _dynamic_world_to_worldcover() -> np.ma.MaskedArray:
    """Return the table of the contracts in the opposite direction.

    Where several ids of WorldCover match, the first is taken: herbaceous wetland rather
    than mangroves.
    """
    to_dynamic_world = remap_table(WORLDCOVER, DYNAMIC_WORLD)
    table = np.ma.masked_all(256, np.uint8)
    for worldcover_id in sorted(WORLDCOVER.classes, reverse=True):
        table[to_dynamic_world[worldcover_id]] = worldcover_id
    return table


def _derived(
    item: Mapping[str, Any],
    asset: str,
    *,
    scenes_dir: Path,
    index: str,
    band: str,
    table: np.ma.MaskedArray,
) -> Image:
    """Return an image of one band: an id raster looked up in a table of 256 entries."""
    read = _reader(_path(item, asset, scenes_dir), 0)
    image = Image(
        bands=(Band(name=band, read=read),),
        properties={"system:index": index},
        geometry=shape(item["geometry"]),
    )
    return image.mapped(lambda plane, grid: _looked_up(plane, table))


def _looked_up(plane: Plane, table: np.ma.MaskedArray) -> Plane:
    found = table[plane.data]
    return np.ma.masked_array(found.data, np.ma.getmaskarray(found) | np.ma.getmaskarray(plane))


def _worldcover(places: tuple[tuple[str, BaseGeometry], ...]) -> Image:
    """Return one image of the Earth: labels of the places, and belts by latitude.

    The belts are made up, so that places can be sampled by class. A place that is
    smaller than a pixel is not shown.
    """
    table = _dynamic_world_to_worldcover()

    def read(grid: Grid) -> Plane:
        xmin, ymin, xmax, ymax = grid.bounds
        x = np.linspace(xmin, xmax, 2 * grid.width + 1)[1::2]
        y = np.linspace(ymax, ymin, 2 * grid.height + 1)[1::2]
        lon, lat = to_lonlat(grid.crs, *np.meshgrid(x, y))
        south, north = _WORLDCOVER_LATITUDES
        belts = np.select(
            [np.abs(lat) < 15, np.abs(lat) < 30, np.abs(lat) < 50, np.abs(lat) < 65],
            [10, 60, 40, 10],
            70,
        ).astype(np.uint8)
        pixel_degrees = (lat.max() - lat.min()) / grid.height
        result = np.ma.masked_where((lat < south) | (lat > north), belts)
        for path, footprint in places:
            west, low, east, high = footprint.bounds
            if (
                pixel_degrees > high - low
                or east < lon.min()
                or west > lon.max()
                or high < lat.min()
                or low > lat.max()
            ):
                continue
            labels = _looked_up(sample(path, grid)[0], table)
            result = np.ma.where(np.ma.getmaskarray(labels), result, labels).astype(np.uint8)
        return result

    return Image(bands=(Band(name="Map", read=read),), properties={"system:index": "2021"})


def mgrs_tile(crs: str, x: float, y: float) -> str:
    """Return zone, latitude band and 100 km square of a UTM point, as 31UFS.

    Source: NGA.STND.0037 (MGRS), https://earth-info.nga.mil/
    """
    _, lat = to_lonlat(crs, x, y)
    zone = int(crs[-2:])
    columns = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")[(zone - 1) % 3]
    # Rows of even zones begin five letters later.
    row = (int(y // 100_000) + (5 if zone % 2 == 0 else 0)) % 20
    latitude_band = "CDEFGHJKLMNPQRSTUVWX"[min(int((float(lat) + 80) // 8), 19)]
    return f"{zone:02d}{latitude_band}{columns[int(x // 100_000) - 1]}{'ABCDEFGHJKLMNPQRSTUV'[row]}"


def _s1_absolute_orbit(acquired_at: datetime, relative_orbit: int) -> int:
    """Return the orbit number near a time that has a given track number.

    Source: S1A orbit 46648 on 2023-01-05; track = (orbit - 73) mod 175 + 1.
    """
    near = 46_648 + round((acquired_at.replace(tzinfo=None) - datetime(2023, 1, 5)).days * 175 / 12)
    return near + (relative_orbit - 1 - (near - 73)) % 175


def _reader(path: str, number: int) -> images.Reader:
    return lambda grid: sample(path, grid)[number]


def _path(item: Mapping[str, Any], asset: str, scenes_dir: Path) -> str:
    return str(scenes_dir / item["assets"][asset]["href"])


def _acquired_at(item: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00"))
