"""Places on a lattice inside simulated scenes, so that the emulator has something to show at each of them."""

import json
from pathlib import Path

import numpy as np

from beam_jobs.places.place import Place, Window, write_places
from beam_jobs.scenes.grids import to_lonlat


def make_places(
    catalog: Path, path: Path, num_places: int, size_px: int = 32, window: Window | None = None
) -> Path:
    """Writes `num_places` places whose patches of `size_px` do not touch each other or a scene's edge.

    Args:
        catalog: of the simulator.
        path: GeoJSON to write.
        num_places: how many.
        size_px: side of the patches to be fetched.
        window: of every place; by default all time.
    """
    windows = (window or Window(start="2019-01-01", end="2026-01-01"),)
    squares = {}
    for line in catalog.read_text().splitlines():
        item = json.loads(line)
        properties = item["properties"]
        squares[properties["terrapair:place"]] = (
            properties["proj:code"],
            properties["proj:transform"],
            properties["proj:shape"][0],
        )
    places = []
    for name, (crs, transform, scene_px) in sorted(squares.items()):
        # A pixel of margin, since a footprint in degrees is not quite the square in
        # metres.
        middles = np.arange(size_px / 2 + 4, scene_px - size_px / 2 - 4, size_px) * 10.0
        for north in middles:
            lon, lat = to_lonlat(
                crs, transform[2] + middles, np.full(len(middles), transform[5] - north)
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
