"""Fuzz: any raster, item and label gives the values of its plain twin, or one line.

A case is drawn with its truth: physical values on a plain north-up UTM grid, and gaps.
It is written in one of many ways (type, unit, offset, fill, mask, layout, orientation,
CRS), and read. NumPy on the truth is the oracle. `TERRAPAIR_FUZZ_EXAMPLES=3000` looks
for new cases for some minutes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from beam_jobs.build import patches
from beam_jobs.config import BuildConfig, PatchConfig, QualityConfig, SplitConfig
from beam_jobs.contracts import records
from beam_jobs.contracts.locations import locate
from beam_jobs.errors import DataError
from beam_jobs.scenes import inspection, label_rasters, readers
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene, from_item
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX, grid, north_up, write_geotiff

EXAMPLES = int(os.environ.get("TERRAPAIR_FUZZ_EXAMPLES", "12"))
FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NAMES = {"s1": ("VV", "VH"), "s2": ("B2", "B4", "B8")}
TOLERANCE = {"s1": 2e-3, "s2": 2e-5}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A way to write physical values.

    Attributes:
        dtype: of the file.
        fields: of the item's asset, which declare the unit.
        fill: numbers that may stand for no data in that type.
        refused: reason, if the item cannot tell what the numbers are.
        offset: added to digital numbers.
    """

    dtype: str
    unit: str
    fields: dict[str, Any]
    fill: tuple[float, ...]
    refused: str | None = None
    offset: int = 0
    properties: tuple[tuple[str, Any], ...] = ()


