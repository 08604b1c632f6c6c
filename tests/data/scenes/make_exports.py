"""Make miniatures of data sets in formats other than GeoTIFF.

These are TFRecord exports of Earth Engine, zarr batches of SSL4EO-S12 v1.1, and tar
shards of TerraMesh.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import zarr

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from tests.data.scenes.make_datasets import ramp, ramp_db, ramp_l1c
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX


def float_feature(values: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values.ravel()))


def write_records(
    path: Path, records: list[dict[str, tf.train.Feature]], compressed: bool = True
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP" if compressed else None) as writer:
        for features in records:
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def write_export(
    folder: Path,
    stem: str,
    planes: Mapping[str, np.ndarray],
    *,
    patch: tuple[int, int] = (16, 24),
    margin: int = 0,
    files: int = 2,
    compressed: bool = True,
    crs: str = UTM,
) -> Path:
    """Write an image with one plane [H, W] per band, cut as Earth Engine cuts it.

    Patches are in row order and in several files. Each has a margin with pixels of its
    neighbours. The result is the path of the mixer file.
    """
    height, width = next(iter(planes.values())).shape
    rows, cols = height // patch[0], width // patch[1]
    padded = {name: np.pad(plane.astype(np.float32), margin) for name, plane in planes.items()}
    records = [
        {
            name: float_feature(
                plane[
                    row * patch[0] : (row + 1) * patch[0] + 2 * margin,
                    col * patch[1] : (col + 1) * patch[1] + 2 * margin,
                ]
            )
            for name, plane in padded.items()
        }
        for row in range(rows)
        for col in range(cols)
    ]
    share = -(-len(records) // files)
    for number in range(files):
        end = "tfrecord.gz" if compressed else "tfrecord"
        write_records(
            folder / f"{stem}-{number:05d}.{end}",
            records[number * share : (number + 1) * share],
            compressed,
        )
    mixer = {
        "projection": {"crs": crs, "affine": {"doubleMatrix": [10.0, 0.0, XMIN, 0.0, -10.0, YMAX]}},
        # Earth Engine writes the width first, and does not count the margin.
        "patchDimensions": [patch[1], patch[0]],
        "patchesPerRow": cols,
        "totalPatches": rows * cols,
    }
    path = folder / f"{stem}-mixer.json"
    path.write_text(json.dumps(mixer))
    return path


def export_planes(size: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Return VV and VH in dB and 13 L1C bands of one time step, [H, W] each."""
    side = max(size)
    stacks = (("VV", "VH"), ramp_db(side, seed)), (S2_L1C_BANDS, ramp_l1c(side, seed))
    return {
        name: plane[: size[0], : size[1]]
        for names, stack in stacks
        for name, plane in zip(names, stack, strict=True)
    }


def make_ee_tfrecord(folder: Path) -> Path:
    """Make an image of two time steps with its mixer and a margin of 4 px.

    A sub-folder has two patches without a georeference.
    """
    steps = [export_planes((48, 72), seed) for seed in range(2)]
    planes = {
        f"{step}_{name}": plane for step, found in enumerate(steps) for name, plane in found.items()
    }
    write_export(folder, "togo_2020-01-01_2020-03-01", planes, margin=4)
    records = [
        {
            "landcover": float_feature(np.random.default_rng(seed).integers(0, 9, (8, 8))),
            **{
                name: float_feature(plane)
                for name, plane in zip(S2_L1C_BANDS, ramp_l1c(8, seed), strict=True)
            },
        }
        for seed in range(2)
    ]
    write_records(folder / "training" / "data-00000-of-00001.tfrecord.gz", records)
    return folder


SIDE = 48
SAMPLES = ("0080717", "0060573", "0179869")
TIMES = {
    "S1GRD": "2020-06-07T01:08:08",
    "S2L1C": "2020-06-04T05:46:39",
    "S2L2A": "2020-06-04T05:46:39",
}
BATCH = "ssl4eos12_val_seasonal_data_000001.zarr.zip"


def stored_pixels(modality: str, seed: int) -> np.ndarray:
    """Return the stored pixels [C, H, W] of a modality, without the batches' offset."""
    if modality.startswith("S1"):
        return ramp_db(SIDE, seed).astype(np.float16)
    return (ramp_l1c(SIDE, seed) if modality == "S2L1C" else ramp(12, SIDE, seed)).astype(np.int16)


def stored_bands(modality: str) -> list[str]:
    if modality.startswith("S1"):
        return ["vv", "vh"]
    names = S2_L1C_BANDS if modality == "S2L1C" else S2_L2A_BANDS
    return [name if name == "B8A" else f"B{int(name[1:]):02d}" for name in names]


