import dataclasses
import math

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.windows import WindowConfig
from pipeline.config import RunConfig, load_run_config
from tests.data.runs.repository import REPOSITORY

SHIPPED = sorted((REPOSITORY / "pipeline" / "configs").glob("*.yaml"))
KUBEFLOW_ENVIRONMENT = {
    "TERRAPAIR_ROOT": "s3://bucket/terrapair",
    "TERRAPAIR_IMAGE": "registry.example/terrapair:1",
    "TERRAPAIR_DATABASE": "mysql.kubeflow",
    "TERRAPAIR_CATALOG": "s3://bucket/items.ndjson",
}


def load(values):
    return settings.from_dict(RunConfig, values)


def test_config_survives_the_round_trip_through_plain_values(values):
    config = load(values)
    assert load(settings.to_dict(config)) == config
    assert config.tasks[0].min_iou == {"water": 0.125}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    config = load_run_config(path, [], KUBEFLOW_ENVIRONMENT)
    assert all(task.segment.label_schema == task.label.schema for task in config.tasks)
    assert config.tasks


def test_unset_environment_variable_is_named_with_its_key(configs_dir):
    with pytest.raises(
        settings.SettingsError, match=r"kubeflow.yaml: root: .* TERRAPAIR_ROOT is not set"
    ):
        load_run_config(configs_dir / "kubeflow.yaml", [], {})


