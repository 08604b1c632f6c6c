"""Make miniatures of public data sets.

File names, data types, CRS and no-data values are the real ones. No image is constant,
so errors show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rasterio import Affine

from beam_jobs.catalogs import catalog, layouts
from beam_jobs.config import (
    BuildConfig,
    FolderLayout,
    PairingConfig,
    PatchConfig,
    ProcessingLevel,
    QualityConfig,
    SplitConfig,
)
from beam_jobs.contracts import labels, layout, records
from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.records import LabeledPatch, PairedPatch
from beam_jobs.judging import pairing
from beam_jobs.scenes.scene import Scene, from_item
from tests.data.scenes.make_rasters import backscatter, digital_numbers, north_up, write_geotiff

S1_PATCH = "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55"
S2_PATCH = "S2A_MSIL2A_20170617T113321_4_55"


def make_terramesh(folder: Path) -> Path:
    for index, name in enumerate(("12D_34L_0_1", "7U_8R_2_2")):
        transform = north_up(x=500_000.0 + 10_000 * index)
        write = {
            "transform": transform,
            "tags": {"datetime": f"2021-07-2{index}T08:40:10.000000000"},
        }
        pixels = backscatter(40, 40, index).astype(np.float64)
        write_geotiff(
            folder / "S1RTC" / f"{name}.tif", pixels, descriptions=("bands", "bands"), **write
        )
        for level, bands, offset in (("L1C", 13, 1000 * index), ("L2A", 12, 0)):
            pixels = digital_numbers(bands, 40, 40, index, offset).astype(np.int16)
            write_geotiff(folder / f"S2{level}" / f"{name}.tif", pixels, transform=transform)
        label = np.random.default_rng(index).integers(0, 10, (1, 40, 40)).astype(np.uint8)
        write["tags"] = {"datetime": f"2021-07-2{index + 2}T13:22:41.000000000"}
        write_geotiff(folder / "LULC" / f"{name}.tif", label, descriptions=("bands",), **write)
    return folder


def make_bigearthnet(folder: Path) -> Path:
    s1, s2 = folder / "s1" / S1_PATCH, folder / "s2" / S2_PATCH
    for name, plane in zip(("VV", "VH"), backscatter(120, 120), strict=True):
        write_geotiff(s1 / f"{S1_PATCH}_{name}.tif", plane[None])
    (s1 / f"{S1_PATCH}_labels_metadata.json").write_text(
        json.dumps({"acquisition_time": "2017-06-17T06:47:24"})
    )
    for index, name in enumerate(S2_L2A_BANDS):
        size = 60 if name in ("B1", "B9") else 10 if name in ("B2", "B3", "B4", "B8") else 20
        dn = digital_numbers(1, 1200 // size, 1200 // size, index)
        file_name = name if name == "B8A" else f"B{int(name[1:]):02d}"
        write_geotiff(s2 / f"{S2_PATCH}_{file_name}.tif", dn, transform=north_up(float(size)))
    (s2 / f"{S2_PATCH}_labels_metadata.json").write_text(
        json.dumps({"acquisition_date": "2017-06-17 11:33:21"})
    )
    return folder


def scenes_of(name: FolderLayout, folder: Path) -> dict[str, Scene]:
    items = [item.to_dict(include_self_link=False) for item in layouts.READERS[name](folder)]
    found = [from_item(item, folder / "items.ndjson") for item in items]
    return {scene.scene_id: scene for scene in found}


def partner_of(
    s1: Scene, s2_scenes: Iterable[Scene], config: PairingConfig
) -> tuple[str | None, str]:
    """Return the id of the partner of a Sentinel-1 scene, or None with the reason."""
    one = pairing.outline(s1)
    outlines = [one, *map(pairing.outline, s2_scenes)]
    candidates = [
        candidate
        for key in pairing.keys(one, config)
        for _, candidate in pairing.join(
            key, [o for o in outlines if key in pairing.keys(o, config)], config
        )
    ]
    chosen, why = pairing.choose(candidates, config)
    return (chosen[0].s2_id if chosen else None), why


def write_catalog(name: FolderLayout, folder: Path, path: Path) -> Path:
    """Write the catalog of a folder as `resolve_catalog` does, and return its path."""
    return catalog.write_items(layouts.READERS[name](folder), path)


def read_split(version: Path, split: str) -> list[PairedPatch]:
    """Return the decoded patches of a split."""
    files = [str(path) for path in layout.shard_paths(version, split)]
    return [
        records.decode(raw.numpy())
        for raw in tf.data.TFRecordDataset(files, compression_type="GZIP")
    ]


def small_config(
    level: ProcessingLevel = "L1C",
    block_size_km: float = 0.3,
    max_rejected_fraction: float = 0.1,
    **further: Any,
) -> BuildConfig:
    """Return a config for patches of 16 px with any cloud fraction.

    Blocks are small, so every split gets patches.
    """
    bands = S2_L1C_BANDS if level == "L1C" else S2_L2A_BANDS
    return BuildConfig(
        patch=PatchConfig(size_px=16, s2_bands=bands, s2_processing_level=level),
        quality=QualityConfig(max_cloud_fraction=1.0, max_rejected_fraction=max_rejected_fraction),
        split=SplitConfig(block_size_km=block_size_km, eval_fraction=0.3, test_fraction=0.3),
        **further,
    )


def built_patches(
    job: Callable[..., Path], config: BuildConfig, name: FolderLayout, folder: Path, out: Path
) -> tuple[Path, list[PairedPatch]]:
    """Build a version from a folder; return the version and all of its patches."""
    version = job(config, [write_catalog(name, folder, out / "items.ndjson")], out)
    return version, [patch for split in layout.SPLITS for patch in read_split(version, split)]


DEGREES_PER_PX = 8.983152841195215e-05
"""Pixel size that Earth Engine exports for 10 m in EPSG:4326."""


def ramp(bands: int, size: int, seed: int = 0) -> np.ndarray:
    """Return [C, H, W] that rises by 5 per column, 3 per row and 50 per band.

    Resampling does not change it, but a shift does.
    """
    band, row, col = np.mgrid[0:bands, 0:size, 0:size]
    return 1000.0 + 200 * seed + 50 * band + 5 * col + 3 * row


def ramp_l1c(size: int, seed: int = 0) -> np.ndarray:
    """Return a `ramp` of 13 bands whose B10 is dark, because the air absorbs it."""
    dn = ramp(13, size, seed)
    dn[S2_L1C_BANDS.index("B10")] = 10 + np.arange(size)[:, None] % 7
    return dn


def texture(size: int, seed: int) -> np.ndarray:
    """Return [H, W] of random blocks of 8 px with mean 0 and standard deviation 1.

    Two seeds look like two places. Two ramps would look like the same place.
    """
    side = -(-size // 8)
    return (
        np.random.default_rng(seed)
        .normal(size=(side, side))
        .repeat(8, axis=0)
        .repeat(8, axis=1)[:size, :size]
    )


def ramp_db(size: int, seed: int = 0) -> np.ndarray:
    """Return VV and VH in dB, [2, H, W], about -20 to -8."""
    return ramp(2, size, seed) / 100 - np.array([22.0, 29.0])[:, None, None]


SEN1FLOODS11_PLACES = {
    "Ghana_1": (-1.0, 9.0),
    "Ghana_2": (-1.2, 9.0),
    "Sri-Lanka_3": (81.0, 7.5),
    "Mekong_4": (105.3, 12.1),
    "Bolivia_5": (-65.0, -14.0),
    "Ghana_8": (-1.4, 9.0),
    "Bolivia_9": (-65.2, -14.0),
}
"""Upper left corner (lon, lat) of each chip. The last two chips are weakly labelled."""
SEN1FLOODS11_LISTS = {
    "train": ["Ghana_1"],
    "valid": ["Ghana_2"],
    "test": ["Sri-Lanka_3", "Mekong_4"],
    "bolivia": ["Bolivia_5"],
}


def flood_label(size: int, seed: int) -> np.ndarray:
    """Return water in a diagonal band and -1 in the upper left corner, int16 [1, H, W]."""
    row, col = np.mgrid[0:size, 0:size]
    label = ((row + col + 8 * seed) % size < size // 3).astype(np.int16)
    label[: size // 8, : size // 8] = -1
    return label[None]


def make_sen1floods11(folder: Path, size: int = 96, textured: bool = False) -> Path:
    """Make five hand-labelled and two weakly labelled chips, in four events.

    `textured` gives each chip its own look. Whole runs need this, because their audit
    looks for copies between the splits.
    """
    events = folder / "data" / "flood_events"
    for seed, (chip, (lon, lat)) in enumerate(SEN1FLOODS11_PLACES.items()):
        kind = "Hand" if seed < 5 else "Weak"
        part = events / ("HandLabeled" if kind == "Hand" else "WeaklyLabeled")
        write = {"transform": north_up(DEGREES_PER_PX, lon, lat), "crs": "EPSG:4326"}
        looks = textured * texture(size, seed)
        s1 = (ramp_db(size, seed) + 3.0 * looks).astype(np.float32)
        s1[:, -4:, -4:] = np.nan
        write_geotiff(
            part / f"S1{kind}" / f"{chip}_S1{kind}.tif", s1, descriptions=("VV", "VH"), **write
        )
        label = "LabelHand" if kind == "Hand" else "S1OtsuLabelWeak"
        write_geotiff(part / label / f"{chip}_{label}.tif", flood_label(size, seed), **write)
        if kind == "Hand":
            dn = (ramp_l1c(size, seed) + 300 * looks).clip(1).astype(np.uint16)
            write_geotiff(part / "S2Hand" / f"{chip}_S2Hand.tif", dn, **write)
    lists = folder / "splits" / "flood_handlabeled"
    lists.mkdir(parents=True)
    for name, chips in SEN1FLOODS11_LISTS.items():
        lines = "".join(f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips)
        (lists / f"flood_{name}_data.csv").write_text(lines)
    rows = (
        ("Ghana", "ASCENDING", 147.0, "2018/09/18", "2018/09/19"),
        ("Sri-Lanka", "DESCENDING", 19.0, "2017/05/30", "2017/05/28"),
        ("Cambodia", "ASCENDING", 26.0, "2018/08/05", "2018/08/04"),
        ("Bolivia", "DESCENDING", 156.0, "2018/02/15", "2018/02/15"),
    )
    names = ("location", "orbit", "rel_orbit_num", "s1_date", "s2_date")
    features = [
        {"type": "Feature", "properties": dict(zip(names, row, strict=True)), "geometry": None}
        for row in rows
    ]
    metadata = {"type": "FeatureCollection", "name": "Sen1Floods11_Metadata", "features": features}
    (folder / "Sen1Floods11_Metadata.geojson").write_text(json.dumps(metadata))
    return folder


def _triplet(folder: Path, names: dict[str, Path], x: float, seed: int, label: np.ndarray) -> None:
    write = {"transform": north_up(10.0, x, 8_114_182.836060452), "crs": "EPSG:32737"}
    size = label.shape[-1]
    write_geotiff(folder / names["s1"], ramp_db(size, seed).astype(np.float32), **write)
    write_geotiff(folder / names["s2"], ramp_l1c(size, seed).astype(np.uint16), **write)
    write_geotiff(folder / names["label"], label, **write)


def land_cover(size: int, num_classes: int, seed: int) -> np.ndarray:
    """Return [H, W] of blocks of 4 px with ids 0 (no label) to `num_classes`."""
    ids = np.random.default_rng(seed).integers(0, num_classes + 1, (size // 4, size // 4))
    return ids.repeat(4, axis=0).repeat(4, axis=1)


def make_sen12ms(folder: Path, size: int = 64) -> Path:
    """Make three scenes of two seasons. Patches overlap by half, as in the data set."""
    for season, scene, x in (
        ("ROIs1158_spring", 1, 0),
        ("ROIs1158_spring", 106, 20_000),
        ("ROIs2017_winter", 1, 0),
    ):
        for patch in (30, 31):
            seed = 10 * scene + patch + x
            names = {
                key: Path(season, f"{kind}_{scene}", f"{season}_{kind}_{scene}_p{patch}.tif")
                for key, kind in (("s1", "s1"), ("s2", "s2"), ("label", "lc"))
            }
            # IGBP comes first, then the three LCCS layers, which have other ids.
            label = np.stack([land_cover(size, 17, seed), *np.full((3, size, size), 21)]).astype(
                np.uint16
            )
            corner = 390_772.3389928384 + x + (patch - 30) * size * 5
            _triplet(folder, names, corner, seed % 7, label)
    return folder


def make_dfc2020(folder: Path, size: int = 64) -> Path:
    """Make two patches in each of the two folders. `dfc` has the labels; `lc` is missing."""
    for part, kind_folder in (("ROIs0000_validation", "validation"), ("ROIs0000_test", "0")):
        for patch in (0, 5):
            names = {
                key: Path(part, f"{kind}_{kind_folder}", f"{part}_{kind}_0_p{patch}.tif")
                for key, kind in (("s1", "s1"), ("s2", "s2"), ("label", "dfc"))
            }
            x = 390_772.3389928384 + 3_000 * patch + (60_000 if kind_folder == "0" else 0)
            _triplet(folder, names, x, patch, land_cover(size, 10, patch)[None].astype(np.uint8))
    return folder


def check_land_cover_patch(
    patch: LabeledPatch, seed: int, ids: np.ndarray, schema: labels.LabelSchema
) -> None:
    """Check that a patch of 16 px equals exactly one of the 16 windows of its file.

    Both sensors are checked, and the label, which is IGBP-8.
    """
    wanted = labels.remap(np.where(ids == 0, 255, ids).astype(np.uint8), schema, labels.IGBP8)
    dn, in_db = ramp_l1c(64, seed).transpose(1, 2, 0), ramp_db(64, seed).transpose(1, 2, 0)
    corners = [(row, col) for row in range(0, 64, 16) for col in range(0, 64, 16)]
    same = [
        (row, col)
        for row, col in corners
        if np.allclose(patch.s2 * 10_000, dn[row : row + 16, col : col + 16], atol=0.6)
    ]
    assert len(same) == 1
    row, col = same[0]
    np.testing.assert_allclose(patch.s1, in_db[row : row + 16, col : col + 16], rtol=0, atol=0.006)
    assert np.array_equal(patch.label, wanted[row : row + 16, col : col + 16])


COPERNICUS_BENCH_LISTS = {"train": (3, 61, 609, 1200), "val": (50, 88), "test": (51, 5127)}
"""Patches of each list of Copernicus-Bench's DFC2020. Patch 7 is in no list."""


