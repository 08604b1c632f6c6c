"""Task files: what a run inherits, what it overrides, and what is refused."""

import copy

import pytest
import yaml

from beam_jobs.contracts import settings
from beam_jobs.contracts.labels import get_schema
from pipeline import task_files
from pipeline.config import load_run_config

SHIPPED = {
    # task: (sensors, label schema, classes)
    "flood": (("s1",), "water", 2),
    "landcover": (("s2",), "dynamic_world", 9),
    "landcover-fused": (("s1", "s2"), "dynamic_world", 9),
    "landcover-worldcover": (("s2",), "worldcover_dense", 11),
    "landcover-igbp10": (("s2",), "igbp10_dense", 10),
    "landcover-igbp8": (("s2",), "igbp8", 8),
}
WETLAND = {
    "name": "wetland",
    "label": {"schema": "igbp8", "label_from": "s1", "min_labeled_fraction": 0.25},
    "segment": {
        "sensors": ["s1", "s2"],
        "num_steps": 7,
        "loss": {"terms": {"focal": 1.0}, "class_weights": {"wetlands": 3.0, "water": 2.0}},
        "decoder_channels": [64, 32, 16, 8],
    },
    "min_iou": {"wetlands": 0.25},
}
REGION = {"name": "island", "split": "test", "property": "terrapair:event", "values": ["Island"]}


@pytest.fixture
def run(values, tmp_path):
    """Writes a run with the given tasks and loads it."""

    def load(tasks, *overrides, **further):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(values), "tasks": tasks, **further}))
        return load_run_config(path, overrides, {})

    return load


def drop(folder, name, task):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_task_is_whole_by_its_name_alone(run, name):
    (task,) = run([name]).tasks
    assert (
        task.name,
        (task.segment.sensors, task.label.schema, get_schema(task.label.schema).num_classes),
    ) == (
        name,
        SHIPPED[name],
    )
    assert task.segment.label_schema == task.label.schema


def test_the_shipped_tasks_are_those_tested_here(tmp_path):
    assert set(task_files.known_tasks(tmp_path)) == set(SHIPPED)


def test_what_sets_the_shipped_tasks_apart(run):
    config = run(["flood", "landcover-fused"])
    flood, fused = config.tasks
    assert flood.segment.loss.class_weights == {"water": 8.0}
    assert (flood.label.label_from, flood.quality.max_cloud_fraction) == ("s1", 1.0)
    assert (fused.quality, fused.segment.modality_dropout) == (None, 0.3)


def test_a_task_trains_the_encoder_that_was_pretrained_unless_it_names_one(run, values):
    assert [task.segment.encoder for task in run(["flood"]).tasks] == [
        run(["flood"]).pretrain.encoder
    ]
    own = {"encoder": {"backbone": "resnet18"}, "encoder_paths": {"s1": "encoders/s1"}}
    (task,) = run([{"use": "flood", "segment": own}]).tasks
    assert task.segment.encoder.backbone == "resnet18" != values["pretrain"]["encoder"]["backbone"]


def test_tasks_written_out_in_the_run_inherit_the_encoder_too(run, values):
    del values["tasks"][0]["segment"]["encoder"], values["tasks"][0]["segment"]["label_schema"]
    config = run(values["tasks"])
    assert config.tasks[0].segment.encoder == config.pretrain.encoder
    assert config.tasks[0].segment.label_schema == "water"


def test_a_new_file_beside_the_run_is_a_new_task(run, tmp_path):
    drop(tmp_path / "tasks", "wetland", WETLAND)
    wetland, flood = run(["wetland", "flood"]).tasks
    assert (wetland.name, wetland.label.min_labeled_fraction, wetland.segment.num_steps) == (
        "wetland",
        0.25,
        7,
    )
    assert wetland.segment.loss.class_weights == {"wetlands": 3.0, "water": 2.0}
    assert flood.name == "flood"


def test_a_path_is_relative_to_the_file_of_the_run(run, tmp_path, monkeypatch):
    drop(tmp_path / "mine", "anything", WETLAND)
    monkeypatch.chdir("/")
    assert [task.name for task in run([{"use": "mine/anything.yaml"}]).tasks] == ["wetland"]