def write_group(
    store: object, arrays: Mapping[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]
) -> None:
    """Write arrays with the names of their dimensions, as xarray does."""
    group = zarr.open_group(store, mode="w")
    for name, (dimensions, values, attributes) in arrays.items():
        array = group.create_dataset(name, data=values)
        array.attrs.update({"_ARRAY_DIMENSIONS": list(dimensions), **attributes})
    zarr.consolidate_metadata(store)


def cloud_classes(seed: int) -> np.ndarray:
    """Return random classes [H, W].

    0 to 6 are land, water, snow, thin cloud, thick cloud, shadow and no data.
    """
    return np.random.default_rng(seed).integers(0, 7, (SIDE, SIDE)).astype(np.uint8)


def centres(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the pixel centres of a location, in metres."""
    steps = 10.0 * np.arange(SIDE)
    return 400_005.0 + 5_000 * seed + steps, 2_999_995.0 - steps


def make_batch(path: Path, modality: str) -> Path:
    """Write a batch of SSL4EO-S12 v1.1: three locations, two seasons, one modality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seasons, offset = 2, 0 if modality == "S1GRD" else 1000
    pixels = np.stack(
        [
            [stored_pixels(modality, i + 3 * t) + offset for t in range(seasons)]
            for i in range(len(SAMPLES))
        ]
    )
    first = np.datetime64(TIMES[modality]) - np.datetime64("2020-01-01")
    seconds = [
        [int(first.astype(int)) + 90 * 86400 * t + i for t in range(seasons)]
        for i in range(len(SAMPLES))
    ]
    x, y = (np.stack([centres(i)[axis] for i in range(len(SAMPLES))]) for axis in (0, 1))
    dtype = np.float16 if modality == "S1GRD" else np.int16
    arrays = {
        "bands": (("sample", "time", "band", "y", "x"), pixels.astype(dtype), {}),
        "band": (("band",), np.array(stored_bands(modality)), {}),
        "sample": (("sample",), np.array(SAMPLES), {}),
        "time": (("time",), np.arange(seasons), {}),
        "time_": (
            ("sample", "time"),
            np.array(seconds),
            {"units": "seconds since 2020-01-01 00:00:00"},
        ),
        "x": (("x",), np.arange(SIDE), {}),
        "y": (("y",), np.arange(SIDE), {}),
        "x_": (("sample", "x"), x, {}),
        "y_": (("sample", "y"), y, {}),
        "crs": (("sample",), np.full(len(SAMPLES), 32643), {}),
    }
    if modality != "S1GRD":
        masks = np.stack(
            [[cloud_classes(i + 3 * t) for t in range(seasons)] for i in range(len(SAMPLES))]
        )
        arrays["cloud_mask"] = (("sample", "time", "y", "x"), masks, {})
    with zarr.ZipStore(str(path), mode="w") as store:
        write_group(store, arrays)
    return path


def make_ssl4eo_v11(folder: Path) -> Path:
    for modality in TIMES:
        make_batch(folder / "val" / modality / BATCH, modality)
    return folder


def write_shard(
    path: Path,
    stores: Mapping[str, Mapping[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]],
) -> Path:
    """Write a tar of zarr.zip stores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, arrays in stores.items():
            part = path.with_name(name)
            with zarr.ZipStore(str(part), mode="w") as store:
                write_group(store, arrays)
            content = part.read_bytes()
            part.unlink()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    return path


def shard_arrays(
    modality: str, seed: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Return the arrays of a TerraMesh sample; pixels are [band, time, y, x], one time."""
    x, y = centres(seed)
    if modality == "LULC":
        pixels = np.random.default_rng(seed).integers(0, 10, (1, 1, SIDE, SIDE)).astype(np.uint8)
        bands = ["LULC"]
    else:
        pixels, bands = stored_pixels(modality, seed)[:, None], stored_bands(modality)
    taken = np.datetime64(TIMES.get(modality, TIMES["S1GRD"]), "ns") + np.timedelta64(seed, "s")
    arrays = {
        "bands": (("band", "time", "y", "x"), pixels, {}),
        "band": (("band",), np.array(bands), {}),
        "time": (
            ("time",),
            np.array([taken.astype(np.int64)]),
            {"units": "nanoseconds since 1970-01-01"},
        ),
        "x": (("x",), x, {}),
        "y": (("y",), y, {}),
        "crs": ((), np.array(32643), {}),
    }
    if modality.startswith("S2"):
        arrays["cloud_mask"] = (("time", "y", "x"), cloud_classes(seed)[None], {})
    return arrays


def make_terramesh_shards(folder: Path) -> Path:
    """Write shards of S1RTC, S2L2A and LULC with two samples each."""
    for modality in ("S1RTC", "S2L2A", "LULC"):
        stores = {
            f"majortom_val_{seed:07d}.zarr.zip": shard_arrays(modality, seed) for seed in range(2)
        }
        write_shard(folder / "val" / modality / "majortom_shard_000001.tar", stores)
    return folder
