"""Hrefs: each form that catalogs write names the right file; others are refused."""

from pathlib import Path

import pytest

from beam_jobs.contracts import locations
from beam_jobs.errors import DataError
from beam_jobs.scenes import hrefs

FOLDER = Path("/data/exports")


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("a.tif", "/data/exports/a.tif"),
        ("./s2/a.tif", "/data/exports/s2/a.tif"),
        ("/x/a b.tif", "/x/a b.tif"),
        ("file:///x/a%20b%C3%A9.tif", "/x/a bé.tif"),
        ("file:///x/a b.tif", "/x/a b.tif"),
        ("FILE://localhost/x/a.tif", "/x/a.tif"),
        ("file:/x/a.tif", "/x/a.tif"),
        ("file:///x/100%25.tif", "/x/100%.tif"),
        ("file:///x/a%20b-mixer.json#VV", "/x/a b-mixer.json#VV"),
        ("a.png#at=EPSG:32631,0,0,10", "/data/exports/a.png#at=EPSG:32631,0,0,10"),
        ("2021-03-04T10:20:30.tif", "/data/exports/2021-03-04T10:20:30.tif"),
        ("s3://bucket/a%20b.tif", "s3://bucket/a%20b.tif"),
        ("gs://bucket/a.tif", "gs://bucket/a.tif"),
        ("netcdf:a.nc:VV", 'NETCDF:"/data/exports/a.nc":VV'),
        ('NETCDF:"/x/a b.nc":VV', 'NETCDF:"/x/a b.nc":VV'),
        ('NETCDF:"file:///x/a%20b.nc":VV', 'NETCDF:"/x/a b.nc":VV'),
        ('HDF5:"h/a.h5"://science/VV', 'HDF5:"/data/exports/h/a.h5"://science/VV'),
        ("GTIFF_DIR:2:a.tif", "GTIFF_DIR:2:/data/exports/a.tif"),
    ],
)
def test_where_an_href_leads(href, expected):
    assert hrefs.resolve(href, FOLDER, "x") == expected


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("file:///x/a%20b-mixer.json#VV", "/x/a b-mixer.json"),
        ("netcdf:a.nc:VV", "/data/exports/a.nc"),
        ("a#b.tif", "/data/exports/a#b.tif"),
    ],
)
def test_the_file_behind_a_path(href, expected):
    assert hrefs.file_of(hrefs.resolve(href, FOLDER, "x")) == expected


def test_hrefs_relative_to_a_catalog_on_a_store():
    folder = locations.parse("s3://bucket/exports/items.ndjson").parent
    assert hrefs.resolve("s2/a.tif", folder, "x") == "s3://bucket/exports/s2/a.tif"
    with pytest.raises(DataError, match=r"x: NETCDF opens local files only, got netcdf:a\.nc:VV"):
        hrefs.resolve("netcdf:a.nc:VV", folder, "x")


def test_a_relative_href_is_decoded_only_if_that_file_exists(tmp_path):
    (tmp_path / "a b.tif").touch()
    (tmp_path / "c%20d.tif").touch()
    (tmp_path / "c d.tif").touch()
    assert hrefs.resolve("a%20b.tif", tmp_path, "x") == str(tmp_path / "a b.tif")
    assert hrefs.resolve("c%20d.tif", tmp_path, "x") == str(tmp_path / "c%20d.tif")
    assert hrefs.resolve("e%20f.tif", tmp_path, "x") == str(tmp_path / "e%20f.tif")


@pytest.mark.parametrize(
    ("href", "message"),
    [
        ("https://example.com/a.tif", "must be local files or lie on s3, gs, got https"),
        ("ftp://example.com/a.tif", "must be local files"),
        ("zip+file:///x.zip!a.tif", "must be local files"),
        ("file://server/share/a.tif", "must name a file of this machine"),
        ("netcdf:https://example.com/a.nc:VV", "must be local files"),
        ("/vsicurl/https://example.com/a.tif", "virtual file systems of GDAL are not read"),
        ("file:///vsizip/x.zip/a.tif", "virtual file systems of GDAL are not read"),
        ('NETCDF:"/vsicurl/https://example.com/a.nc":VV', "virtual file systems"),
        ("netcdf:s3://bucket/a.nc:VV", "NETCDF opens local files only"),
    ],
)
def test_what_is_no_local_file_is_refused(href, message):
    with pytest.raises(DataError, match=message) as error:
        hrefs.resolve(href, FOLDER, "x")
    assert str(error.value).startswith("x: ")
    assert error.value.reason == "bad_item"