def test_overrides_merge_groups_replace_values_and_clear_by_an_empty_group(run, tmp_path):
    drop(tmp_path / "tasks", "wetland", WETLAND)
    over = {
        "segment": {"decoder_channels": [32] * 5, "loss": {"class_weights": {"water": 1.0}}},
        "min_iou": {},
    }
    (task,) = run([{"use": "wetland", "name": "marsh", **over}]).tasks
    assert (task.name, task.min_iou) == ("marsh", {})
    assert task.segment.decoder_channels == (32,) * 5
    assert task.segment.loss.class_weights == {"wetlands": 3.0, "water": 1.0}
    assert (task.segment.loss.terms, task.segment.num_steps) == ({"focal": 1.0}, 7)
    (cleared,) = run(
        [{"use": "flood", "quality": None, "segment": {"loss": {"class_weights": {}}}}]
    ).tasks
    assert (cleared.quality, cleared.segment.loss.class_weights) == (None, {})


def test_settings_of_the_command_line_reach_into_named_tasks(run):
    config = run(
        ["flood", {"use": "landcover"}],
        "tasks.0.segment.num_steps=3",
        "tasks.1.segment.head=linear",
    )
    assert (config.tasks[0].segment.num_steps, config.tasks[1].segment.head) == (3, "linear")
    assert config.tasks[0].segment.loss.class_weights == {"water": 8.0}
    assert [task.name for task in run(["flood"], "tasks=[landcover]").tasks] == ["landcover"]


def test_one_task_twice_under_two_names(run):
    config = run(
        [
            "flood",
            {
                "use": "flood",
                "name": "flood-probe",
                "segment": {"head": "linear", "regime": "linear"},
            },
        ]
    )
    assert [(task.name, task.segment.head) for task in config.tasks] == [
        ("flood", "unet"),
        ("flood-probe", "linear"),
    ]


def test_what_a_task_holds_out_is_held_out_from_the_pairs_and_from_every_task(
    run, values, tmp_path
):
    other = {"name": "coast", "split": "eval", "geojson": "coast.geojson"}
    (tmp_path / "coast.geojson").write_text("{}")
    values["pairs"]["split"] = {"seed": 5, "holdouts": [other]}
    drop(
        tmp_path / "tasks", "island", {**WETLAND, "name": "island", "split": {"holdouts": [REGION]}}
    )
    config = run(["flood", "island", {"use": "island", "name": "island-2"}])
    assert [holdout.name for holdout in config.pairs.split.holdouts] == ["coast", "island"]
    assert config.pairs.split.holdouts[0].geojson == str(tmp_path / "coast.geojson")
    assert config.pairs.split.seed == 5
    for task in config.tasks:
        assert task.build_config(config.pairs).split == config.pairs.split


def test_a_run_written_out_in_full_loads_as_it_is(run, tmp_path):
    config = run(["flood", "landcover-fused"])
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(settings.to_dict(config)))
    assert load_run_config(path, [], {}) == config


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            ["floods"],
            r"run.yaml: tasks\[0\].use: no task 'floods'; known: flood, .*or the path of a YAML",
        ),
        (["flood", {"use": 3}], r"tasks\[1\].use: no task 3; known: "),
        ([{"use": "my/task.yaml"}], r"my/task.yaml: cannot read the task: No such file"),
        (
            [{"use": "flood", "segmnt": {}}],
            r"tasks\[0\].segmnt: unknown key; known here: .*flood.yaml\)$",
        ),
        (
            [{"use": "flood", "split": {"seed": 3}}],
            r"tasks\[0\].split: a task may only add a list of holdouts .*seed",
        ),
        ([{"use": "list.yaml"}], r"list.yaml: a task must be a mapping, got list"),
        ([{"use": "broken.yaml"}], r"broken.yaml: not valid YAML: "),
        (
            [{"use": "typo.yaml"}],
            r"tasks\[0\].segment.num_step: unknown key; .* \(tasks\[0\] uses .*typo.yaml\)$",
        ),
        ([7], r"tasks\[0\]: expected a mapping, got int 7"),
        ("flood", r"tasks: expected a list, got str 'flood'"),
    ],
)
def test_a_task_that_does_not_fit_is_one_line_with_its_file(run, tmp_path, tasks, message):
    (tmp_path / "list.yaml").write_text("[flood]")
    (tmp_path / "broken.yaml").write_text("name: [")
    typo = copy.deepcopy(WETLAND)
    typo["segment"]["num_step"] = typo["segment"].pop("num_steps")
    (tmp_path / "typo.yaml").write_text(yaml.safe_dump(typo))
    with pytest.raises(settings.SettingsError, match=message) as error:
        run(tasks)
    assert "\n" not in str(error.value)


