"""Input hashes: they change with the content of every file behind a catalog, and only then."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import rasterio

from beam_jobs.build import input_files, input_hashes
from beam_jobs.errors import DataError


def write_catalog(folder: Path, *hrefs: str) -> Path:
    items = [
        {"id": f"scene {number}", "assets": {"data": {"href": href}}}
        for number, href in enumerate(hrefs)
    ]
    path = folder / "items.ndjson"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def age(*paths: Path) -> None:
    """Set the times of files back, as if they had not changed for a while."""
    for path in paths:
        os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.fixture
def settled(monkeypatch):
    """Believe the times of files that were written just now."""
    monkeypatch.setattr(input_hashes, "SETTLED_SECONDS", -10.0)


def with_record(catalog: Path, record: Path, believe: bool = True) -> str:
    with input_hashes.opened(record, believe) as opened:
        return input_hashes.content_sha256([catalog], opened)


def count_reads(monkeypatch) -> list[str]:
    read, names = input_hashes._read, []

    def counted(file: str):
        names.append(os.path.basename(file))
        return read(file)

    monkeypatch.setattr(input_hashes, "_read", counted)
    return names


def test_a_label_redrawn_in_the_same_number_of_bytes_is_another_input(tmp_path, settled):
    label = np.zeros((16, 16), "uint8")
    label[4:9, 2:5] = 1

    def draw(values) -> int:
        profile = {"driver": "GTiff", "height": 16, "width": 16, "count": 1, "dtype": "uint8"}
        with rasterio.open(tmp_path / "label.tif", "w", **profile) as file:
            file.write(values, 1)
        return (tmp_path / "label.tif").stat().st_size

    catalog, record = write_catalog(tmp_path, "label.tif"), tmp_path / "record"
    size, before = draw(label), with_record(catalog, tmp_path / "record")
    assert with_record(catalog, record) == before
    assert draw(label.T) == size
    assert with_record(catalog, record) != before
    assert draw(label) == size
    assert with_record(catalog, record) == before


def test_a_touched_file_is_read_once_and_is_the_same_input(tmp_path, settled, monkeypatch):
    names = [f"{number}.tif" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    catalog, record = write_catalog(tmp_path, *names), tmp_path / "record"
    before = with_record(catalog, record)
    read = count_reads(monkeypatch)
    assert with_record(catalog, record) == before
    assert read == []
    age(tmp_path / "3.tif")
    assert with_record(catalog, record) == before
    assert read == ["3.tif"]
    assert with_record(catalog, record) == before
    assert read == ["3.tif"]
    assert with_record(catalog, record, believe=False) == before
    assert sorted(read[1:]) == names


def test_an_archive_of_many_items_is_read_once(tmp_path, settled, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"members")
    catalog = write_catalog(tmp_path, *(f"a.tar#{number}" for number in range(7)))
    monkeypatch.setattr(input_hashes, "_ITEMS_AT_A_TIME", 2)
    read = count_reads(monkeypatch)
    before = input_hashes.content_sha256([catalog])
    assert read == ["a.tar"]
    assert with_record(catalog, tmp_path / "record", believe=False) == before
    assert read == ["a.tar"] * 2


def test_times_that_were_set_back_do_not_hide_a_change(tmp_path, settled):
    path = tmp_path / "a.tif"
    path.write_bytes(b"old")
    age(path)
    catalog, record = write_catalog(tmp_path, "a.tif"), tmp_path / "record"
    before = with_record(catalog, record)
    path.write_bytes(b"new")
    age(path)
    assert with_record(catalog, record) != before


def test_verify_finds_what_size_and_times_do_not_show(tmp_path, settled):
    path = tmp_path / "a.tif"
    path.write_bytes(b"old")
    catalog, record = write_catalog(tmp_path, "a.tif"), tmp_path / "record"
    before = with_record(catalog, record)
    path.write_bytes(b"new")
    found = path.stat()
    with sqlite3.connect(record) as database:
        times = (found.st_mtime_ns, found.st_ctime_ns)
        database.execute("UPDATE files SET mtime_ns = ?, ctime_ns = ?", times)
    database.close()
    assert with_record(catalog, record) == before
    after = with_record(catalog, record, believe=False)
    assert after != before
    # The record is mended too.
    assert with_record(catalog, record) == after


def test_times_of_a_file_that_was_written_just_now_are_not_believed(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(b"old")
    catalog, record = write_catalog(tmp_path, "a.tif"), tmp_path / "record"
    with_record(catalog, record)
    read = count_reads(monkeypatch)
    with_record(catalog, record)
    assert read == ["a.tif"]


def test_a_copy_with_other_times_elsewhere_is_the_same_input(tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    (one / "a.tif").write_bytes(b"pixels")
    (one / "b.tif").write_bytes(b"others")
    write_catalog(one, "a.tif", f"{one}/b.tif")
    # shutil.copyfile keeps neither times nor modes, as a fresh clone.
    shutil.copytree(one, tmp_path / "two", copy_function=shutil.copyfile)
    write_catalog(tmp_path / "two", "a.tif", f"file://{tmp_path}/two/b.tif")
    hashes = {
        input_hashes.content_sha256([tmp_path / name / "items.ndjson"]) for name in ("one", "two")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("href", "behind"),
    [
        ("a.tif", "a.tif"),
        ("a.tif", "a.tif.msk"),
        ("a.tif", "a.tif.aux.xml"),
        ("a.tif", "a.tfw"),
        ("a.tif", "a.TFW"),
        ("outline.shp", "outline.dbf"),
        ("outline.shp", "outline.DBF"),
        ("place/export-mixer.json", "place/export-00001.tfrecord.gz"),
        ("place/export-mixer.json#B4", "place/export-00000.tfrecord.gz"),
        ("place/lone.json", "place/lone.tfrecord.gz"),
        ("shards.tar#inner.zarr.zip/bands/0", "shards.tar"),
        ("mosaic.vrt", "place/north [1].tif"),
        ("netcdf:day.nc:VV", "day.nc"),
        ('NETCDF:"day.nc":VV', "day.nc"),
        ("store.zarr", "store.zarr/bands/0.0"),
        ("file://{folder}/with%20space.tif", "with space.tif"),
        ("a #1 [b]{c,d}*?%.tif", "a #1 [b]{c,d}*?%.tif"),
        ("eight_bit.png#at=EPSG:32633,0,10,0,0,-10,0", "eight_bit.png"),
    ],
)
def test_every_file_behind_an_href_is_part_of_the_input(tmp_path, href, behind):
    contents = {
        "a.tif": "pixels",
        "outline.shp": "polygons",
        "place/export-mixer.json": "{}",
        "place/lone.json": "{}",
        "place/export-00000.tfrecord.gz": "records",
        "mosaic.vrt": '<VRTDataset><VRTRasterBand><SimpleSource><SourceFilename relativeToVRT="1">'
        "place/north [1].tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        "unrelated.tif": "nothing",
    }
    for name, text in {behind: "first!", **contents}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    catalog = write_catalog(tmp_path, href.replace("{folder}", str(tmp_path)))
    before = input_hashes.content_sha256([catalog])
    (tmp_path / "unrelated.tif").write_text("other")
    assert input_hashes.content_sha256([catalog]) == before
    (tmp_path / behind).write_text("second")
    assert input_hashes.content_sha256([catalog]) != before


def test_a_path_that_no_file_can_have_is_a_missing_file(tmp_path):
    hrefs = (f"{'n' * 300}.tif", "none.tif", "", "wms://host/layer", "a\0b.tif", f"{tmp_path}:x:y")
    catalog = write_catalog(tmp_path, *hrefs)
    before = input_hashes.content_sha256([catalog])
    assert len(before) == 64
    (tmp_path / "none.tif").write_bytes(b"")
    assert input_hashes.content_sha256([catalog]) != before


def test_files_that_the_build_does_not_read_are_no_part_of_the_input(tmp_path):
    assets = {"data": {"href": "a.tif"}, "label": {"href": "label.tif", "schema": "water"}}
    catalog = tmp_path / "items.ndjson"

    def hashes() -> tuple[str, str]:
        catalog.write_text(json.dumps({"id": "a", "assets": assets}))
        return (
            input_hashes.content_sha256([catalog], unread=("label",)),
            input_hashes.content_sha256([catalog]),
        )

    (tmp_path / "a.tif").write_bytes(b"pixels")
    (tmp_path / "label.tif").write_bytes(b"drawn")
    first = hashes()
    (tmp_path / "label.tif").write_bytes(b"again")
    second = hashes()
    assert second[0] == first[0]
    assert second[1] != first[1]
    # What the item says of the label decides whether the scene is refused.
    assets["label"]["schema"] = ""
    assert hashes()[0] != second[0]
    (tmp_path / "a.tif").write_bytes(b"others")
    assert hashes()[0] != second[0]


def test_a_vrt_that_names_itself_ends(tmp_path):
    path = tmp_path / "a.vrt"
    path.write_text('<SourceFilename relativeToVRT="1">a.vrt</SourceFilename>')
    assert input_files.files_of(str(path)) == [str(path)]


def test_order_of_catalogs_does_not_matter_but_items_do(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text('{"id": "a", "assets": {"data": {"href": "a.tif"}}}\n')
    two.write_text('{"id": "b"}\n')
    hashes = [input_hashes.content_sha256([one, two])]
    assert input_hashes.content_sha256([two, one]) == hashes[0]
    (tmp_path / "a.tif").write_bytes(b"pixels")
    hashes.append(input_hashes.content_sha256([one, two]))
    two.write_text('{"id": "c"}\n')
    hashes.append(input_hashes.content_sha256([one, two]))
    assert len(set(hashes)) == 3
    with pytest.raises(DataError, match="cannot read the catalog"):
        input_hashes.content_sha256([tmp_path / "none.ndjson"])


@pytest.mark.parametrize("damage", [b"not a database", b""])
def test_a_damaged_record_is_begun_anew(tmp_path, settled, monkeypatch, damage):
    (tmp_path / "a.tif").write_bytes(b"pixels")
    catalog, record = write_catalog(tmp_path, "a.tif"), tmp_path / "record"
    record.write_bytes(damage)
    before = with_record(catalog, record)
    read = count_reads(monkeypatch)
    assert with_record(catalog, record) == before == input_hashes.content_sha256([catalog])
    assert read == ["a.tif"], "only the call without a record reads"


def test_a_record_that_cannot_be_written_is_done_without(tmp_path, settled):
    (tmp_path / "a.tif").write_bytes(b"pixels")
    catalog = write_catalog(tmp_path, "a.tif")
    assert with_record(catalog, tmp_path / "a.tif" / "record") == input_hashes.content_sha256(
        [catalog]
    )


def test_objects_of_a_store_are_told_apart_by_what_the_store_says(tmp_path, s3_folder):
    from beam_jobs.storage import files

    catalog = write_catalog(tmp_path, f"{s3_folder}/a [1].tif", f"{s3_folder}/none.tif")
    hashes = [input_hashes.content_sha256([catalog])]
    for content in (b"pixels", b"others"):
        files.write_bytes(f"{s3_folder}/a [1].tif", content)
        hashes.append(input_hashes.content_sha256([catalog]))
    assert len(set(hashes)) == 3
    files.write_bytes(f"{s3_folder}/a [1].tif", b"pixels")
    assert input_hashes.content_sha256([catalog]) == hashes[1]
