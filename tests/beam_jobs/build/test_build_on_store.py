"""Builds whose scenes, spool and output lie on a loopback S3 server."""

import dataclasses
import json
from pathlib import Path

import pytest

from beam_jobs import config as c
from beam_jobs.build import patches
from beam_jobs.build.driver import Execution, build_pairs
from beam_jobs.contracts import layout, manifest, set_aside, windows
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.contracts.windows import WindowConfig
from beam_jobs.storage import files


@pytest.fixture(scope="module")
def built_here(simulated, tmp_path_factory) -> manifest.Manifest:
    return manifest.read(build_pairs(config(), [simulated], tmp_path_factory.mktemp("pairs")))


def config() -> c.BuildConfig:
    return c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.05, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
        shards=c.ShardConfig(num_examples_per_shard=20),
    )


@pytest.fixture
def uploaded(simulated, s3_folder) -> str:
    """The catalog and its scenes on the store."""
    for path in simulated.parent.rglob("*"):
        if path.is_file():
            files.write_bytes(
                f"{s3_folder}/scenes/{path.relative_to(simulated.parent)}", path.read_bytes()
            )
    return f"{s3_folder}/scenes/{simulated.name}"


@pytest.mark.e2e
def test_shards_built_from_and_on_a_store_are_those_built_here(built_here, uploaded, s3_folder):
    version = build_pairs(config(), [uploaded], f"{s3_folder}/pairs")
    assert str(version) == f"{s3_folder}/pairs/span-1/version-1"
    found = manifest.read(version)
    assert found.shards == built_here.shards
    # The content of objects is known by the store's own checksums, that of files by
    # their SHA-256.
    assert found.source_sha256 != built_here.source_sha256
    same = {"code_sha256": "", "source_sha256": ""}
    assert dataclasses.replace(found, **same) == dataclasses.replace(built_here, **same)
    rejected = files.read_bytes(f"{version}/rejected/patches.ndjson").decode().splitlines()
    assert len(rejected) + sum(found.num_examples.values()) == 6 * 25
    assert all(json.loads(row)["reason"] for row in rejected)
    tops = {
        path.removeprefix(f"{version}/").split("/")[0]
        for path in files.list_files(f"{s3_folder}/pairs")
    }
    card = {f"data_card{ending}" for ending in (".json", ".md", "_map.png", "_histograms.png")}
    assert tops == {*layout.SPLITS, *card, "manifest.json", "rejected", "scenes.txt"}
    assert build_pairs(config(), [uploaded], f"{s3_folder}/pairs") == version


@pytest.mark.e2e
def test_months_on_a_store_are_spans_of_a_window_that_leaves_a_refused_one_out(
    simulated, s3_folder, tmp_path
):
    # A span of a window may lack a split.
    execution = Execution(needed_splits=())
    catalog = tmp_path / "months.ndjson"
    lines = sorted(simulated.read_text().splitlines(), key=lambda line: '"place-0001"' in line)
    root = str(simulated.parent)
    for number, new in ((1, 8), (2, 4)):
        known = 0 if number == 1 else 8
        items = [json.loads(line) for line in lines[: known + new]]
        for asset in (asset for item in items for asset in item["assets"].values()):
            asset["href"] = f"{root}/{asset['href']}"
        catalog.write_text("".join(f"{json.dumps(item)}\n" for item in items))
        version = build_pairs(config(), [catalog], s3_folder, span="new", execution=execution)
        assert str(version) == f"{s3_folder}/span-{number}/version-1"
        scenes = files.read_bytes(f"{version}/{layout.SCENES_NAME}").decode().splitlines()
        assert len(scenes) == new
    assert [one.span for one in windows.resolve(s3_folder, WindowConfig())] == [1, 2]
    set_aside.add(s3_folder, SetAside(span=2, version=1, at="2026-02-01", reasons=("x",)))
    assert [one.span for one in windows.resolve(s3_folder, WindowConfig())] == [1]
    assert set_aside.of_same_scenes(version, s3_folder) == [(2, 1)]
    set_aside.put_back(s3_folder, [2], "2026-03-01")
    assert [one.span for one in windows.resolve(s3_folder, WindowConfig())] == [1, 2]


@pytest.mark.e2e
@pytest.mark.parametrize("spool", ["beside the output", "local"])
def test_a_job_killed_while_it_moves_its_version_leaves_none_and_resumes(
    simulated, built_here, s3_folder, tmp_path, monkeypatch, spool
):
    spool_root = None if spool == "beside the output" else tmp_path / "spool"
    move = files.move_files

    def killed(source: str, target: str, names: list[str]) -> None:
        move(source, target, names[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "move_files", killed)
    with pytest.raises(KeyboardInterrupt):
        build_pairs(config(), [simulated], s3_folder, execution=Execution(spool_root=spool_root))
    monkeypatch.setattr(files, "move_files", move)
    assert len(files.list_files(str(layout.version_dir(s3_folder, 1, 1)))) == 2
    assert layout.list_versions(s3_folder) == []
    cut_again = []
    monkeypatch.setattr(
        patches, "cut", lambda task, config: cut_again.append(task.task_id) or iter(())
    )
    version = build_pairs(
        config(), [simulated], s3_folder, execution=Execution(spool_root=spool_root)
    )
    assert cut_again == []
    assert manifest.read(version).shards == built_here.shards
    assert files.list_files(str(layout.building_dir(s3_folder, 1, 1))) == []
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]


@pytest.mark.e2e
def test_a_missing_scene_on_a_store_is_named(uploaded, s3_folder):
    gone = next(
        path
        for path in files.list_files(f"{s3_folder}/scenes")
        if "/S1" in path and path.endswith(".tif")
    )
    files.move_files(gone.rpartition("/")[0], f"{s3_folder}/elsewhere", [gone.rpartition("/")[2]])
    version = build_pairs(config(), [uploaded], f"{s3_folder}/pairs")
    rows = [
        json.loads(row)
        for row in files.read_bytes(f"{version}/rejected/scenes.ndjson").decode().splitlines()
    ]
    (row,) = [row for row in rows if row["is_error"]]
    assert gone in row["detail"]
    assert row["reason"] in ("missing_file", "unreadable_raster")
