"""Hrefs of items: only plain paths, file URLs and listed schemes become paths."""

from pathlib import Path

import pytest

from beam_jobs.contracts import locations
from beam_jobs.errors import DataError
from beam_jobs.scenes import hrefs

FOLDER = Path("/data/exports")


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("s2/x.tif", "/data/exports/s2/x.tif"),
        ("../s2/x y.tif", "/data/exports/../s2/x y.tif"),
        ("/other/x.tif", "/other/x.tif"),
        ("x 10:30.tif", "/data/exports/x 10:30.tif"),
        ("x.mixer.json#label", "/data/exports/x.mixer.json#label"),
        ("file:///d/x.tif", "/d/x.tif"),
        ("FILE:///d/x.tif", "/d/x.tif"),
        ("file:/d/x.tif", "/d/x.tif"),
        ("file://localhost/d/x.tif", "/d/x.tif"),
        ("file:///d/a%20b%5B1%5D%25.tif", "/d/a b[1]%.tif"),
        ("file:///d/a%20b%C3%A9-mixer.json#VV", "/d/a bé-mixer.json#VV"),
        ('netcdf:"file:///d/a%20b.nc":VV', 'netcdf:"/d/a b.nc":VV'),
        ("file:///d/x.png#at=EPSG:32631,0,0,10", "/d/x.png#at=EPSG:32631,0,0,10"),
        ("s3://bucket/x.tif", "s3://bucket/x.tif"),
        ("GS://bucket/x.tif", "gs://bucket/x.tif"),
        ("https://host/x.tif", "https://host/x.tif"),
        ("netcdf:s1/x.nc:VV", 'netcdf:"/data/exports/s1/x.nc":VV'),
        ('HDF5:"/d/x.h5"://group/VV', 'hdf5:"/d/x.h5"://group/VV'),
    ],
)
def test_an_href_becomes_a_path(href, expected):
    assert hrefs.resolve(href, FOLDER, "here") == expected


@pytest.mark.parametrize("scheme", ["s3", "GS", "HTTPS"])
def test_an_href_on_a_store_or_server_is_not_local_however_it_is_spelt(scheme):
    assert not hrefs.is_local(f"{scheme}://host/x.tif")
    assert hrefs.is_local(f"{scheme}/x.tif")


def test_a_relative_href_is_decoded_only_if_that_file_exists(tmp_path):
    for name in ("a b.tif", "c%20d.tif", "c d.tif", "e f.json"):
        (tmp_path / name).touch()
    for href, expected in (
        ("a%20b.tif", "a b.tif"),
        ("c%20d.tif", "c%20d.tif"),
        ("e%20f.json#VV", "e f.json#VV"),
        ("g%20h.tif", "g%20h.tif"),
    ):
        assert hrefs.resolve(href, tmp_path, "here") == str(tmp_path / expected)


@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/http://host/x.tif",
        "//vsicurl/http://host/x.tif",
        "/VSIS3/bucket/x.tif",
        "/vsizip/x.zip/x.tif",
        "/vsicurl?url=http://host/x.tif",
        "file:///vsicurl/http://host/x.tif",
        "file:///%76sicurl/http://host/x.tif",
        "file://host/x.tif",
        "file://x.tif",
        "file:x.tif",
        "zip+file:///d/x.zip!x.tif",
        "zip+https://host/x.zip!x.tif",
        "vrt:///d/x.tif?bands=1",
        "WMS:http://host/?LAYERS=a",
        "ftp://host/x.tif",
        "<VRTDataset rasterXSize='1'/>",
        " <GDAL_WMS/>",
        '{"type": "Zarr"}',
        "a.tif\n/vsicurl/http://host/x.tif",
        "netcdf:/vsicurl/http://host/x.nc:VV",
        "netcdf:ftp://host/x.nc:VV",
    ],
)
@pytest.mark.parametrize("folder", [FOLDER, locations.parse("s3://bucket/exports")])
def test_any_other_href_is_refused_in_one_line(href, folder):
    with pytest.raises(
        DataError, match="assets must be local files or lie on s3, gs, got"
    ) as error:
        hrefs.resolve(href, folder, "here")
    assert error.value.reason == "forbidden_source"
    assert "\n" not in str(error.value)


def test_web_servers_need_a_setting():
    hrefs.check_web({"/d/x.tif", "s3://bucket/http://x.tif"}, "here")
    with pytest.raises(DataError, match="set allow_http") as error:
        hrefs.check_web({"/d/x.tif", "https://host/x.tif"}, "here")
    assert error.value.reason == "forbidden_source"