# --- classes of one's own ---

SHORE = {
    "name": "shore",
    "label": {
        "classes": [
            {"id": 0, "name": "land", "color": "#d9c9a3"},
            {"id": 1, "name": "water", "color": "#1f5fbf"},
        ],
        "remap": {"dynamic_world": {"water": "water", 1: "land"}},
    },
    "segment": {
        "sensors": ["s2"],
        "num_steps": 3,
        "loss": {"class_weights": {"water": 4.0}},
    },
    "min_iou": {"water": 0.1},
}


def test_own_classes_reach_the_segmenter_and_come_back_from_a_written_config(run, tmp_path):
    drop(tmp_path / "tasks", "shore", SHORE)
    config = run(["shore"])
    (task,) = config.tasks
    assert (task.label.schema, task.segment.label_schema) == ("shore", "shore")
    assert task.segment.schema.classes == {0: "land", 1: "water"}
    assert task.segment.schema.colors == {0: "#d9c9a3", 1: "#1f5fbf"}
    assert task.label.target.ids([0, 1, 2], "dynamic_world", {}) == [1, 0, 255]
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(settings.to_dict(config)))
    assert load_run_config(path, [], {}) == config


def test_a_vector_file_starts_at_the_folder_of_its_task(run, tmp_path):
    vector = {"path": "shore.gpkg", "column": "class"}
    label = {**SHORE["label"], "vector": vector}
    drop(tmp_path / "tasks", "shore", {**SHORE, "label": label})
    with pytest.raises(settings.SettingsError, match=r"no file 'shore.gpkg'") as error:
        run(["shore"])
    assert str(tmp_path / "tasks" / "shore.gpkg") in str(error.value)
    (tmp_path / "tasks" / "shore.gpkg").write_text("")
    assert run(["shore"]).tasks[0].label.vector.path == str(tmp_path / "tasks" / "shore.gpkg")
    # The run's own file says where its path starts.
    (tmp_path / "other.gpkg").write_text("")
    (task,) = run([{"use": "shore", "label": {"vector": {"path": "other.gpkg"}}}]).tasks
    assert task.label.vector.path == str(tmp_path / "other.gpkg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "water"}, "must be a name of your own"),
        (
            {"classes": [*SHORE["label"]["classes"], {"id": 1, "name": "x", "color": "#000000"}]},
            "twice",
        ),
        ({"classes": [{"id": 0, "name": "a", "color": "red"}]}, r"label.classes\[0\].*#rrggbb"),
        (
            {"remap": {"dynamic_world": {"water": "sea"}}},
            "remap.dynamic_world.water: no class 'sea'",
        ),
        ({"remap": {1: "land"}}, "no value becomes the class 'water'"),
        (
            {"vector": {"path": "/a.gpkg", "column": "c", "schema": "corine"}},
            "vector.schema: unknown label schema 'corine'",
        ),
    ],
)
def test_a_wrong_class_or_remap_is_refused_with_its_path(run, change, message):
    label = {**SHORE["label"], **change}
    task = {**SHORE, "label": label}
    with pytest.raises(settings.SettingsError, match=message) as error:
        run([task])
    assert "tasks[0]" in str(error.value)


def test_a_segmenter_of_other_classes_than_the_label_is_refused(run):
    other = [
        {"id": 0, "name": "wet", "color": "#d9c9a3"},
        {"id": 1, "name": "dry", "color": "#1f5fbf"},
    ]
    segment = {**SHORE["segment"], "label_classes": other, "loss": {}}
    with pytest.raises(
        settings.SettingsError, match=r"segment.label_classes must be label.classes"
    ):
        run([{**SHORE, "segment": segment, "min_iou": {}}])
