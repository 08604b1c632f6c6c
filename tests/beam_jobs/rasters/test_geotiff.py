"""GeoTIFFs as this project writes them."""

from pathlib import Path

import numpy as np
import rasterio

from beam_jobs.rasters.geotiff import write_geotiff


def test_geotiff_keeps_values_grid_names_and_no_data(tmp_path: Path) -> None:
    transform = rasterio.Affine(10.0, 0.0, 431_230.0, 0.0, -10.0, 5_812_340.0)
    data = np.random.default_rng(0).normal(-12, 5, (2, 70, 70)).astype(np.float32)
    data[:, :, :9] = np.nan
    write_geotiff(tmp_path / "a.tif", data, "EPSG:32755", transform, float("nan"), ("VV", "VH"))
    with rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), data)
        assert dataset.crs.to_epsg() == 32755
        assert dataset.bounds == (431_230.0, 5_811_640.0, 431_930.0, 5_812_340.0)
        assert dataset.descriptions == ("VV", "VH")
        assert (dataset.read_masks(1)[:, :9] == 0).all()
        assert (dataset.read_masks(1)[:, 9:] == 255).all()
        assert dataset.profile["tiled"]
        assert dataset.profile["compress"] == "deflate"
