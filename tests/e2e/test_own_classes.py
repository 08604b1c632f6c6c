"""A task of ten lines and a GeoPackage of polygons: a model with own classes is published."""

import json
import re

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import yaml
from rasterio.features import shapes

from beam_jobs import config as c
from beam_jobs.contracts import manifest
from beam_jobs.simulation.simulate import simulate
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline_here

CLASS_OF = {0: "water", 4: "crops"}
"""Class of the simulator's ids; all others are land."""
IDS = {"land": 0, "water": 1, "crops": 2}


def the_ten_lines() -> str:
    """Return the task that docs/data.md shows."""
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/data.md").read_text(), re.S)
    (task,) = [block for block in blocks if block.startswith("name: shore")]
    assert len(task.strip().splitlines()) == 10
    return task


def draw_polygons(catalog, path) -> None:
    """Write the simulator's truth of every Sentinel-2 scene as polygons with class and day."""
    geometries, classes, days, crs = [], [], [], set()
    for line in catalog.read_text().splitlines():
        item = json.loads(line)
        if not item["id"].startswith("S2"):
            continue
        with rasterio.open(catalog.parent / item["assets"]["label"]["href"]) as dataset:
            ids, transform = dataset.read(1), dataset.transform
            crs.add(dataset.crs)
        for name, label_id in IDS.items():
            mask = np.vectorize(lambda i: CLASS_OF.get(int(i), "land"))(ids) == name
            for shape, _ in shapes(ids * 0, mask=mask & (ids != 255), transform=transform):
                geometries.append((dataset.crs, shapely.geometry.shape(shape)))
                classes.append(name if label_id else str(label_id))
                days.append(item["properties"]["datetime"][:10])
    # Places lie in several zones; the file has degrees.
    moved = [
        shapely.geometry.shape(rasterio.warp.transform_geom(zone, "EPSG:4326", one))
        for zone, one in geometries
    ]
    pyogrio.raw.write(
        path,
        np.array(shapely.to_wkb(moved), object),
        [np.array(classes, object), np.array(days, "datetime64[D]")],
        ["class", "day"],
        geometry_type="Polygon",
        crs="EPSG:4326",
        driver="GPKG",
    )


@pytest.mark.e2e
@pytest.mark.usefixtures("eager_steps")
def test_ten_lines_and_polygons_train_and_publish_a_model_with_own_classes(tmp_path):
    smoke = yaml.safe_load((REPOSITORY / "pipeline/configs/smoke.yaml").read_text())
    settings = c.SimulateConfig(**smoke["catalogs"][0]["simulate"])
    catalog = simulate(settings, tmp_path / "scenes")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "shore.yaml").write_text(the_ten_lines())
    draw_polygons(catalog, tmp_path / "tasks" / "shore.gpkg")
    run = {
        **smoke,
        "name": "terrapair-shore",
        "root": str(tmp_path / "run"),
        "catalogs": [{"layout": "stac", "path": "scenes/items.ndjson"}],
        "probe": {**smoke["probe"], "task": "shore"},
        "tasks": [
            {
                "use": "shore",
                "min_mean_iou": 0.001,
                "segment": {"num_steps": 2, "global_batch_size": 8},
            }
        ],
    }
    (tmp_path / "shore-run.yaml").write_text(yaml.safe_dump(run))
    finished = run_pipeline_here("run", "--config", str(tmp_path / "shore-run.yaml"))
    assert finished.returncode == 0, finished.stdout + finished.stderr

    (card_path,) = (tmp_path / "run" / "serving" / "shore").glob("*/assets.extra/model_card.json")
    card = json.loads(card_path.read_text())
    assert (card["label_schema"], card["class_names"]) == ("shore", ["land", "water", "crops"])
    assert card["class_colors"] == ["#d9c9a3", "#1f5fbf", "#e49635"]
    found = manifest.read(tmp_path / "run/data/shore/span-1/version-1")
    assert [(one.id, one.name) for one in found.label_classes] == [
        (0, "land"),
        (1, "water"),
        (2, "crops"),
    ]
    assert found.config["label"]["vector"]["sha256"]
    for split in ("train", "test"):
        counts = found.num_pixels_per_class[split]
        assert set(counts) == {"0", "1", "2"}
        assert min(counts.values()) > 1000