NAN = float("nan")
STORAGES: dict[str, list[Storage]] = {
    "s1": [
        Storage(dtype="float32", unit="dB", fields={}, fill=(NAN, -9999.0, 0.0, -99.0)),
        Storage(dtype="float64", unit="dB", fields={}, fill=(NAN, -1e30, -9999.0)),
        Storage(
            dtype="int16",
            unit="centi-dB",
            fields={"terrapair:unit": "dB", "raster:scale": 0.01},
            fill=(-32768.0, 0.0),
        ),
        Storage(
            dtype="float32",
            unit="power",
            fields={"terrapair:unit": "power"},
            fill=(NAN, 0.0, -9999.0, -32768.0),
        ),
        Storage(dtype="float32", unit="power", fields={}, fill=(NAN, -1.0), refused="s1_not_db"),
        Storage(dtype="uint16", unit="numbers", fields={}, fill=(0.0,), refused="s1_not_db"),
    ],
    "s2": [
        Storage(dtype="uint16", unit="dn", fields={}, fill=(0.0, 65535.0)),
        Storage(dtype="int16", unit="dn", fields={}, fill=(0.0, -9999.0, -32768.0)),
        Storage(dtype="float32", unit="dn", fields={}, fill=(NAN, 0.0, -9999.0, 1e20)),
        *(
            Storage(
                dtype="uint16",
                unit="dn",
                fields={},
                fill=(0.0,),
                offset=offset,
                properties=properties,
            )
            for offset, properties in (
                (1000, (("terrapair:dn_offset", 1000),)),
                (1000, (("s2:processing_baseline", "05.09"),)),
                (0, (("s2:processing_baseline", "02.14"),)),
                (
                    0,
                    (
                        ("s2:processing_baseline", "05.11"),
                        ("earthsearch:boa_offset_applied", True),
                    ),
                ),
            )
        ),
        Storage(
            dtype="float32",
            unit="reflectance",
            fields={"terrapair:unit": "reflectance"},
            fill=(NAN, -9999.0),
        ),
        Storage(
            dtype="uint8",
            unit="bytes",
            fields={"terrapair:unit": "reflectance", "raster:scale": 0.002},
            fill=(0.0, 255.0),
        ),
        Storage(dtype="uint8", unit="bytes", fields={}, fill=(0.0,), refused="s2_not_dn"),
        Storage(dtype="float32", unit="reflectance", fields={}, fill=(NAN,), refused="s2_not_dn"),
        Storage(
            dtype="uint16",
            unit="dn",
            fields={},
            fill=(0.0,),
            offset=1000,
            refused="unknown_dn_offset",
        ),
        Storage(
            dtype="uint16",
            unit="dn",
            fields={},
            fill=(0.0,),
            refused="unknown_dn_offset",
            properties=(("s2:processing_baseline", "05.09"),),
        ),
        Storage(
            dtype="uint16",
            unit="dn",
            fields={},
            fill=(0.0,),
            offset=1000,
            refused="unknown_dn_offset",
            properties=(("earthsearch:boa_offset_applied", True),),
        ),
    ],
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scene, and how it is written.

    Attributes:
        sensor: of the scene.
        storage: see Storage.
        seed: of its values.
        height: rows of the plain twin.
        width: columns of the plain twin.
        gap: (row, col, height, width) of no data, as shares of the twin.
        holes: number of single pixels of no data.
        fill: number that stands for no data.
        told_by: who says what is no data: the file or the item by a value, both, or the
            file by a mask.
        per_band: one file per band.
        turn: quarter turns of the raster.
        is_mirrored: columns run from east to west.
        layout: options of the GeoTIFF driver.
        overviews: how overviews were made, "" = none.
        extra_bands: other bands before the wanted ones.
    """

    sensor: str
    storage: Storage
    seed: int
    height: int
    width: int
    gap: tuple[float, float, float, float]
    holes: int
    fill: float
    told_by: str
    per_band: bool
    turn: int
    is_mirrored: bool
    layout: str
    overviews: str
    extra_bands: int


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "one strip": {"blockysize": 64},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"},
    "interleaved": {"interleave": "pixel", "compress": "lzw"},
}


@st.composite
def cases(draw: st.DrawFn, sensor: str | None = None) -> Case:
    sensor = sensor or draw(st.sampled_from(["s1", "s2"]))
    storage = draw(st.sampled_from(STORAGES[sensor]))
    share = st.floats(0.0, 0.6)
    per_band = draw(st.booleans())
    return Case(
        sensor=sensor,
        storage=storage,
        seed=draw(st.integers(0, 2**20)),
        height=draw(st.integers(20, 60)),
        width=draw(st.integers(20, 60)),
        gap=draw(st.one_of(st.just((0.0, 0.0, 0.0, 0.0)), st.tuples(share, share, share, share))),
        holes=draw(st.integers(0, 6)),
        fill=draw(st.sampled_from(storage.fill)),
        told_by=draw(st.sampled_from(["file", "item", "both", "mask"])),
        per_band=per_band,
        turn=draw(st.integers(0, 3)),
        is_mirrored=draw(st.booleans()),
        layout=draw(st.sampled_from(sorted(LAYOUTS))),
        overviews=draw(st.sampled_from(["", "average", "cubic"])),
        extra_bands=0 if per_band else draw(st.integers(0, 2)),
    )


def truth(case: Case) -> np.ndarray:
    """Physical values [C, H, W] of the plain twin; NaN = no data in all bands."""
    rng = np.random.default_rng(case.seed)
    shape = (case.height, case.width)
    if case.sensor == "s1":
        values = np.stack([rng.normal(-10.0, 2.0, shape), rng.normal(-17.0, 2.0, shape)])
        values = np.clip(values, -30.0, -1.5).round(2)
    else:
        values = rng.integers(100, 3500, (3, *shape)) / 10_000
        if case.storage.unit == "bytes":
            values = rng.integers(1, 255, (3, *shape)) * 0.002
    top, left, down, across = case.gap
    rows = slice(int(top * case.height), int((top + down) * case.height))
    cols = slice(int(left * case.width), int((left + across) * case.width))
    values[:, rows, cols] = np.nan
    for row, col in zip(
        rng.integers(0, case.height, case.holes),
        rng.integers(0, case.width, case.holes),
        strict=True,
    ):
        values[:, row, col] = np.nan
    return values


def stored(case: Case, values: np.ndarray) -> np.ndarray:
    """The numbers in the file for physical values; `case.fill` for no data."""
    unit = case.storage.unit
    if unit == "centi-dB":
        numbers = np.rint(values * 100)
    elif unit == "power":
        numbers = np.power(10.0, values / 10)
    elif unit == "numbers":
        numbers = np.rint(1000 * np.power(10.0, values / 20))
    elif unit == "dn":
        numbers = np.rint(values * 10_000) + case.storage.offset
    elif unit == "bytes":
        numbers = np.rint(values / 0.002)
    else:
        numbers = values
    return np.where(np.isnan(values), case.fill, numbers).astype(case.storage.dtype)


def turned(
    pixels: np.ndarray, turn: int, is_mirrored: bool, pixel_size: float = 10.0
) -> tuple[np.ndarray, Affine]:
    """The pixels [C, H, W] in another orientation, and where they then lie."""
    transform = north_up(pixel_size)
    for _ in range(turn):
        width = pixels.shape[-1]
        # A quarter turn: column c of the result is row c of the raster, from its last
        # column on.
        pixels = np.rot90(pixels, axes=(-2, -1))
        transform = transform * Affine(0, -1, width, 1, 0, 0)
    if is_mirrored:
        transform = transform * Affine(-1, 0, pixels.shape[-1], 0, 1, 0)
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels), transform


def write(case: Case, folder: Path) -> dict[str, Any]:
    """Write the files of a case, and return its item."""
    names = NAMES[case.sensor]
    pixels, transform = turned(stored(case, truth(case)), case.turn, case.is_mirrored)
    other = np.random.default_rng(case.seed + 1).integers(
        1, 9, (case.extra_bands, *pixels.shape[1:])
    )
    # With a declared unit the item must tell what means no data.
    in_item = case.told_by in ("item", "both") or bool(case.storage.fields)
    fields: dict[str, Any] = dict(case.storage.fields)
    if in_item:
        is_told = case.told_by != "mask" and not np.isnan(case.fill)
        fields["nodata"] = case.fill if is_told else None
    parts = (
        {name: (pixels[i : i + 1], (name,)) for i, name in enumerate(names)}
        if case.per_band
        else {"data": (np.concatenate([other.astype(pixels.dtype), pixels]), names)}
    )
    assets = {}
    for name, (planes, _) in parts.items():
        path = write_geotiff(
            folder / f"{case.sensor}_{name}.tif",
            planes,
            transform=transform,
            nodata=case.fill if case.told_by in ("file", "both") else None,
            **LAYOUTS[case.layout],
        )
        if case.told_by == "mask":
            valid = ~np.isnan(turned(truth(case), case.turn, case.is_mirrored)[0][0])
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
                dataset.write_mask(valid)
        if case.overviews:
            with rasterio.open(path, "r+") as dataset:
                dataset.build_overviews([2, 4], rasterio.enums.Resampling[case.overviews])
        assets[name] = {"href": path.name, **fields}
    if not case.per_band:
        assets["data"]["bands"] = [
            {"name": name, "terrapair:index": case.extra_bands + i}
            for i, name in enumerate(names, start=1)
        ]
    item = item_of(case.sensor, assets, height=case.height, width=case.width)
    item["properties"] |= dict(case.storage.properties)
    return item


def item_of(sensor: str, assets: dict[str, Any], *, height: int, width: int) -> dict[str, Any]:
    bounds = (XMIN, YMAX - 10 * height, XMIN + 10 * width, YMAX)
    lonlat = transform_bounds(UTM, "EPSG:4326", *bounds)
    properties: dict[str, Any] = {
        "datetime": "2023-07-01T05:12:46Z",
        "constellation": "sentinel-1" if sensor == "s1" else "sentinel-2",
        "proj:code": UTM,
    }
    if sensor == "s2":
        properties["processing:level"] = "L2A"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"{sensor}_scene",
        "geometry": mapping(box(*lonlat)),
        "bbox": list(lonlat),
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def plain_grid(case: Case) -> Grid:
    return grid(case.height, case.width)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def opened(item: dict[str, Any], at: Path) -> Scene:
    return from_item(item, locate(at / "items.ndjson"))


@contextlib.contextmanager
def refused_in_one_line(*reasons: str | None) -> Iterator[None]:
    """Allow a DataError of one line, for one of `reasons` if any is given."""
    error: DataError | None = None
    try:
        yield
    except DataError as found:
        error = found
    if error is not None:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) > 20
        assert not reasons or error.reason in reasons, str(error)


@FUZZ
@given(cases())
def test_every_way_to_write_a_scene_gives_the_values_of_its_plain_twin(case):
    names, values = NAMES[case.sensor], truth(case)
    reasons = {case.storage.refused}
    if np.isnan(values).all():
        reasons.add("no_valid_pixel")
    # Beside gaps, too few pixels may be left to tell the offset.
    if case.sensor == "s2" and np.isnan(values).mean() > 0.1:
        reasons.add("unknown_dn_offset")
    with folder() as at, refused_in_one_line(*reasons):
        scene = inspection.inspect(opened(write(case, at), at), names)
        assert case.storage.refused is None
        got = np.moveaxis(readers.read_bands(scene, names, plain_grid(case)), -1, 0)
        assert got == pytest.approx(values, abs=TOLERANCE[case.sensor], nan_ok=True)
        # A part of the grid has the values of the whole.
        part = readers.read_bands(scene, names[:1], plain_grid(case).window(5, 7, 12, 9))[..., 0]
        assert part == pytest.approx(values[0, 5:17, 7:16], abs=TOLERANCE[case.sensor], nan_ok=True)


@st.composite
def places(draw: st.DrawFn) -> tuple[str, float, float]:
    """A CRS for a raster around the plain grid, its pixel size there, and a shift."""
    crs, size = draw(
        st.sampled_from(
            [
                (UTM, 10.0),
                (UTM, 20.0),
                ("EPSG:32634", 10.0),
                ("EPSG:3857", 14.0),
                ("EPSG:4326", 1e-4),
                ("EPSG:3035", 10.0),
            ]
        )
    )
    return crs, size * draw(st.sampled_from([0.7, 1.0, 1.3])), draw(st.floats(-0.5, 0.5))


def smooth(sensor: str, crs: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A field that bilinear interpolation keeps, dB or reflectance."""
    east, north = (
        np.asarray(values) for values in rasterio.warp.transform(crs, UTM, np.ravel(x), np.ravel(y))
    )
    east, north = (
        (values.reshape(np.shape(x)) - at) / 1000 for values, at in ((east, XMIN), (north, YMAX))
    )
    if sensor == "s1":
        return np.stack([-11 + 2 * east + north, -18 + east - north])
    return np.stack([0.2 + 0.1 * east + 0.05 * north, 0.15 + 0.05 * east, 0.2 - 0.1 * north])


@FUZZ
@given(places(), st.sampled_from(["s1", "s2"]), st.sampled_from([1, -1]))
def test_a_scene_in_any_crs_has_its_values_where_they_lie(place, sensor, vertical):
    crs, size, shift = place
    target = grid(40, 50)
    xmin, ymin, xmax, ymax = transform_bounds(UTM, crs, *target.bounds)
    # The raster ends in the middle of the grid, so that both sides are seen.
    left, top = xmin - 7 * size + shift * size, ymax + 9 * size
    width, height = int((xmax - xmin) / size * 0.6) + 7, int((ymax - ymin) / size) + 18
    transform = Affine(size, 0, left, 0, -size, top)
    if vertical < 0:
        transform = transform * Affine(1, 0, 0, 0, -1, height)
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    values = smooth(sensor, crs, *(transform * (cols, rows)))
    with folder() as at:
        numbers = (values if sensor == "s1" else values * 10_000).astype(np.float32)
        write_geotiff(at / "data.tif", numbers, crs=crs, transform=transform)
        assets = {"data": {"href": "data.tif", "bands": [{"name": n} for n in NAMES[sensor]]}}
        item = item_of(sensor, assets, height=40, width=50)
        item["properties"] |= {"proj:code": crs}
        if sensor == "s2":
            item["properties"]["terrapair:dn_offset"] = 0
        scene = inspection.inspect(opened(item, at), NAMES[sensor])
        got = np.moveaxis(readers.read_bands(scene, NAMES[sensor], target), -1, 0)
    x, y = np.meshgrid(XMIN + 10 * (np.arange(50) + 0.5), YMAX - 10 * (np.arange(40) + 0.5))
    expected = smooth(sensor, UTM, x, y)
    x, y = (
        np.reshape(v, (40, 50)) for v in rasterio.warp.transform(UTM, crs, x.ravel(), y.ravel())
    )
    col, row = ~transform * (np.asarray(x), np.asarray(y))
    # Within the raster all is there, beyond it nothing; half a pixel is left open.
    inside = (col > 1) & (col < width - 1) & (row > 1) & (row < height - 1)
    outside = (col < -0.5) | (col > width + 0.5) | (row < -0.5) | (row > height + 0.5)
    assert inside.any()
    assert np.isfinite(got[:, inside]).all()
    assert np.isnan(got[:, outside]).all()
    tolerance = 0.02 if sensor == "s1" else 5e-4
    assert got[:, inside] == pytest.approx(expected[:, inside], abs=tolerance)


@st.composite
def labels_of(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, 2**20)),
        "dtype": draw(st.sampled_from(["uint8", "int16", "float32", "int32"])),
        "nodata": draw(st.sampled_from([None, 255, 7])),
        "told_by": draw(st.sampled_from(["file", "item"])),
        "fine": draw(st.booleans()),
        "layout": draw(st.sampled_from(sorted(LAYOUTS))),
        "turn": draw(st.integers(0, 3)),
        "is_mirrored": draw(st.booleans()),
    }


