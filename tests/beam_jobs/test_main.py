"""Verbs on scenes and shards: what they print, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs.__main__ import run
from beam_jobs.contracts import manifest
from tests.data.runs.repository import REPOSITORY
from tests.data.scenes import make_stac_items
from tests.data.scenes.make_datasets import make_sen12ms


@pytest.mark.e2e
def test_build_pairs_prints_the_version_it_built(simulated, tmp_path, capsys):
    overrides = [
        "patch.size_px=32",
        "quality.min_valid_fraction=0.05",
        "quality.max_cloud_fraction=1.0",
    ]
    overrides += ["split.block_size_km=0.8", "split.eval_fraction=0.3", "split.test_fraction=0.3"]
    arguments = ["build-pairs", "--catalog", str(simulated), "--output", str(tmp_path)]
    arguments += [part for override in overrides for part in ("--set", override)]
    assert run(arguments) == 0
    version = Path(capsys.readouterr().out.strip())
    found = manifest.read(version)
    assert found.patch_size_px == 32
    # Nothing has changed, so the same version is the result again; as JSON this time.
    assert run([*arguments, "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    document = json.loads(shown.out)
    assert document["version"] == str(version)
    assert document["num_examples"] == found.num_examples
    assert document["manifest_sha256"] == found.sha256


def test_unknown_setting_is_one_line_with_its_path(tmp_path, capsys):
    arguments = [
        "build-pairs",
        "--catalog",
        "x",
        "--output",
        str(tmp_path),
        "--set",
        "patch.size=3",
    ]
    assert run(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: patch.size: unknown key; known here: ")
    assert "\n" not in error


def test_build_labels_without_a_label_setting_says_so(simulated, tmp_path, capsys):
    assert run(["build-labels", "--catalog", str(simulated), "--output", str(tmp_path)]) == 2
    assert "build-labels needs the setting 'label'" in capsys.readouterr().err


def test_missing_option_is_a_usage_error(capsys):
    assert run(["build-pairs"]) == 2
    assert "--catalog" in capsys.readouterr().err


def test_process_exit_code_and_error_of_a_missing_catalog(tmp_path):
    command = [sys.executable, "-m", "beam_jobs", "build-pairs"]
    command += ["--catalog", "nowhere.ndjson", "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr == "error: nowhere.ndjson: cannot read the catalog: no such file\n"


def test_a_folder_of_refused_scenes_ends_both_verbs_with_the_reason(tmp_path, capsys):
    item = make_stac_items.radar_grd(tmp_path / "grd")
    (tmp_path / "grd" / "item.json").write_text(json.dumps(item))
    output = tmp_path / "items.ndjson"
    cases = (
        ["catalog", str(tmp_path / "grd"), "--layout", "stac_items", "--output", str(output)],
        ["build-pairs", "--catalog", str(output), "--output", str(tmp_path / "out")],
        ["build-pairs", "--catalog", str(tmp_path / "grd"), "--output", str(tmp_path / "out")],
    )
    for arguments in cases:
        assert run(arguments) == 3
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "every scene is refused (not_geocoded 1); the first: " in line
        assert f"{tmp_path}/grd/item.json: item {item['id']}: is Sentinel-1 GRD" in line
    # The catalog is written nevertheless, so that its scenes can be looked at.
    assert json.loads(output.read_text())["id"] == item["id"]


def test_catalog_takes_split_lists_where_the_data_set_has_them(tmp_path, capsys):
    make_sen12ms(tmp_path / "data")
    (tmp_path / "test.txt").write_text("ROIs1158_spring/s1_106\n")
    arguments = ["catalog", str(tmp_path / "data"), "--output", str(tmp_path / "items.ndjson")]
    arguments += ["--split-list", str(tmp_path / "test.txt"), "--layout"]
    assert run([*arguments, "ssl4eo_v11"]) == 2
    assert capsys.readouterr().err == (
        "error: split_lists go with layouts sen12ms and dfc2020 only, got layout 'ssl4eo_v11'\n"
    )
    assert run([*arguments, "sen12ms"]) == 0
    items = [json.loads(line) for line in (tmp_path / "items.ndjson").read_text().splitlines()]
    held_out = {item["id"] for item in items if item["properties"]["terrapair:split"] == "test"}
    assert held_out == {
        f"ROIs1158_spring_{sensor}_106_p{patch}" for sensor in ("s1", "s2") for patch in (30, 31)
    }
