"""Months of a run: what is new becomes a span, and the rest stays as it is."""

import copy
import dataclasses
import json
import shutil
import sys
from contextlib import nullcontext

import pytest

from beam_jobs import config as c
from beam_jobs.contracts import layout, manifest, set_aside, settings, windows
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.errors import DataError
from beam_jobs.simulation.simulate import simulate
from pipeline.config import RunConfig
from pipeline.data_build import build_data, check_window, data_sets
from tests.data.runs.run_pipeline import run_pipeline_here
from tests.data.scenes import make_datasets
from tests.data.shards import make_spans


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Catalog of 3 places, and its lines by date."""
    folder = tmp_path_factory.mktemp("scenes")
    catalog = simulate(c.SimulateConfig(num_places=3, num_dates=3, size_px=160, seed=5), folder)
    by_place: dict[str, list[str]] = {}
    for line in sorted(
        catalog.read_text().splitlines(), key=lambda one: json.loads(one)["properties"]["datetime"]
    ):
        by_place.setdefault(json.loads(line)["properties"]["terrapair:place"], []).append(line)
    return catalog, [
        [line for of_place in by_place.values() for line in of_place[start : start + 2]]
        for start in (0, 2, 4)
    ]


@pytest.fixture
def run_values(values, scenes, tmp_path):
    values = copy.deepcopy(values)
    values |= {
        "root": str(tmp_path / "run"),
        "catalogs": [{"layout": "stac", "path": str(scenes[0])}],
        "spans": "all",
    }
    values["pairs"] = {
        "patch": {"size_px": 32},
        "quality": {"min_valid_fraction": 0.05, "max_cloud_fraction": 1.0},
        "split": {"block_size_km": 0.8, "eval_fraction": 0.3, "test_fraction": 0.3},
    }
    values["tasks"][0]["quality"] = None
    return values


def build(config, **options):
    return build_data(config, lambda _: nullcontext(), lambda *_: None, **options)


def without_label(line):
    item = json.loads(line)
    item["assets"].pop("label", None)
    return json.dumps(item)


@pytest.mark.e2e
def test_each_month_is_a_span_of_the_data_it_brings_and_a_refused_one_is_left_out(
    run_values, scenes, tmp_path, monkeypatch
):
    catalog, dates = scenes
    config = settings.from_dict(RunConfig, run_values)
    catalog.write_text("\n".join(dates[0]) + "\n")
    first = build(config, new_span=True)
    assert first.new == ("pairs", "flood")
    assert first.pairs == layout.version_dir(config.pairs_dir, 1, 1)
    catalog.write_text("\n".join([*dates[0], *map(without_label, dates[1])]) + "\n")
    second = build(config, new_span=True)
    assert second.new == ("pairs",)
    assert second.pairs == layout.version_dir(config.pairs_dir, 2, 1)
    # The catalog is another one, but no label is new.
    assert second.tasks == first.tasks
    assert layout.list_versions(config.task_dir(config.tasks[0])) == [(1, 1)]
    window = windows.resolve(config.pairs_dir, config.window)
    assert [entry.span for entry in window] == [1, 2]
    # The verb ends with one line before it imports the runner, and so TFX.
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_values))
    monkeypatch.setitem(sys.modules, "pipeline.runners.local", None)
    for option in (("--new-span",), ("--set", "data.new_span=true")):
        ended = run_pipeline_here("run", "--config", str(path), *option)
        assert ended.returncode == 5, ended.stderr
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error")]
        assert "every scene is in an earlier span, or has no partner" in line
    assert layout.list_versions(config.pairs_dir) == [(1, 1), (2, 1)]

    # The second month is refused. The third takes the next number and no scene of it.
    record = SetAside(span=2, version=1, at="2026-02-01", reasons=("x",))
    set_aside.add(config.pairs_dir, record)
    lines = [*dates[0], *map(without_label, dates[1]), *dates[2]]
    catalog.write_text("\n".join(lines) + "\n")
    third = build(config, new_span=True)
    assert third.pairs == layout.version_dir(config.pairs_dir, 3, 1)
    names = {span: scenes_of(config.pairs_dir, span) for span in (1, 2, 3)}
    assert not names[3] & (names[1] | names[2])
    assert [one.span for one in windows.resolve(config.pairs_dir, config.window)] == [1, 3]
    # Blocks keep their split, whichever months a window takes.
    splits: dict[str, set[str]] = {}
    for split in layout.SPLITS:
        for span in (1, 2, 3):
            version = layout.version_dir(config.pairs_dir, span, 1)
            for patch in make_datasets.read_split(version, split):
                splits.setdefault(patch.block, set()).add(split)
    assert len(splits) > 10
    assert all(len(of_block) == 1 for of_block in splits.values())
    # The setting that accepts it puts it back, for this run and all later ones.
    build(dataclasses.replace(config, drift=dataclasses.replace(config.drift, accept_spans=(2,))))
    assert [one.span for one in windows.resolve(config.pairs_dir, config.window)] == [1, 2, 3]
    # Without its folder, the scenes are new again.
    shutil.rmtree(layout.version_dir(config.pairs_dir, 2, 1).parent)
    assert build(config, new_span=True).new == ("pairs",)
    assert layout.list_versions(config.pairs_dir) == [(1, 1), (3, 1), (4, 1)]
    assert scenes_of(config.pairs_dir, 4) == names[2]


def scenes_of(root, span):
    path = layout.version_dir(root, span, 1) / layout.SCENES_NAME
    return set(path.read_text().splitlines())


def test_a_class_may_be_absent_from_a_span_but_not_from_the_window(values, tmp_path):
    config = settings.from_dict(RunConfig, values | {"root": str(tmp_path)})
    flood = data_sets(config)[1]

    def write(span, absent):
        path = make_spans.make_span(flood.root, span, kind="labels", label_schema="water")
        found = manifest.read(path)
        counts = {
            split: {name: n for name, n in of.items() if name not in absent.get(split, ())}
            for split, of in found.num_pixels_per_class.items()
        }
        changed = dataclasses.replace(found, num_pixels_per_class=counts)
        (path / layout.MANIFEST_NAME).write_text(changed.to_json())

    def check(last):
        check_window(flood, [], windows.WindowConfig(last=last), False, lambda *_: None)

    write(1, {"train": ("1",)})
    write(2, {"test": ("1",)})
    check(2)
    # The newest span alone trains, but the first one is tested on, too.
    check(1)
    write(3, {"train": ("1",)})
    with pytest.raises(DataError, match=r"class 'water' \(1\) has no pixel in train"):
        check(1)
    check(2)
