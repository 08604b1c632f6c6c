"""Simulate Sentinel-1/2 scenes in the format of an Earth Engine export.

Input: `SimulateConfig`. Output: `<output_dir>/<place_id>/*.tif` and the STAC catalog
`<output_dir>/items.ndjson`. The simulator is for running and testing: results on it
prove nothing about the real world.

Landscape, optics, orbits, edges and speckle have random streams of their own. The
setting `nuisance` changes only the radar's nuisance, so both presets show the same
world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.settings import canonical_json
from beam_jobs.simulation import optics, radar
from beam_jobs.simulation.acquisitions import Acquisition, draw_pairs
from beam_jobs.simulation.clouds import draw_clouds
from beam_jobs.simulation.export import Scene, item_line, write_scene, write_text_atomically
from beam_jobs.simulation.fields import stream
from beam_jobs.simulation.landscape import Landscape, make_landscape
from beam_jobs.simulation.phenology import crop_cover, season_greenness
from beam_jobs.simulation.places import make_place
from beam_jobs.simulation.swaths import BoolArray, shared_margin_mask, swath_mask
from beam_jobs.storage import locks

CATALOG_NAME = "items.ndjson"
CONFIG_NAME = "config.json"
LOCK_NAME = ".lock"
_PLACE_ITEMS_NAME = "items.part"
_S1_EDGE_PROBABILITY = 0.35
_S2_EDGE_PROBABILITY = 0.25


def simulate(
    config: SimulateConfig,
    output_dir: str | Path,
    on_scene: Callable[[int, int], None] | None = None,
) -> Path:
    """Write all scenes, then the catalog, and return the catalog's path.

    Only one place is in memory at a time. The catalog is written last and in one step,
    so a killed run leaves none. A later run with the same config keeps the finished
    places and continues. If the catalog exists, nothing is done.

    Args:
        config: what to simulate.
        output_dir: folder for scenes and catalog; made if needed.
        on_scene: called with (scenes done, scenes in all) after each scene.

    Raises:
        ValueError: the folder holds scenes of another config, or a catalog of unknown
            origin.
        DataError: another job is simulating into the folder.
    """
    output_dir = Path(output_dir)
    catalog_path = output_dir / CATALOG_NAME
    if _check_folder(config, output_dir) and catalog_path.exists():
        return catalog_path
    with locks.hold(output_dir / LOCK_NAME, str(output_dir)):
        # Another job may have finished between the look and the lock.
        if not (_check_folder(config, output_dir) and catalog_path.exists()):
            _simulate_all(config, output_dir, on_scene)
    return catalog_path


def _simulate_all(
    config: SimulateConfig, output_dir: Path, on_scene: Callable[[int, int], None] | None
) -> None:
    """Write the scenes that are missing, then the catalog."""
    catalog_path = output_dir / CATALOG_NAME
    write_text_atomically(output_dir / CONFIG_NAME, canonical_json(config))
    num_scenes = 2 * config.num_dates * config.num_places
    for index in range(config.num_places):
        done_before = 2 * config.num_dates * index
        for done in _simulate_place(config, index, output_dir):
            if on_scene is not None:
                on_scene(done_before + done, num_scenes)
    parts = [_place_items_path(config, index, output_dir) for index in range(config.num_places)]
    write_text_atomically(catalog_path, "".join(part.read_text(encoding="utf-8") for part in parts))
    for part in parts:
        part.unlink()


def render_s1(
    config: SimulateConfig, acquisition: Acquisition, landscape: Landscape, nuisance: radar.Nuisance
) -> Scene:
    """Return the Sentinel-1 scene of one acquisition with a given nuisance.

    Args:
        config: size and seed.
        acquisition: the pass.
        landscape: the place's landscape.
        nuisance: what hides the classes; see `radar.draw_nuisance`.
    """
    keys = (acquisition.place.index, acquisition.date_index)
    label = landscape.label(landscape.terrain.level_for_flood_m(acquisition.flooded_fraction))
    _, latitude = acquisition.place.centre()
    cover = crop_cover(acquisition.day_of_year, latitude, landscape.parcel_phase)
    expected_db = radar.mean_backscatter_db(landscape, label, cover, acquisition.orbit_state)
    expected_db = radar.add_nuisance_db(expected_db, label, nuisance, acquisition.orbit_state)
    data = radar.measure(expected_db, stream(config.seed, "speckle", *keys))
    valid_mask = _valid_mask(config, acquisition, _S1_EDGE_PROBABILITY)
    data[:, ~valid_mask] = np.nan
    return Scene(
        acquisition=acquisition,
        data=data,
        band_names=S1_DEFAULT_BANDS,
        label=np.where(valid_mask, label, np.uint8(IGNORE)),
        cloud_mask=None,
        properties={
            "constellation": "sentinel-1",
            "sar:polarizations": list(S1_DEFAULT_BANDS),
            "sar:instrument_mode": "IW",
        },
    )


def render_s2(config: SimulateConfig, acquisition: Acquisition, landscape: Landscape) -> Scene:
    """Return the Sentinel-2 scene of one acquisition.

    Args:
        config: size, seed and processing level.
        acquisition: the pass.
        landscape: the place's landscape.
    """
    keys = (acquisition.place.index, acquisition.date_index)
    label = landscape.label(landscape.terrain.level_for_flood_m(acquisition.flooded_fraction))
    _, latitude = acquisition.place.centre()
    cover = crop_cover(acquisition.day_of_year, latitude, landscape.parcel_phase)
    greenness = season_greenness(acquisition.day_of_year, latitude)
    atmosphere = optics.draw_atmosphere(stream(config.seed, "atmosphere", *keys))
    clouds = draw_clouds(stream(config.seed, "clouds", *keys), config.size_px, latitude)
    ground = optics.surface_reflectance(
        landscape,
        label,
        crop_cover=cover,
        greenness=greenness,
        mud_fraction=atmosphere.mud_fraction,
    )
    is_l1c = config.s2_processing_level == "L1C"
    reflectance = optics.observe(
        ground,
        atmosphere,
        clouds=clouds,
        is_top_of_atmosphere=is_l1c,
        rng=stream(config.seed, "s2_noise", *keys),
    )
    valid_mask = _valid_mask(config, acquisition, _S2_EDGE_PROBABILITY)
    band_names = S2_L1C_BANDS if is_l1c else S2_L2A_BANDS
    kept = [S2_L1C_BANDS.index(name) for name in band_names]
    return Scene(
        acquisition=acquisition,
        data=optics.to_dn(reflectance[kept], valid_mask),
        band_names=band_names,
        label=np.where(valid_mask, label, np.uint8(IGNORE)),
        cloud_mask=np.where(valid_mask, clouds.mask.astype(np.uint8), np.uint8(IGNORE)),
        properties={
            "constellation": "sentinel-2",
            "eo:cloud_cover": round(100 * float(clouds.mask[valid_mask].mean()), 2),
            "processing:level": config.s2_processing_level,
            "terrapair:dn_offset": 0,
        },
    )


def _simulate_place(config: SimulateConfig, index: int, output_dir: Path) -> Iterator[int]:
    """Write the scenes of one place and yield how many are done.

    The file of its items is written last and marks the place as finished.
    """
    part_path = _place_items_path(config, index, output_dir)
    if part_path.exists():
        yield 2 * config.num_dates
        return
    place = make_place(index, config.seed, config.size_px)
    part_path.parent.mkdir(exist_ok=True)
    landscape = make_landscape(config.seed, index, config.size_px)
    lines = []
    for s1, s2 in draw_pairs(config.seed, place, config.num_dates, config.s2_processing_level):
        nuisance_rng = stream(config.seed, "nuisance", index, s1.date_index)
        nuisance = radar.draw_nuisance(config.nuisance, nuisance_rng, config.size_px)
        lines.append(item_line(write_scene(render_s1(config, s1, landscape, nuisance), output_dir)))
        yield len(lines)
        lines.append(item_line(write_scene(render_s2(config, s2, landscape), output_dir)))
        # Written before the last yield: a caller that stops there leaves a finished
        # place.
        if len(lines) == 2 * config.num_dates:
            write_text_atomically(part_path, "".join(f"{line}\n" for line in lines))
        yield len(lines)


def _place_items_path(config: SimulateConfig, index: int, output_dir: Path) -> Path:
    return output_dir / make_place(index, config.seed, config.size_px).place_id / _PLACE_ITEMS_NAME


def _valid_mask(
    config: SimulateConfig, acquisition: Acquisition, edge_probability: float
) -> BoolArray:
    """Return the valid mask of a scene: its own swath edge, or its pair's margin."""
    keys = (acquisition.place.index, acquisition.date_index)
    if config.shared_edges:
        return shared_margin_mask(stream(config.seed, "shared_margin", *keys), config.size_px)
    rng = stream(config.seed, f"{acquisition.sensor}_edge", *keys)
    return swath_mask(
        rng,
        config.size_px,
        orbit_state=acquisition.orbit_state,
        edge_probability=edge_probability,
    )


def _check_folder(config: SimulateConfig, output_dir: Path) -> bool:
    """Return True if the folder was begun with this config, False if it is new."""
    config_path = output_dir / CONFIG_NAME
    if config_path.exists():
        if config_path.read_text(encoding="utf-8") != canonical_json(config):
            raise ValueError(
                f"{output_dir}: holds scenes of another config; "
                f"choose another folder or remove this one"
            )
        return True
    if (output_dir / CATALOG_NAME).exists():
        raise ValueError(
            f"{output_dir}: holds {CATALOG_NAME} but no {CONFIG_NAME}, so the simulator did not "
            f"write it; choose another folder"
        )
    return False
