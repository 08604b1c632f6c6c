"""The manifest: what is written is what is read, and what is no manifest says so."""

import dataclasses
import json

import pytest

from beam_jobs.contracts import layout, locations, manifest, settings

CONFIG = {"patch": {"size_px": 96}, "list": [1, 2.5, None, "x"]}


def statistics(band: str, unit: str, mean: float) -> manifest.BandStatistics:
    return manifest.BandStatistics(
        band=band,
        unit=unit,
        num_pixels=4711,
        mean=mean,
        std=3.25,
        p02=mean - 5,
        p50=mean + 0.5,
        p98=mean + 6,
    )


@pytest.fixture
def document() -> manifest.Manifest:
    return manifest.Manifest(
        kind="labels",
        span=3,
        version=14,
        patch_size_px=96,
        pixel_size_m=20.0,
        s1_bands=("VH", "VV"),
        s2_bands=("B4", "B8A"),
        s2_processing_level="L1C",
        label_schema="water",
        num_examples={"train": 5, "eval": 2, "test": 1},
        num_pixels_per_class={"train": {"0": 10, "255": 3}},
        num_rejected={"cloudy": 7},
        shards={
            f"{split}/part-00000-of-00001.tfrecord.gz": manifest.ShardEntry(
                num_examples=count, num_bytes=9, sha256="ab"
            )
            for split, count in (("train", 5), ("eval", 2), ("test", 1))
        },
        s1_statistics=(statistics("VH", "dB", -19.5), statistics("VV", "dB", -11.25)),
        s2_statistics=(
            statistics("B4", "reflectance", 0.12),
            statistics("B8A", "reflectance", 0.31),
        ),
        config=CONFIG,
        config_sha256=settings.sha256(CONFIG),
        source_sha256="d" * 64,
        code_sha256="0" * 64,
        code_version="0.1.0",
    )


def test_json_round_trip_gives_an_equal_manifest(document):
    assert manifest.from_json(document.to_json()) == document


def test_a_manifest_on_an_object_store_is_read_as_it_was_written(document, s3_folder):
    version = layout.version_dir(s3_folder, document.span, document.version)
    with locations.staged(version / layout.MANIFEST_NAME) as file:
        file.write_text(document.to_json())
    assert manifest.read(version) == document
    assert manifest.read(str(version)).sha256 == document.sha256


def test_a_manifest_of_pairs_has_no_label_schema(document):
    pairs = dataclasses.replace(document, kind="pairs", label_schema=None, num_pixels_per_class={})
    assert manifest.from_json(pairs.to_json()) == pairs


def test_the_hash_depends_on_every_field(document):
    changed = {
        "span": 4,
        "code_version": "0.1.1",
        "num_rejected": {"cloudy": 8},
        "s1_bands": ("VV", "VH"),
    }
    hashes = {
        dataclasses.replace(document, **{name: value}).sha256 for name, value in changed.items()
    }
    assert len(hashes | {document.sha256}) == len(changed) + 1
    assert manifest.from_json(document.to_json()).sha256 == document.sha256


def test_reading_finds_the_manifest_of_a_version(document, tmp_path):
    (tmp_path / "manifest.json").write_text(document.to_json())
    assert manifest.read(tmp_path) == document


def test_a_directory_without_manifest_is_no_finished_version(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished version"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "manifest.colour: unknown key"),
        ({"span": "3"}, "manifest.span: expected int, got str '3'"),
        ({"num_examples": {"train": "many"}}, "manifest.num_examples.train: expected int"),
    ],
)
def test_a_manifest_that_breaks_the_format_is_refused_with_the_key(document, change, message):
    values = {**json.loads(document.to_json()), **change}
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.from_json(json.dumps(values))


def test_a_missing_key_is_named(document):
    values = json.loads(document.to_json())
    del values["s2_statistics"][1]["std"]
    with pytest.raises(
        manifest.ManifestError, match=r"manifest\.s2_statistics\[1\]\.std: required, but not given"
    ):
        manifest.from_json(json.dumps(values))


def test_a_manifest_that_is_cut_short_is_one_line_with_its_path(document, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(document.to_json()[:500])
    with pytest.raises(
        manifest.ManifestError, match="manifest: must be complete JSON, got 500 characters: "
    ) as caught:
        manifest.read(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"config": {"patch": {"size_px": 64}}},
            r"manifest\.config_sha256: must be the hash of config, [0-9a-f]{64}, got ",
        ),
        (
            {"s1_bands": ["VV", "VH"]},
            r"s1_statistics: must describe the bands \('VV', 'VH'\), got \('VH', 'VV'\)",
        ),
        (
            {"num_examples": {"train": 5, "eval": 1, "test": 1}},
            r"num_examples\.eval: must be the sum over its shards, 2, got 1",
        ),
        (
            {"num_examples": {"train": 5, "eval": 2}},
            r"num_examples\.test: must be the sum over its shards, 1, got 0",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(document, change, message):
    values = {**json.loads(document.to_json()), **change}
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.from_json(json.dumps(values))


@pytest.mark.parametrize("other", [1, 2, 3, 5, None])
def test_data_of_another_format_is_refused_in_one_line_before_any_key_is_looked_at(
    document, other, tmp_path
):
    path = tmp_path / "manifest.json"
    path.write_text(
        json.dumps({**json.loads(document.to_json()), "format_version": other, "colour": "red"})
    )
    with pytest.raises(manifest.FormatError) as caught:
        manifest.read(tmp_path)
    assert (
        str(caught.value)
        == f"{path}: data of format {other} cannot be read, only 4: build the shards again"
    )


def put_in(values, path, value):
    """Set one field of a JSON document; numbers in the path are positions in lists."""
    *parents, last = path
    for name in parents:
        values = values[name]
    values[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("s1_statistics", 0, "mean"), 999.0),
        (("s2_statistics", 1, "std"), 1e-6),
        (("num_pixels_per_class", "train", "255"), 4),
        (("shards", "test/part-00000-of-00001.tfrecord.gz", "sha256"), "cd"),
        (("code_version",), "0.0.9"),
        (("content_sha256",), "0" * 64),
    ],
)
def test_a_number_that_was_edited_by_hand_is_refused_with_file_and_cure(
    document, path, value, tmp_path
):
    values = json.loads(document.to_json())
    put_in(values, path, value)
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(manifest.ManifestError, match="a field was changed") as caught:
        manifest.read(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/manifest.json: manifest.content_sha256: must be the hash")
    assert line.endswith("or build the version again")
    assert "\n" not in line


def test_a_manifest_without_its_hash_is_refused(document):
    values = json.loads(document.to_json())
    del values["content_sha256"]
    with pytest.raises(manifest.ManifestError, match="content_sha256: required, but not given"):
        manifest.from_json(json.dumps(values))


def test_other_line_breaks_and_key_order_are_the_same_manifest(document):
    values = dict(reversed(json.loads(document.to_json()).items()))
    assert manifest.from_json(json.dumps(values, indent=None)) == document


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"3", b"{}", b"\xff\xfe{", b"[" * 9999])
def test_what_is_no_manifest_is_one_line_with_path_and_cure(content, tmp_path):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json: ")
    assert str(caught.value).endswith("again")
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_manifest_is_one_line(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(manifest.ManifestError, match="must be a JSON file, got a folder"):
        manifest.read(tmp_path)
