"""Verbs on models: what they print, and how they end."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from beam_jobs.contracts import settings
from beam_jobs.storage import locks
from pipeline.config import load_run_config
from tests.data.networks import make_state_dict
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline, run_pipeline_here


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pretrain.num_step=3"], "pipeline/configs/smoke.yaml: pretrain.num_step: unknown key"),
        (
            ["tasks.0.label.schema=worldcover"],
            "tasks[0].label: schema 'worldcover' has gaps in its ids",
        ),
        (
            ["root=s3://bucket/x"],
            "local_root: needed when root is an object store, got root 's3://bucket/x'",
        ),
        (
            ["root=runs/a [v1]"],
            "root: must be a path without '['",
        ),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(overrides, message):
    options = [item for override in overrides for item in ("--set", override)]
    ended = run_pipeline("run", "--config", "pipeline/configs/smoke.yaml", *options)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_missing_catalog_is_one_line_and_leaves_no_version(tmp_path):
    catalog = tmp_path / "nowhere.ndjson"
    ended = run_pipeline(
        "run",
        "--config",
        "pipeline/configs/smoke.yaml",
        *("--set", f"root={tmp_path / 'root'}"),
        *("--set", f"catalogs=[{{layout: stac, path: {catalog}}}]"),
    )
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert str(catalog) in line
    assert list(tmp_path.glob("root/**/manifest.json")) == []


@pytest.mark.parametrize("verb", ["run", "claim-check", "cross-validate"])
def test_a_second_run_on_a_root_is_refused_in_one_line(tmp_path, verb):
    root = tmp_path / "root #1"
    config = "claim" if verb == "claim-check" else "smoke"
    options = ("--set", "pairs.split.folds=3") if verb == "cross-validate" else ()
    with locks.hold(root / ".lock", "the first"):
        ended = run_pipeline(verb, "--config", config, "--set", f"root={root}", *options)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {root}: another job is working there (process {os.getpid()} ")
    assert list(root.iterdir()) == []


def test_debug_shows_the_traceback():
    ended = run_pipeline("run", "--config", "nowhere.yaml", "--debug")
    assert ended.returncode == 2
    assert "Traceback" in ended.stderr
    assert "nowhere.yaml: cannot read the config: No such file or directory" in ended.stderr


def test_unknown_weights_are_one_line_with_the_known_ones(tmp_path):
    options = ("--file", "none.pth", "--weights", "resnet", "--output", str(tmp_path / "encoder"))
    ended = run_pipeline("import-weights", *options)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: weights must be a YAML file or one of decur-s1-resnet50, ")


def test_shipped_config_is_found_by_its_name_and_shown_with_all_defaults(tmp_path):
    shown = run_pipeline("config", "--config", "smoke", "--set", f"root={tmp_path}")
    assert shown.returncode == 0, shown.stderr
    values = yaml.safe_load(shown.stdout)
    assert values == settings.to_dict(
        load_run_config(REPOSITORY / "pipeline/configs/smoke.yaml", [f"root={tmp_path}"], {})
    )
    as_json = run_pipeline("config", "--config", "smoke", "--set", f"root={tmp_path}", "--json")
    assert json.loads(as_json.stdout) == values


@pytest.mark.e2e
def test_weights_become_a_published_encoder(tmp_path):
    state = make_state_dict.make_state("torch_resnet18", 13)
    file = make_state_dict.write_safetensors(tmp_path / "w.safetensors", state)
    options = (
        "--file",
        str(file),
        "--weights",
        "ssl4eo-s12-s2-moco-resnet18",
        "--output",
        str(tmp_path / "encoder"),
    )
    ended = run_pipeline_here("import-weights", *options, "--bands", "B2,B3,B4,B8")
    assert ended.returncode == 0, ended.stderr
    assert (
        "left out, so they count as their mean everywhere: B1, B5, B6, B7, B8A, B9, B10, B11, B12"
        in ended.stdout
    )
    assert (tmp_path / "encoder" / "saved_model.pb").exists()
    assert (tmp_path / "encoder" / "assets.extra" / "model_card.json").exists()
    again = run_pipeline_here("import-weights", *options)
    assert again.returncode == 2
    assert "exists already, and published models are never overwritten" in again.stderr


def test_tfx_says_nothing_of_a_failed_execution_beside_the_one_line_error():
    program = """
import logging
from beam_jobs.terminal.quiet import silence_absl
logging.basicConfig(level=logging.ERROR)
silence_absl()
from absl import logging as absl_logging
absl_logging.error("Execution 52 failed.")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