def make_copernicus_bench_dfc2020(folder: Path, size: int = 64, textured: bool = False) -> Path:
    """Make DFC2020 as Copernicus-Bench publishes it.

    It has one folder per kind, three lists, and rasters without a georeference.
    `textured` is as in `make_sen1floods11`.
    """
    lost = {"transform": Affine.identity(), "crs": "EPSG:4326"}
    for patch in (7, *(patch for patches in COPERNICUS_BENCH_LISTS.values() for patch in patches)):
        looks = textured * texture(size, patch)
        planes = {
            "s1": ramp_db(size, patch % 9) + 3.0 * looks,
            "s2": (ramp_l1c(size, patch % 9) + 300 * looks).clip(1).astype(np.uint16),
            "dfc": land_cover(size, 10, patch)[None].astype(np.int32),
        }
        for kind, pixels in planes.items():
            write_geotiff(folder / kind / f"ROIs0000_test_{kind}_0_p{patch}.tif", pixels, **lost)
    for name, patches in COPERNICUS_BENCH_LISTS.items():
        lines = "".join(f"ROIs0000_test_dfc_0_p{patch}.tif\n" for patch in patches)
        (folder / f"dfc-{name}-new.csv").write_text(lines)
    return folder


def ee_band_names(num_steps: int) -> list[str]:
    """Return the band names of an exported time series, as in the real files."""
    step = ("VV", "VH", *S2_L1C_BANDS, "temperature_2m", "total_precipitation")
    return [name + (f"_{i}" if i else "") for i in range(num_steps) for name in step] + [
        "elevation",
        "slope",
    ]


