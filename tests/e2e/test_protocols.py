"""Run the published protocols on miniatures of their data sets.

One command runs each data set. The tests check the patches of each split and the names
of the scores.
"""

import json
from pathlib import Path

import pytest
import yaml

from beam_jobs.contracts import layout
from beam_jobs.contracts.labels import get_schema
from components.scorer import DOCUMENT_FILE
from pipeline.config import load_run_config
from pipeline.report.run_record import read_last_run
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline_here
from tests.data.scenes.make_datasets import (
    COPERNICUS_BENCH_LISTS,
    make_copernicus_bench_dfc2020,
    make_sen1floods11,
    read_split,
)

CONFIGS = REPOSITORY / "pipeline/configs"
SMALL = {
    "pretrain.encoder": "{backbone: small, embedding_dim: 16}",
    "pretrain.num_steps": "2",
    "pretrain.global_batch_size": "4",
    "pretrain.num_eval_batches": "1",
    "pretrain.precision": "float32",
    # Two steps teach the encoder nothing, so accept any.
    "probe.min_spread": "0.0",
    "probe.min_effective_rank": "0.0",
}
SMALL_TASK = {"num_steps": "2", "global_batch_size": "4", "precision": "float32"}


# The rasters of Copernicus-Bench are not georeferenced.
pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.usefixtures("eager_steps"),
]


def run(path, data, root, size_px, num_tasks):
    """Run a config with a small model and few steps, and return the config."""
    shrunk = {**SMALL, "root": str(root), "pairs.patch.size_px": str(size_px)}
    for task in range(num_tasks):
        shrunk |= {f"tasks.{task}.segment.{key}": value for key, value in SMALL_TASK.items()}
        # Two steps teach the task nothing either.
        shrunk[f"tasks.{task}.min_mean_iou"] = "0.0001"
    overrides = [f"{key}={value}" for key, value in shrunk.items()]
    sets = [part for override in overrides for part in ("--set", override)]
    ended = run_pipeline_here("run", "--config", str(path), "--data", str(data), *sets)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return load_run_config(REPOSITORY / path, overrides, {})


def with_tasks_of_both(first, second, path):
    """Write the shipped config `first` with the tasks of `second` added to its own.

    One run of it does the work of both, because they differ only in their tasks.
    """
    one, other = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in (first, second)
    )
    of_each = ("name", "root", "tasks")
    assert {key: value for key, value in one.items() if key not in of_each} == {
        key: value for key, value in other.items() if key not in of_each
    }
    path.write_text(yaml.safe_dump({**one, "tasks": one["tasks"] + other["tasks"]}))
    assert load_run_config(path, [], {}).tasks == tuple(
        task
        for name in (first, second)
        for task in load_run_config(CONFIGS / f"{name}.yaml", [], {}).tasks
    )
    return path


def scenes_per_split(config, task):
    version = layout.version_dir(config.task_dir(task), 1, 1)
    return {
        split: {patch.s1_scene_id.removesuffix("_S1Hand") for patch in read_split(version, split)}
        for split in layout.SPLITS
    }


def scores_on_test(config, task):
    record = read_last_run(config.metadata_path, config.name)
    return json.loads(
        (Path(record.output(f"Scorer-{task.name}", "scores").uri) / DOCUMENT_FILE).read_text()
    )


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_dfc2020_is_scored_in_eight_classes_on_the_patches_of_the_published_lists(tmp_path):
    data = make_copernicus_bench_dfc2020(tmp_path / "data", textured=True)
    config = run("pipeline/configs/dfc2020.yaml", data, tmp_path / "run", 64, 2)
    assert [(task.name, task.segment.sensors) for task in config.tasks] == [
        ("dfc2020-s1", ("s1",)),
        ("dfc2020-s2", ("s2",)),
    ]
    for task in config.tasks:
        found = scenes_per_split(config, task)
        for split, name in (("train", "train"), ("eval", "val"), ("test", "test")):
            assert found[split] == {
                f"ROIs0000_test_s1_0_p{patch}" for patch in COPERNICUS_BENCH_LISTS[name]
            }
        scores = scores_on_test(config, task)
        assert scores["num_patches"] == len(COPERNICUS_BENCH_LISTS["test"])
        assert 0.0 <= scores["scores"]["mean_iou"] <= 1.0
        assert {f"pooled_iou/{name}" for name in get_schema("igbp8").class_names} <= set(
            scores["scores"]
        )


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_sen1floods11_is_scored_on_its_test_chips_and_on_bolivia_apart(tmp_path):
    data = make_sen1floods11(tmp_path / "data", textured=True)
    path = with_tasks_of_both("sen1floods11", "sen1floods11-weak", tmp_path / "both.yaml")
    config = run(path, data, tmp_path / "run", 32, 3)
    assert [task.name for task in config.tasks] == ["flood-s1", "flood-s1s2", "flood-weak"]
    for task in config.tasks:
        found = scenes_per_split(config, task)
        is_weak = task.name == "flood-weak"
        assert found == {
            "train": {"Ghana_8_S1Weak"} if is_weak else {"Ghana_1"},
            "eval": {"Ghana_2"},
            "test": {"Sri-Lanka_3", "Mekong_4", "Bolivia_5"},
        }
        scores = scores_on_test(config, task)
        # Each chip gives four patches of 32 px.
        assert scores["num_patches"] == 12
        apart = {
            key: part["num_patches"]
            for key, part in scores["slices"].items()
            if key.startswith("holdout=")
        }
        assert apart == {"holdout=bolivia": 4, "holdout=none": 8}
        assert scores["slices"]["event=Bolivia"]["num_patches"] == 4
        for part in (scores, *(scores["slices"][key] for key in apart)):
            assert 0.0 <= part["scores"]["pooled_iou/water"] <= 1.0
            assert {"mean_iou", "mean_patch_iou/water", "pooled_iou/dry"} <= set(part["scores"])
