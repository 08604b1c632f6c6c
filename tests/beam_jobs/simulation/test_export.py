"""GeoTIFFs and text files of the export."""

from pathlib import Path

import numpy as np
import rasterio

from beam_jobs.simulation.export import write_geotiff, write_text_atomically
from beam_jobs.simulation.places import make_place


def test_geotiff_keeps_values_grid_names_and_no_data(tmp_path: Path) -> None:
    place = make_place(5, 0, 70)
    data = np.random.default_rng(0).normal(-12, 5, (2, 70, 70)).astype(np.float32)
    data[:, :, :9] = np.nan
    write_geotiff(tmp_path / "a.tif", data, place, float("nan"), ("VV", "VH"))
    with rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), data)
        assert dataset.crs.to_epsg() == place.epsg == 32755
        assert dataset.bounds == (place.xmin, place.ymax - 700, place.xmin + 700, place.ymax)
        assert dataset.descriptions == ("VV", "VH")
        assert (dataset.read_masks(1)[:, :9] == 0).all()
        assert (dataset.read_masks(1)[:, 9:] == 255).all()
        assert dataset.profile["tiled"]
        assert dataset.profile["compress"] == "deflate"


def test_text_is_replaced_at_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "items.ndjson"
    write_text_atomically(path, "old\n")
    write_text_atomically(path, "new\n")
    assert path.read_text() == "new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["items.ndjson"]