def make_ee_timeseries(folder: Path, num_steps: int = 3, size: int = 80) -> Path:
    """Make three places with `num_steps` time steps.

    One place is split into two files, as Earth Engine does with large images.
    """
    names = (
        ("7-togo_2020-01-01_2020-03-31.tif", 1.0),
        ("8-togo_2020-01-01_2020-03-31-0000000000-0000000000.tif", 1.1),
        ("8-togo_2020-01-01_2020-03-31-0000000000-0000000080.tif", 1.1 + size * DEGREES_PER_PX),
        ("9-togo_2020-01-01_2020-03-31.tif", 1.3),
    )
    for place, (name, lon) in enumerate(names):
        planes = []
        for step in range(num_steps):
            weather = np.random.default_rng(step).uniform(0.0, 300.0, (2, size, size))
            planes += [*ramp_db(size, place + step), *ramp_l1c(size, place + step), *weather]
        planes += [np.full((size, size), 300.0), np.full((size, size), np.nan)]
        pixels = np.stack(planes).astype(np.float64)
        transform = north_up(DEGREES_PER_PX, lon, 7.7)
        write_geotiff(
            folder / name,
            pixels,
            transform=transform,
            crs="EPSG:4326",
            descriptions=ee_band_names(num_steps),
        )
    return folder


