"""No raster and no text leads GDAL to a server, and plain rasters stay as they were."""

import re

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.errors import CRSError
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from beam_jobs.contracts import object_store
from beam_jobs.errors import DataError
from beam_jobs.rasters import sources
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.sources import DRIVERS, check_local, parse_crs
from tests.data.servers import web_server

PIXELS = np.random.default_rng(0).integers(1, 60_000, (64, 64)).astype(np.uint16)
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY>"
    "<LowerRightX>20037508</LowerRightX><LowerRightY>-20037508</LowerRightY>"
    "<TileLevel>2</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow>"
    "<Projection>EPSG:3857</Projection><BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY>"
    "<BandsCount>3</BandsCount></GDAL_WMS>"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write(folder / "x.tif")
    with web_server.running(folder, tmp_path_factory.mktemp("log") / "requests.txt") as running:
        yield running


def write(path, driver="GTiff", **overviews):
    """Write PIXELS, with tags of the domain OVERVIEWS."""
    profile = {"driver": driver, "height": 64, "width": 64, "count": 1, "dtype": "uint16"}
    profile |= {"crs": "EPSG:32631", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(PIXELS, 1)
        if overviews:
            dataset.update_tags(ns="OVERVIEWS", **overviews)
    return path


def vrt(source, *, relative=0, before="", band="", root="", dataset="", srs="EPSG:32631"):
    """Return a VRT of one band that takes its pixels from `source`."""
    return (
        f'{before}<VRTDataset rasterXSize="64" rasterYSize="64"{root}><SRS>{srs}</SRS>{dataset}'
        "<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1"{band}>'
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        '<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/>'
        '<DstRect xOff="0" yOff="0" xSize="64" ySize="64"/></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


def text(path, content):
    path.write_text(content)
    return path


def overview_in_pam(folder, url):
    path = write(folder / "a.tif")
    text(
        folder / "a.tif.aux.xml",
        '<PAMDataset><Metadata domain="OVERVIEWS">'
        f'<MDI key="OVERVIEW_FILE">/vsicurl/{url}/x.tif</MDI></Metadata></PAMDataset>',
    )
    return path


def beside(folder, url, ending):
    path = write(folder / "a.tif")
    text(folder / f"a.tif{ending}", vrt(f"/vsicurl/{url}/x.tif"))
    return path


def nested(folder, url):
    text(folder / "inner.vrt", vrt(f"/vsicurl/{url}/x.tif"))
    return text(folder / "a.vrt", vrt("inner.vrt", relative=1))


def wms_in_vrt(folder, url):
    text(folder / "wms.xml", WMS.format(url=url))
    return text(folder / "a.vrt", vrt("wms.xml", relative=1))


def overview_in_source(folder, url):
    write(folder / "source.tif", OVERVIEW_FILE=f"/vsicurl/{url}/x.tif")
    return text(folder / "a.vrt", vrt("source.tif", relative=1))


def by_comment(folder, url):
    """GDAL ends the name at the comment; other parsers join what is around it."""
    write(folder / "a.xml.tif")
    text(folder / "a.xml", WMS.format(url=url))
    return text(folder / "a.vrt", vrt(f"{folder}/a.xml<!-- -->.tif"))


def crs_of_warp(folder, url):
    write(folder / "b.tif")
    with rasterio.open(folder / "b.tif") as dataset, WarpedVRT(dataset, crs="EPSG:32632") as warped:
        copy(warped, folder / "a.vrt", driver="VRT")
    found = (folder / "a.vrt").read_text()
    return text(
        folder / "a.vrt",
        re.sub("<SourceSRS>.*?<", f"<SourceSRS>{url}/crs<", found, flags=re.DOTALL),
    )


def read_all(path):
    with open_raster(path) as raster:
        raster.read([1])
        raster.read([1], out_shape=(1, 16, 16))
        raster.dataset_mask()


FORBIDDEN = {
    "GDAL's path": lambda folder, url: f"/vsicurl/{url}/x.tif",
    "GDAL's path with options": lambda folder, url: f"/vsicurl?url={url}/x.tif",
    "archive": lambda folder, url: f"/vsizip/vsicurl/{url}/x.zip/x.tif",
    "archive as URI": lambda folder, url: f"zip+{url}/x.zip!x.tif",
    "stream": lambda folder, url: f"/vsicurl_streaming/{url}/x.tif",
    "XML as path": lambda folder, url: vrt(f"/vsicurl/{url}/x.tif"),
    "prefix": lambda folder, url: f"DERIVED_SUBDATASET:AMPLITUDE:/vsicurl/{url}/x.tif",
    "WMS as path": lambda folder, url: f"WMS:{url}/?LAYERS=a&SRS=EPSG:4326&BBOX=-180,-90,180,90",
    "NetCDF of a server": lambda folder, url: f"netcdf:{url}/x.nc:VV",
    "NetCDF of GDAL's path": lambda folder, url: f'netcdf:"/vsicurl/{url}/x.nc":VV',
    "WMS file": lambda folder, url: text(folder / "a.tif", WMS.format(url=url)),
    "VRT": lambda folder, url: text(folder / "a.vrt", vrt(f"/vsicurl/{url}/x.tif")),
    "VRT by URL": lambda folder, url: text(folder / "a.vrt", vrt(f"{url}/x.tif")),
    "VRT named .tif": lambda folder, url: text(folder / "a.tif", vrt(f"/vsicurl/{url}/x.tif")),
    "VRT in a VRT": nested,
    "VRT as XML in a VRT": lambda folder, url: text(
        folder / "a.vrt", vrt(vrt(f"/vsicurl/{url}/x.tif").replace("<", "&lt;"))
    ),
    "WMS in a VRT": wms_in_vrt,
    "overview in a VRT's source": overview_in_source,
    "source as attribute": lambda folder, url: text(
        folder / "a.vrt",
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1">'
        f'<SimpleSource SourceFilename="/vsicurl/{url}/x.tif" SourceBand="1"/>'
        "</VRTRasterBand></VRTDataset>",
    ),
    "other case": lambda folder, url: text(
        folder / "a.vrt",
        vrt(f"/vsicurl/{url}/x.tif").replace("SourceFilename", "sourceFILENAME"),
    ),
    "overview of a VRT": lambda folder, url: text(
        folder / "a.vrt",
        vrt(f"{write(folder / 'b.tif')}").replace(
            "<SimpleSource>",
            f"<Overview><SourceFilename>/vsicurl/{url}/x.tif</SourceFilename></Overview>"
            "<SimpleSource>",
        ),
    ),
    "CRS of a warped VRT": crs_of_warp,
    "CRS of a VRT": lambda folder, url: text(
        folder / "a.vrt", vrt(write(folder / "b.tif"), srs=f"{url}/crs")
    ),
    "comment": by_comment,
    "entity": lambda folder, url: text(
        folder / "a.vrt",
        vrt("&x;", before=f'<!DOCTYPE a [<!ENTITY x "/vsicurl/{url}/x.tif">]>'),
    ),
    "Python": lambda folder, url: text(
        folder / "a.vrt",
        vrt("b.tif", relative=1, band=' subClass="VRTDerivedRasterBand"').replace(
            "<SimpleSource>",
            "<PixelFunctionLanguage>Python</PixelFunctionLanguage><SimpleSource>",
        ),
    ),
    "raw band": lambda folder, url: text(
        folder / "a.vrt", vrt("/etc/hostname", band=' subClass="VRTRawRasterBand"')
    ),
    "subclass twice": lambda folder, url: text(
        folder / "a.vrt",
        vrt(
            "/etc/hostname",
            band=' subClass="VRTRawRasterBand" SUBCLASS="VRTSourcedRasterBand"',
        ),
    ),
    "overview by tag": lambda folder, url: write(
        folder / "a.tif", OVERVIEW_FILE=f"/vsicurl/{url}/x.tif"
    ),
    "overview by .aux.xml": overview_in_pam,
    "VRT as .ovr": lambda folder, url: beside(folder, url, ".ovr"),
    "VRT as .msk": lambda folder, url: beside(folder, url, ".msk"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nothing_leads_to_a_server(name, server, tmp_path):
    path = str(FORBIDDEN[name](tmp_path, server.url))

    with pytest.raises(DataError) as refused:
        read_all(path)

    assert server.requests() == []
    assert "\n" not in str(refused.value)
    # A driver that is not on the list leaves a file that no driver knows.
    expected = "unreadable_raster" if name in ("WMS file", "WMS in a VRT") else "forbidden_source"
    assert refused.value.reason == expected


@pytest.mark.parametrize("form", ["{url}/a", "/vsicurl/{url}/a", "/vsicurl?url={url}/a"])
def test_no_crs_leads_to_a_server(form, server, tmp_path):
    crs = form.format(url=server.url)
    with pytest.raises(CRSError):
        parse_crs(crs)
    path = f"{write(tmp_path / 'a.tif')}#at={crs},0,0,10"
    with pytest.raises(DataError, match="a place must be"), open_raster(path):
        pass
    assert server.requests() == []


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:32631",
        "epsg:32631",
        "+proj=utm +zone=31 +datum=WGS84",
        "urn:ogc:def:crs:EPSG::32631",
        "http://www.opengis.net/def/crs/EPSG/0/32631",
        rasterio.crs.CRS.from_epsg(32631).to_wkt(),
    ],
)
def test_a_crs_in_any_other_form_is_read(crs):
    assert parse_crs(crs).to_epsg() == 32631


def test_a_web_server_is_read_when_a_url_is_asked_for(tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    write(served / "x.tif")
    with web_server.running(served, tmp_path / "requests.txt") as server:
        with open_raster(f"{server.url}/x.tif") as raster:
            assert (raster.read([1])[0] == PIXELS).all()
        assert set(server.requests()) == {"/x.tif"}
        write(served / "y.tif", OVERVIEW_FILE=f"/vsicurl/{server.url}/x.tif")
        before = len(server.requests())
        with pytest.raises(DataError, match="OVERVIEW_FILE"), open_raster(f"{server.url}/y.tif"):
            pass
        assert set(server.requests()[before:]) == {"/y.tif"}


@pytest.mark.parametrize("relative", [True, False])
def test_a_vrt_of_local_files_is_read(relative, tmp_path):
    write(tmp_path / "a.tif")
    inner = vrt("a.tif", relative=1) if relative else vrt(f"{tmp_path}/a.tif")
    text(tmp_path / "inner.vrt", f'<?xml version="1.0"?>\n{inner}')
    path = text(tmp_path / "outer.vrt", vrt("inner.vrt", relative=1))

    with open_raster(str(path)) as raster:
        assert (raster.read([1])[0] == PIXELS).all()
        assert raster.crs == "EPSG:32631"


def test_vrt_files_that_gdal_writes_are_read(tmp_path):
    """gdal_translate and gdalwarp write these."""
    write(tmp_path / "a.tif")
    copy(tmp_path / "a.tif", tmp_path / "plain.vrt", driver="VRT")
    with (
        rasterio.open(tmp_path / "a.tif") as dataset,
        WarpedVRT(dataset, crs="EPSG:32632") as warped,
    ):
        copy(warped, tmp_path / "warped.vrt", driver="VRT")
        expected = warped.read(1)

    with open_raster(str(tmp_path / "plain.vrt")) as raster:
        assert (raster.read([1])[0] == PIXELS).all()
    with open_raster(str(tmp_path / "warped.vrt")) as raster:
        assert (raster.read([1])[0] == expected).all()


def test_a_vrt_may_not_hold_itself(tmp_path):
    path = text(tmp_path / "a.vrt", vrt("a.vrt", relative=1))
    with pytest.raises(DataError, match="8 deep"), open_raster(str(path)):
        pass


@pytest.mark.parametrize(
    ("driver", "name"),
    [("HFA", "a.img"), ("ENVI", "a.dat"), ("PNG", "a.png"), ("JP2OpenJPEG", "a.jp2")],
)
def test_other_formats_are_read(driver, name, tmp_path):
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    copy(write(tmp_path / "source.tif"), tmp_path / name, driver=driver, **options)
    with sources.open_dataset(str(tmp_path / name)) as dataset:
        assert dataset.driver == driver
    with open_raster(str(tmp_path / name)) as raster:
        assert (raster.read([1])[0] == PIXELS).all()


def test_a_subdataset_of_a_local_file_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["VV"], file["VH"] = PIXELS, PIXELS + 1

    with open_raster(f"hdf5:{tmp_path}/a.h5://VH") as raster:
        assert (raster.read([1])[0] == PIXELS + 1).all()


def test_overviews_and_masks_beside_a_raster_are_read(tmp_path):
    path = write(tmp_path / "a.tif")
    mask = np.where(np.arange(64) < 20, 0, 255).astype(np.uint8)[None].repeat(64, axis=0)
    with (
        rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(path, "r+") as dataset,
    ):
        dataset.build_overviews([2])
        dataset.write_mask(mask)
    assert {found.suffix for found in tmp_path.iterdir()} == {".tif", ".ovr", ".msk"}

    with sources.open_dataset(str(path)) as dataset:
        assert (dataset.dataset_mask() == mask).all()
        assert dataset.overviews(1) == [2]


def test_a_local_path_is_checked_for_other_readers(tmp_path, monkeypatch):
    path = text(tmp_path / "labels of 10:30.gpkg", "")
    monkeypatch.chdir(tmp_path)
    assert check_local(path.name) == str(path)
    with pytest.raises(DataError) as missing:
        check_local(str(tmp_path / "other.gpkg"))
    assert missing.value.reason == "missing_file"


def test_drivers_are_known_to_gdal():
    with rasterio.Env() as env:
        assert set(DRIVERS) <= set(env.drivers())


def test_a_store_that_cannot_be_reached_is_told_at_once(monkeypatch):
    monkeypatch.setattr(object_store, "_reached", set())
    monkeypatch.setattr(object_store, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(object_store.UnreachableStoreError, match=r"127\.0\.0\.1:9 cannot be"):
        open_raster("s3://bucket/a.tif").__enter__()