@FUZZ
@given(labels_of())
def test_a_label_has_the_ids_of_its_plain_twin(case):
    rng = np.random.default_rng(case["seed"])
    ids = rng.integers(0, 2, (30, 40))
    fill = 255 if case["nodata"] is None else case["nodata"]
    ids[rng.uniform(size=ids.shape) < 0.1] = 255
    pixels = np.where(ids == 255, fill, ids)
    # Twice as fine: every pixel of the grid has the value of the four in it.
    pixels = np.kron(pixels, np.ones((2, 2), int)) if case["fine"] else pixels
    pixels, transform = turned(
        pixels[None], case["turn"], case["is_mirrored"], 5.0 if case["fine"] else 10.0
    )
    with folder() as at:
        write_geotiff(
            at / "label.tif",
            pixels.astype(case["dtype"]),
            transform=transform,
            nodata=case["nodata"] if case["told_by"] == "file" else None,
            **LAYOUTS[case["layout"]],
        )
        item = a_scene(at, "s1")
        item["assets"]["label"] = {"href": "label.tif", "terrapair:label_schema": "water"}
        if case["told_by"] == "item" and case["nodata"] is not None:
            item["assets"]["label"]["terrapair:label_nodata"] = case["nodata"]
        scene = opened(item, at)
        label_rasters.check_place(scene)
        got = label_rasters.read(scene.label, "water", grid(30, 40))
    assert np.array_equal(got, ids)