SSL4EO_S1 = "S1B_IW_GRDH_1SDV_20200607T{}_20200607T010833_021919_0299A1_1A2B"
SSL4EO_S2 = "20200604T054639_20200604T{}_T43RCP"


def make_ssl4eo(folder: Path, size: int = 64) -> Path:
    """Make three locations with one season of all three products.

    Two of the locations come from the same granules.
    """
    for location, (minute, x) in enumerate(
        (("010808", 0.0), ("010808", 5_000.0), ("010908", 40_000.0))
    ):
        write = {"transform": north_up(10.0, 400_000.0 + x, 3_000_000.0), "crs": "EPSG:32643"}
        s1 = ramp_db(size, location).astype(np.float32)
        # The data set's downloader fills missing pixels with 0.
        s1[:, :3] = 0.0
        products = (
            ("s1", SSL4EO_S1.format(minute), ("VV", "VH"), s1),
            (
                "s2c",
                SSL4EO_S2.format(minute),
                S2_L1C_BANDS,
                ramp_l1c(size, location).astype(np.uint16),
            ),
            (
                "s2a",
                SSL4EO_S2.format(minute),
                S2_L2A_BANDS,
                ramp(12, size, location + 3).astype(np.uint16),
            ),
        )
        for product, granule, names, pixels in products:
            for name, plane in zip(names, pixels, strict=True):
                write_geotiff(
                    folder / product / f"{location:07d}" / granule / f"{name}.tif",
                    plane[None],
                    **write,
                )
    return folder
