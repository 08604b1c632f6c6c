"""Make places on a lattice inside simulated scenes; the emulator has images of each."""

import json
from pathlib import Path

import numpy as np

from beam_jobs.places.place import Place, Window, write_places
from beam_jobs.scenes.grids import to_lonlat


def make_places(
    catalog: Path, path: Path, num_places: int, size_px: int = 32, window: Window | None = None
) -> Path:
    """Write places whose patches do not touch each other or a scene's edge.

    Args:
        catalog: catalog of the simulator.
        path: GeoJSON to write.
        num_places: number of places.
        size_px: side of the patches to be fetched.
        window: time window of every place; by default all time.
    """
    windows = (window or Window(start="2019-01-01", end="2026-01-01"),)
    squares = {}
    for line in catalog.read_text().splitlines():
        item = json.loads(line)
        properties = item["properties"]
        squares[properties["terrapair:place"]] = properties
    places = []
    for name, properties in sorted(squares.items()):
        transform, scene_px = properties["proj:transform"], properties["proj:shape"][0]
        # Keep a margin: the outline in degrees is not exactly the square in metres.
        middles = np.arange(size_px / 2 + 4, scene_px - size_px / 2 - 4, size_px) * 10.0
        for north in middles:
            lon, lat = to_lonlat(
                properties["proj:code"],
                transform[2] + middles,
                np.full(len(middles), transform[5] - north),
            )
            places += [
                Place(
                    place_id=f"{name}-{round(north)}-{round(east)}",
                    lon=round(float(x), 5),
                    lat=round(float(y), 5),
                    stratum=name,
                    windows=windows,
                )
                for east, x, y in zip(middles, lon, lat, strict=True)
            ]
    if len(places) < num_places:
        raise ValueError(f"the scenes have room for {len(places)} places, not {num_places}")
    write_places(places[:num_places], path, {})
    return path