def a_scene(at: Path, sensor: str) -> dict[str, Any]:
    """Write a plain scene of 30 x 40 pixels, and return its item."""
    case = Case(
        sensor=sensor,
        storage=STORAGES[sensor][0],
        seed=1,
        height=30,
        width=40,
        gap=(0.0, 0.0, 0.2, 0.2),
        holes=0,
        fill=STORAGES[sensor][0].fill[0],
        told_by="item",
        per_band=False,
        turn=0,
        is_mirrored=False,
        layout="strips",
        overviews="",
        extra_bands=0,
    )
    return write(case, at)


CONFIG = BuildConfig(
    patch=PatchConfig(size_px=16, s2_bands=NAMES["s2"]),
    quality=QualityConfig(
        min_valid_fraction=0.01, measure_offset=False, max_edge_noise_fraction=1.0
    ),
    split=SplitConfig(block_size_km=500.0),
)


@FUZZ
@given(cases("s1"), cases("s2"))
def test_the_patches_of_a_pair_hold_the_values_of_the_plain_twins(one, two):
    assume(one.storage.refused is None)
    assume(two.storage.refused is None)
    expected = {case.sensor: np.moveaxis(truth(case), 0, -1) for case in (one, two)}
    allowed = ("no_valid_pixel", "unknown_dn_offset")
    with folder() as at, refused_in_one_line(*allowed):
        scenes = [
            inspection.inspect(opened(write(case, at), at), NAMES[case.sensor])
            for case in (one, two)
        ]
        found = []
        for task in patches.tasks(*scenes, CONFIG):
            # Each task gives its patches row by row.
            found += list(patches.cut(task, CONFIG))
        height, width = min(one.height, two.height), min(one.width, two.width)
        corners = [
            (row, col) for row in range(0, height - 15, 16) for col in range(0, width - 15, 16)
        ]
        found = [outcome for outcome in found if not isinstance(outcome, patches.OutOfRange)]
        assert len(found) == len(corners)
        for (row, col), outcome in zip(corners, found, strict=True):
            if isinstance(outcome, patches.Rejection):
                assert outcome.reason in ("s1_no_data", "s2_no_data", "low_quality")
                continue
            decoded = records.decode(records.encode(outcome[1]))
            for sensor, values in expected.items():
                assert decoded.pixels(sensor) == pytest.approx(
                    values[row : row + 16, col : col + 16], abs=0.006, nan_ok=True
                )
                assert np.isfinite(records.band_moments(outcome[1].pixels(sensor))).all()


