"""Subdatasets: one variable of a NetCDF or HDF5 file reads like the GeoTIFF of its pixels."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.io import netcdf_file

from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.scenes import inspection, readers
from beam_jobs.scenes.scene import from_item
from tests.data.scenes.make_rasters import (
    UTM,
    XMIN,
    YMAX,
    backscatter,
    footprint,
    north_up,
    write_geotiff,
)


def write_netcdf(path: Path, planes: dict[str, np.ndarray], scale: float | None = None) -> Path:
    """Write planes [H, W] as variables of a CF grid in UTM, 10 m from the usual corner.

    With `scale` they are packed into whole numbers.
    """
    height, width = next(iter(planes.values())).shape
    with netcdf_file(path, "w") as file:
        file.Conventions = "CF-1.8"
        for name, count, first, step in (("y", height, YMAX, -10.0), ("x", width, XMIN, 10.0)):
            file.createDimension(name, count)
            axis = file.createVariable(name, "d", (name,))
            axis[:] = first + step * (np.arange(count) + 0.5)
            axis.standard_name, axis.units = f"projection_{name}_coordinate", "m"
        crs = file.createVariable("crs", "i", ())
        crs.grid_mapping_name = "transverse_mercator"
        crs.spatial_ref = CRS.from_string(UTM).to_wkt()
        for name, plane in planes.items():
            variable = file.createVariable(name, "f" if scale is None else "h", ("y", "x"))
            variable[:] = plane if scale is None else np.round(plane / scale)
            variable.grid_mapping = "crs"
            if scale is not None:
                variable.scale_factor = scale
    return path


def test_variables_of_a_netcdf_file_are_the_bands_of_a_scene(tmp_path):
    db = backscatter(40, 56, 3)
    plain = write_geotiff(tmp_path / "plain.tif", db, descriptions=("VV", "VH"))
    write_netcdf(tmp_path / "a scene.nc", {"sigma0_VV": db[0], "sigma0_VH": db[1]})
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "x",
        "geometry": footprint(plain),
        "properties": {"datetime": "2021-03-04T10:20:30Z", "constellation": "sentinel-1"},
        "links": [],
        "assets": {
            "vv": {"href": "netcdf:a scene.nc:sigma0_VV"},
            "vh": {"href": f'NETCDF:"{tmp_path}/a scene.nc":sigma0_VH'},
        },
    }
    scene = inspection.inspect(from_item(item, tmp_path / "items.ndjson"), ("VV", "VH"))
    assert scene.grid.transform == tuple(north_up())[:6]
    got = readers.read_bands(scene, ("VV", "VH"), scene.grid)
    assert np.array_equal(got, np.moveaxis(db, 0, -1))


def test_a_data_set_of_an_hdf5_file(tmp_path):
    pixels = backscatter(8, 12, 1)[0]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["science/VV"] = pixels
        file["science/VH"] = pixels - 7
    with open_raster(f'HDF5:"{tmp_path}/a.h5"://science/VV') as raster:
        window = Window(3, 2, 5, 4)
        assert np.array_equal(raster.read([1], window=window)[0], pixels[2:6, 3:8])


def test_what_is_not_there_is_named(tmp_path):
    file = write_netcdf(tmp_path / "a.nc", dict(zip(("VV", "VH"), backscatter(8, 8), strict=True)))
    for path, message, reason in (
        (f'NETCDF:"{file}":HH', "the file has no raster of that name", "missing_bands"),
        (f'NETCDF:"{file}x":VV', "No such file", "missing_file"),
        (str(file), "name one of its subdatasets in the item", "missing_bands"),
    ):
        with pytest.raises(DataError, match=message) as error, open_raster(path):
            pass
        assert str(file) in str(error.value)
        assert error.value.reason == reason


def test_packed_numbers_are_refused_with_their_cure(tmp_path):
    file = write_netcdf(tmp_path / "a.nc", {"VV": backscatter(8, 8)[0]}, scale=0.01)
    message = r"its numbers are packed \(scale 0.01, offset 0\): unpack them"
    with (
        pytest.raises(DataError, match=message) as error,
        open_raster(f'NETCDF:"{file}":VV'),
    ):
        pass
    assert error.value.reason == "unreadable_raster"