def test_task_inherits_everything_but_label_and_quality_from_the_pairs(values):
    values["pairs"] |= {
        "split": {"seed": 7, "block_size_km": 5.12},
        "pairing": {"max_time_gap_hours": 6.0},
    }
    config = load(values)
    built = config.tasks[0].build_config(config.pairs)
    assert (built.split, built.pairing, built.patch) == (
        config.pairs.split,
        config.pairs.pairing,
        config.pairs.patch,
    )
    assert built.split.seed == 7
    assert built.quality.max_cloud_fraction == 1.0 != config.pairs.quality.max_cloud_fraction
    assert built.label is not None
    # Gaps of a sensor that the task does not use refuse no patch.
    assert built.label.sensors == config.tasks[0].segment.sensors
    without = dataclasses.replace(config.tasks[0], quality=None)
    assert without.build_config(config.pairs).quality == config.pairs.quality


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tasks.0.segment.label_schema": "dynamic_world"},
            r"^tasks\[0\]: segment.label_schema must be label.schema 'w",
        ),
        (
            {"tasks.0.segment.encoder.backbone": "resnet18"},
            r"tasks\[0\].segment.encoder must be pretrain.encoder",
        ),
        (
            {"tasks.0.label": {"schema": "water", "label_from": "s2", "partner": "optional"}},
            r"^tasks\[0\]: label.partner optional gives patches of s2 alone, but .*sensors are s1",
        ),
        ({"tasks.0.name": "encoder"}, r"^tasks\[0\]: name must be lower case .* got 'encoder'"),
        (
            {"tasks.0.label.ignore": ["snow"]},
            r"^tasks\[0\].label: ignore: no class 'snow' in 'water'; known: dry, water",
        ),
        (
            {"tasks.0.label.ignore": ["dry"]},
            r"^tasks\[0\].label: ignore must leave at least two classes of 'water', got dry",
        ),
        (
            {
                "tasks.0.label": {"schema": "igbp8", "ignore": ["urban"]},
                "tasks.0.segment.label_schema": "igbp8",
            }
            | {"tasks.0.min_iou": {"urban": 0.1}},
            r"^tasks\[0\]: min_iou.urban: the class is in label.ignore, so its IoU is not measured",
        ),
        (
            {"tasks.0.min_iou.snow": 0.1},
            r"^tasks\[0\]: min_iou.snow: no class of 'water'; known: dry, water",
        ),
        ({"tasks.0.min_mean_iou": 1.5}, r"^tasks\[0\]: min_mean_iou must be within 0-1, got 1.5"),
        # Below 0, a model as good as the one in service could never be published.
        (
            {"tasks.0.gate": {"margin": -0.1}},
            r"^tasks\[0\].gate: margin must be at least 0 .* -0.1",
        ),
        ({"tasks.0.gate": {"margin": math.nan}}, r"^tasks\[0\].gate: margin must be .* got nan"),
        (
            {"tasks.0.label.schema": "worldcover"},
            r"^tasks\[0\].label: schema 'worldcover' has gaps",
        ),
        (
            {"pairs.patch.size_px": 40},
            r"pairs.patch.size_px must be a multiple of the stride 16 of 'small', got 40",
        ),
        (
            {"tasks.0.segment.encoder_paths": {"s2": "encoders/s2"}},
            r"^tasks\[0\]\.segment: encoder_paths must map .* \['s1'\], to .* got 's2': 'enc.*s2'",
        ),
        ({"pairs.label": {"schema": "water"}}, r"pairs.label must be absent"),
        ({"pairs.patch.s2_bands": ["B10"]}, r"^pairs.patch: s2_bands holds B10"),
        ({"pretrain.num_step": 3}, r"^pretrain.num_step: unknown key"),
        (
            {"local_root": "s3://bucket/x"},
            r"local_root must be a folder of this machine, got 's3://bucket/x'",
        ),
        ({"probe.task": "crops"}, r"probe.task must be one of the tasks \['flood'\], got 'crops'"),
        ({"probe.min_spread": 2.0}, r"^probe: min_spread must be within 0 and 1, got 2.0"),
        ({"spans": {"last": 0}}, r"^spans: last must be at least 1, got 0"),
        ({"spans": {"first": 2}}, r"^spans.first: unknown key; known here: last"),
        ({"spans": "newest"}, r"^spans: expected a mapping or 'all', got str 'newest'"),
        ({"num_beam_workers": 0}, r"num_beam_workers must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_with_their_path(values, change, message):
    for key, value in change.items():
        node = values
        *parents, last = key.split(".")
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value
    with pytest.raises(settings.SettingsError, match=message):
        load(values)


def test_task_with_an_encoder_of_its_own_may_have_another_architecture(values):
    values["tasks"][0]["segment"] |= {
        "encoder": {"backbone": "torch_resnet50"},
        "encoder_paths": {"s1": "encoders/s1"},
    }
    config = load(values)
    assert not config.tasks[0].segment.needs_pretraining
    values["pairs"]["patch"]["size_px"] = 48
    with pytest.raises(
        settings.SettingsError,
        match=r"size_px must be a multiple of the stride 32 of 'torch_resnet50'",
    ):
        load(values)


def test_on_an_object_store_only_metadata_and_catalogs_stay_here(values):
    config = load({**values, "root": "s3://bucket/run/", "local_root": "/tmp/here"})
    assert (config.metadata_path, config.catalogs_dir) == (
        "/tmp/here/metadata.sqlite",
        "/tmp/here/catalogs",
    )
    assert (config.pairs_dir, config.artifacts_dir) == (
        "s3://bucket/run/data/pairs",
        "s3://bucket/run/tfx",
    )
    assert (config.serving_dir, config.report_dir) == (
        "s3://bucket/run/serving",
        "s3://bucket/run/report",
    )
    assert load({**values, "root": "/tmp/run"}).metadata_path == "/tmp/run/metadata.sqlite"


def test_the_probe_takes_the_labels_of_the_first_task_unless_told(values):
    values["tasks"].append(values["tasks"][0] | {"name": "flood-2"})
    assert load(values).probe_task == "flood"
    assert load(values | {"probe": {"task": "flood-2"}}).probe_task == "flood-2"
    assert load(values | {"tasks": [], "probe": {"task": "flood-2"}}).probe_task == ""


def add_student(values, **distill):
    """A task of Sentinel-2, "optical", before the flood task, which learns from it."""
    flood = values["tasks"][0]
    values["tasks"].insert(
        0, {**flood, "name": "optical", "segment": flood["segment"] | {"sensors": ["s2"]}}
    )
    flood["distill"] = {"teacher": "optical", "num_steps": 3} | distill


def test_student_learns_from_a_task_before_it(values):
    add_student(values)
    config = load(values)
    assert config.tasks[1].distill.teacher == "optical"
    assert load(settings.to_dict(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"teacher": "crops"},
            r"tasks\[1\]\.distill\.teacher must be one of .* it, \['optical'\], got 'crops'",
        ),
        (
            {"teacher": "flood"},
            r"tasks\[1\]\.distill\.teacher must be one of .* it, \['optical'\], got 'flood'",
        ),
        (
            {"edge_weight": 0.0},
            r"^tasks\[1\]\.distill: edge_weight must be above 0 and finite, got 0\.0",
        ),
    ],
)
def test_wrong_teacher_is_refused(values, change, message):
    add_student(values, **change)
    with pytest.raises(settings.SettingsError, match=message):
        load(values)


def test_tasks_cannot_teach_each_other_nor_a_student_that_sees_as_much(values):
    add_student(values)
    values["tasks"][0]["distill"] = {"teacher": "flood", "num_steps": 3}
    with pytest.raises(
        settings.SettingsError,
        match=r"tasks\[0\]\.distill\.teacher must be .* before it, \[\], got 'flood'",
    ):
        load(values)
    del values["tasks"][0]["distill"]
    values["tasks"][0]["segment"]["sensors"] = ["s1"]
    with pytest.raises(
        settings.SettingsError,
        match=r"tasks\[1\]\.distill\.teacher must see a sensor .* of \['s1'\], lacks",
    ):
        load(values)


@pytest.mark.parametrize(
    ("spans", "window"),
    [
        (None, None),
        ("all", WindowConfig(last=None)),
        ({"last": 6}, WindowConfig(last=6)),
    ],
)
def test_spans_are_the_newest_few_or_all_or_the_newest_alone(values, spans, window):
    config = settings.from_dict(RunConfig, values | {"spans": spans})
    assert config.window == window
    assert settings.from_dict(RunConfig, settings.to_dict(config)) == config


def test_two_tasks_of_one_name_are_refused(values):
    values["tasks"] *= 2
    with pytest.raises(settings.SettingsError, match="distinct names"):
        load(values)
