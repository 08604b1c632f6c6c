"""The complete items of docs/data.md: each is read as the page says, over small rasters."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio

from beam_jobs.contracts import labels
from beam_jobs.scenes import inspection, label_rasters, readers
from beam_jobs.scenes.band_names import band_of
from beam_jobs.scenes.scene import from_item
from tests.data.runs.repository import REPOSITORY
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX, backscatter, digital_numbers, north_up

PAGE = (REPOSITORY / "docs" / "data.md").read_text()
ITEMS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)]
SIZE = 64


def write(folder: Path, href: str, pixels: np.ndarray, pixel_size: float = 10.0) -> None:
    """Write pixels [C, H, W] where an href says; a PNG has no place."""
    path = folder / href.partition("#")[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_png = path.suffix == ".png"
    place = {} if is_png else {"crs": UTM, "transform": north_up(pixel_size, XMIN, YMAX)}
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="PNG" if is_png else "GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        **place,
    ) as dataset:
        dataset.write(pixels)


def stored_and_physical(
    sensor: str, physical: np.ndarray, asset: dict[str, Any], collection: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the file of an asset holds, and the dB or reflectance that it means."""
    unit = asset.get("terrapair:unit")
    if unit is None and collection == "sentinel-1-rtc":
        return (10.0 ** (physical / 10.0)).astype(np.float32), physical
    if unit is None:
        return physical, physical if sensor == "s1" else physical / 10_000
    scale, offset = asset["raster:scale"], asset.get("raster:offset", 0.0)
    values = physical if sensor == "s1" else physical / 10_000
    stored = np.clip(np.rint((values - offset) / scale), 1, 255).astype(np.uint8)
    return stored, stored * scale + offset


def write_bands(folder: Path, item: dict[str, Any], sensor: str) -> dict[str, np.ndarray]:
    """Write the bands of an item; return the physical values of each, by band."""
    expected: dict[str, np.ndarray] = {}
    collection = item.get("collection")
    for number, (key, asset) in enumerate(item["assets"].items()):
        names = [band["name"] for band in asset.get("bands", [])] if key == "data" else [key]
        bands = [band_of(sensor, name) for name in names]
        if None in bands:
            continue
        count, step = len(bands), asset.get("gsd", 10) // 10
        if sensor == "s1":
            physical = backscatter(SIZE, SIZE, number)[[int(band == "VH") for band in bands]]
        else:
            physical = digital_numbers(count, SIZE // step, SIZE // step, number)
        stored, meant = stored_and_physical(sensor, physical, asset, collection)
        write(folder, asset["href"], stored, 10.0 * step)
        expected |= dict(zip(bands, meant, strict=True))
    return expected


def test_the_page_has_items_of_both_sensors_in_three_forms_and_three_labels():
    kinds = [
        (
            band_of("s2", *item["assets"]) is not None,
            "label" in item["assets"],
            next(iter(item["assets"].values()))["href"].partition("#")[0].rpartition(".")[2],
        )
        for item in ITEMS
    ]
    assert len(kinds) == 6
    assert {form for *_, form in kinds} == {"tif", "tiff", "png"}
    assert sum(has_label for _, has_label, _ in kinds) == 3


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_an_item_of_the_page_is_read_as_it_says(item, tmp_path):
    sensor = "s1" if "1" in item["properties"]["constellation"] else "s2"
    expected = write_bands(tmp_path, item, sensor)
    rng = np.random.default_rng(9)
    assets = item["assets"]
    if "cloud_mask" in assets:
        clouds = rng.integers(0, 2, (1, SIZE, SIZE)).astype(np.uint8)
        write(tmp_path, assets["cloud_mask"]["href"], clouds)
    if "scl" in assets:
        clouds = rng.choice([4, 5, 6, 8, 9], (1, SIZE // 2, SIZE // 2)).astype(np.uint8)
        write(tmp_path, assets["scl"]["href"], clouds, 20.0)
    assert pystac.Item.from_dict(item).id == item["id"]

    scene = from_item(item, tmp_path / "items.ndjson")
    assert set(scene.bands) == set(expected)
    for name, plane in expected.items():
        alone = inspection.inspect(scene, (name,))
        got = readers.read_bands(alone, (name,), alone.grid)[..., 0]
        np.testing.assert_allclose(got, plane, rtol=0, atol=1e-4, err_msg=name)
    grid = inspection.inspect(scene, tuple(scene.bands)).grid
    if scene.cloud_mask is not None:
        mask = readers.read_cloud_mask(
            scene.cloud_mask, grid, scene.clear_values, scene.cloud_mask_index
        )
        times = SIZE // clouds.shape[1]
        assert np.array_equal(mask, np.isin(clouds[0], (1, 8, 9)).repeat(times, 0).repeat(times, 1))
    if "label" in assets:
        ids = list(labels.get_schema(scene.label.schema).classes)
        stored = rng.choice([*ids, labels.IGNORE], (1, SIZE, SIZE)).astype(np.uint8)
        write(tmp_path, assets["label"]["href"], stored)
        got = label_rasters.read(scene.label, scene.label.schema, grid)
        assert np.array_equal(got, stored[0])


def test_every_field_that_the_page_names_is_read():
    sources = "".join(path.read_text() for path in (REPOSITORY / "beam_jobs").rglob("*.py"))
    named = set(re.findall(r"terrapair:\w+", PAGE))
    assert len(named) > 10
    assert {field for field in named if f'"{field}"' not in sources} == set()