JUNK: list[Any] = [
    None,
    [],
    {},
    "",
    "x",
    "é\n",
    -1,
    0,
    1,
    300,
    10**20,
    1e308,
    float("nan"),
    float("inf"),
    True,
    [None],
    [[]],
    {"a": {}},
    ["VV"],
    "../..",
    "s1_data.tif",
    "EPSG:4326",
    "2023-07-01",
    "05.09",
    "L1C",
    "sentinel-2",
    [1, 2, 3, 4],
    "dB",
    "power",
    "reflectance",
    255,
]


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else [])
    )
    for key, child in children:
        yield from paths_of(child, (*path, key))


@FUZZ
@given(st.data(), st.sampled_from(["s1", "s2"]))
def test_a_spoilt_item_is_read_or_refused_in_one_line(data, sensor):
    with folder() as at:
        item = copy.deepcopy(a_scene(at, sensor))
        ids = np.random.default_rng(0).integers(0, 2, (1, 30, 40)).astype(np.uint8)
        write_geotiff(at / "label.tif", ids)
        item["assets"]["label"] = {
            "href": "label.tif",
            "terrapair:label_schema": "water",
            "terrapair:label_nodata": 255,
        }
        item["assets"]["cloud_mask"] = {"href": "label.tif", "terrapair:clear_values": [0]}
        item["properties"] |= {
            "sat:relative_orbit": 22,
            "eo:cloud_cover": 3,
            "terrapair:split": None,
        }
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from([path for path in paths_of(item) if path]))
            holder = item
            for key in path[:-1]:
                holder = holder[key]
            if data.draw(st.booleans()):
                holder[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
            else:
                del holder[path[-1]]
        with refused_in_one_line():
            read_all(item, at, sensor)


def read_all(item: dict[str, Any], at: Path, sensor: str) -> None:
    """Do with a scene what a build does."""
    scene = opened(json.loads(json.dumps(item)), at)
    if scene.label is not None:
        label_rasters.check_place(scene)
    found = inspection.inspect(scene, NAMES[sensor])
    target = grid(30, 40)
    got = readers.read_bands(found, NAMES[sensor], target)
    assert got.shape == (30, 40, len(NAMES[sensor]))
    if scene.label is not None:
        assert label_rasters.read(scene.label, "water", target).shape == (30, 40)
    if scene.cloud_mask:
        assert readers.read_cloud_mask(scene.cloud_mask, target, scene.clear_values).dtype == bool


@FUZZ
@given(st.data(), st.sampled_from(["s1", "s2"]), st.sampled_from(sorted(LAYOUTS)))
def test_a_spoilt_file_is_read_or_refused_in_one_line(data, sensor, layout):
    with folder() as at:
        case = data.draw(cases(sensor))
        item = write(case, at)
        path = data.draw(st.sampled_from(sorted(at.glob("*.tif"))))
        content = bytearray(path.read_bytes())
        how = data.draw(st.sampled_from(["cut", "flip", "garbage", "empty"]))
        if how == "cut":
            content = content[: data.draw(st.integers(1, len(content) - 1))]
        elif how == "flip":
            # The directory of a GeoTIFF lies at one of its ends.
            for _ in range(data.draw(st.integers(1, 8))):
                at_byte = data.draw(
                    st.one_of(
                        st.integers(0, min(600, len(content) - 1)),
                        st.integers(max(len(content) - 600, 0), len(content) - 1),
                        st.integers(0, len(content) - 1),
                    )
                )
                content[at_byte] = data.draw(st.integers(0, 255))
        elif how == "garbage":
            content = bytearray(np.random.default_rng(case.seed).bytes(400))
        else:
            content = bytearray()
        path.write_bytes(bytes(content))
        with refused_in_one_line():
            scene = inspection.inspect(opened(item, at), NAMES[sensor])
            got = readers.read_bands(scene, NAMES[sensor], plain_grid(case))
            assert got.shape == (case.height, case.width, len(NAMES[sensor]))
