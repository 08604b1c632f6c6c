"""Settings: errors name the full path, and hashes change with every value."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from beam_jobs import config
from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class Leaf:
    rate: float = 0.5
    steps: int = 10
    mode: Literal["fast", "slow"] = "fast"

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError(f"rate must be above 0, got {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str
    on: bool = True
    leaf: Leaf = field(default_factory=Leaf)
    maybe: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[int, str] = (1, "a")
    weights: dict[str, float] = field(default_factory=dict)
    limit: int | str = 3
    shares: dict[str, float] | str = "even"


VALUES = {
    "name": "x",
    "on": False,
    "leaf": {"rate": 2, "steps": 3, "mode": "slow"},
    "maybe": {"rate": 0.25},
    "leaves": [{"steps": 1}, {"steps": 2}],
    "pair": [7, "z"],
    "weights": {"a": 1, "b": 2.5},
    "limit": "none",
    "shares": {"a": 1},
}


def test_plain_values_become_the_typed_tree():
    tree = settings.from_dict(Tree, VALUES)
    assert tree == Tree(
        name="x",
        on=False,
        leaf=Leaf(rate=2.0, steps=3, mode="slow"),
        maybe=Leaf(rate=0.25),
        leaves=(Leaf(steps=1), Leaf(steps=2)),
        pair=(7, "z"),
        weights={"a": 1.0, "b": 2.5},
        limit="none",
        shares={"a": 1.0},
    )
    assert isinstance(tree.leaf.rate, float)
    assert isinstance(tree.weights["a"], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": 1}, "nmae: unknown key; known here: leaf, leaves, limit"),
        ({"leaf": {"rat": 1}}, "leaf.rat: unknown key; known here: mode, rate, steps"),
        (
            {"leaf": {"rate": "1e-3"}},
            "leaf.rate: expected float, got str '1e-3' (write 1.0e-3: YAML reads 1e-3 as text)",
        ),
        ({"leaf": {"steps": True}}, "leaf.steps: expected int, got bool True"),
        ({"leaf": {"rate": False}}, "leaf.rate: expected float, got bool False"),
        ({"leaf": {"steps": 1.0}}, "leaf.steps: expected int, got float 1.0"),
        ({"on": 1}, "on: expected bool, got int 1"),
        ({"name": None}, "name: expected str, got NoneType None"),
        ({"leaf": {"mode": "slwo"}}, "leaf.mode: expected one of 'fast', 'slow', got 'slwo'"),
        ({"leaf": None}, "leaf: expected a mapping, got NoneType None"),
        ({"leaf": [1]}, "leaf: expected a mapping, got list [1]"),
        ({"maybe": {"steps": "many"}}, "maybe.steps: expected int, got str 'many'"),
        ({"maybe": 3}, "maybe: expected a mapping, got int 3"),
        ({"leaves": {"steps": 1}}, "leaves: expected a list, got dict"),
        ({"leaves": [{}, {"steps": 2.5}]}, "leaves[1].steps: expected int, got float 2.5"),
        ({"pair": [1]}, "pair: expected 2 values, got 1: [1]"),
        ({"pair": ["a", "a"]}, "pair[0]: expected int, got str 'a'"),
        ({"weights": {"b": "heavy"}}, "weights.b: expected float, got str 'heavy'"),
        ({"weights": [1.0]}, "weights: expected a mapping, got list"),
        ({"limit": 2.5}, "got float 2.5"),
        ({"limit": True}, "got bool True"),
        ({"leaf": {"rate": -1.0}}, "leaf: rate must be above 0, got -1.0"),
        ({"leaves": [{"rate": 0}]}, "leaves[0]: rate must be above 0, got 0.0"),
    ],
)
def test_errors_name_the_full_path_the_rule_and_the_value(change, message):
    with pytest.raises(SettingsError) as error:
        settings.from_dict(Tree, VALUES | change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_without_default_is_named():
    with pytest.raises(SettingsError, match=r"^run\.name: required, but not given$"):
        settings.from_dict(Tree, {}, "run")


def test_none_is_taken_where_the_type_allows_it():
    assert settings.from_dict(Tree, VALUES | {"maybe": None}).maybe is None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_overrides_reach_nested_keys_list_positions_and_new_groups(tmp_path):
    path = write(tmp_path, "name: x\nleaves: [{steps: 1}, {steps: 2}]\n")
    overrides = [
        "leaves.1.steps=7",
        "leaf.rate=2.5",
        "on=false",
        "maybe.mode=slow",
        "pair=[4, b]",
        "weights.a=1",
    ]
    tree = settings.load_yaml(Tree, path, overrides)
    assert [leaf.steps for leaf in tree.leaves] == [1, 7]
    assert (tree.leaf.rate, tree.on, tree.maybe, tree.pair) == (
        2.5,
        False,
        Leaf(mode="slow"),
        (4, "b"),
    )
    assert tree.weights == {"a": 1.0}


def test_a_later_override_wins_and_the_values_given_stay_as_they_are():
    values = {"leaf": {"rate": 1.0}}
    assert settings.apply_overrides(values, ["leaf.rate=2", "leaf.rate=3"]) == {"leaf": {"rate": 3}}
    assert values == {"leaf": {"rate": 1.0}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("runs #1/a", "runs #1/a"),
        ("runs/[v1] {a,b}*? 50%", "runs/[v1] {a,b}*? 50%"),
        ("-runs", "-runs"),
        ("'runs #1'", "runs #1"),
        ('"a\\tb" # told', "a\tb"),
        ("[1, 2]  # two", [1, 2]),
        ("3 # three", 3),
    ],
)
def test_a_number_sign_is_a_part_of_a_text_and_not_a_comment(text, value):
    assert settings.apply_overrides({}, [f"name={text}"]) == {"name": value}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("leaf.rate", "--set leaf.rate: expected a.b=value"),
        ("name.first=1", "--set name.first: 'name' is a value, not a group"),
        ("leaves.2.steps=1", "--set leaves.2.steps: '2' is no position in a list of 2"),
        ("leaves.last=1", "'last' is no position in a list of 2"),
        ("leaf.steps=1e3", "leaf.steps: expected int, got str '1e3'"),
        ("leaf.stesp=3", "leaf.stesp: unknown key"),
        ("pair=[1", "--set pair: not valid YAML"),
    ],
)
def test_a_bad_override_is_named(tmp_path, override, message):
    path = write(tmp_path, "name: x\nleaves: [{}, {}]\n")
    with pytest.raises(SettingsError) as error:
        settings.load_yaml(Tree, path, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("- 1\n- 2\n", [], "expected a mapping, got list [1, 2]"),
        ("[]\n", [], "expected a mapping, got list []"),
        ("just text\n", ["name=y"], "expected a mapping, got str 'just text'"),
        ("name: [1\n", [], "not valid YAML"),
        ("name: 2020-01-31\n", [], "name: expected str, got date"),
        ("leaf: {}\n", [], "name: required, but not given"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text, overrides, message):
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        settings.load_yaml(Tree, path, overrides)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot read the config: No such file"):
        settings.load_yaml(Tree, tmp_path / "none.yaml")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    backwards = {key: VALUES[key] for key in reversed(VALUES)}
    one, two = settings.from_dict(Tree, VALUES), settings.from_dict(Tree, backwards)
    assert settings.sha256(one) == settings.sha256(two)
    assert settings.sha256({"a": 1, "b": 2}) == settings.sha256({"b": 2, "a": 1})


def test_the_hash_changes_with_every_single_value():
    tree = settings.from_dict(Tree, VALUES)
    changes = [
        {"name": "y"},
        {"on": True},
        {"leaf": dataclasses.replace(tree.leaf, rate=2.001)},
        {"maybe": None},
        {"leaves": tree.leaves[::-1]},
        {"pair": (7, "zz")},
        {"weights": {"a": 1.0}},
        {"limit": 3},
    ]
    hashes = {settings.sha256(dataclasses.replace(tree, **change)) for change in changes}
    assert len(hashes | {settings.sha256(tree)}) == len(changes) + 1


FRACTION = st.floats(0.0, 0.45)
POSITIVE = st.floats(0.01, 1e6)
BUILD_CONFIGS = st.builds(
    config.BuildConfig,
    pairing=st.builds(
        config.PairingConfig, max_time_gap_hours=POSITIVE, min_overlap_fraction=FRACTION
    ),
    patch=st.builds(
        config.PatchConfig,
        size_px=st.integers(16, 512),
        pixel_size_m=st.floats(0.01, 100.0),
        s1_bands=st.sampled_from([("VV",), ("VH", "VV"), ("HH", "HV")]),
        s2_bands=st.permutations(["B2", "B3", "B4", "B8A"]).map(tuple),
        s2_processing_level=st.sampled_from(["L1C", "L2A"]),
    ),
    quality=st.builds(
        config.QualityConfig, min_valid_fraction=FRACTION, max_cloud_fraction=FRACTION
    ),
    split=st.builds(
        config.SplitConfig,
        block_size_km=st.floats(60.0, 1e4),
        eval_fraction=FRACTION,
        test_fraction=FRACTION,
        seed=st.integers(0, 2**40),
    ),
    shards=st.builds(config.ShardConfig, num_examples_per_shard=st.integers(1, 9999)),
    label=st.none()
    | st.builds(
        config.LabelConfig,
        schema=st.sampled_from(["water", "dynamic_world", "igbp8"]),
        label_from=st.sampled_from(["s1", "s2"]),
        min_labeled_fraction=FRACTION,
    )
    | st.builds(
        config.LabelConfig,
        schema=st.just("igbp8"),
        ignore=st.lists(st.sampled_from(["urban", "water"])).map(tuple),
    ),
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(BUILD_CONFIGS)
def test_every_build_config_survives_its_dict(build):
    assert settings.from_dict(config.BuildConfig, settings.to_dict(build)) == build


def test_blocks_smaller_than_a_patch_are_refused():
    message = r"split.block_size_km must be at least the side of a patch, 0.64 km, got 0.63"
    with pytest.raises(settings.SettingsError, match=message):
        settings.from_dict(config.BuildConfig, {"split": {"block_size_km": 0.63}})


@hypothesis_settings(max_examples=15, deadline=None)
@given(BUILD_CONFIGS)
def test_every_build_config_survives_json(build):
    again = settings.from_dict(config.BuildConfig, json.loads(settings.canonical_json(build)))
    assert again == build
    assert settings.sha256(again) == settings.sha256(build)


# --- files ---


@dataclass(frozen=True, kw_only=True)
class Source:
    kind: str = ""
    path: str = field(default="", metadata=settings.input_path_unless("kind", "made"))
    lists: tuple[str, ...] = field(default=(), metadata=settings.INPUT_PATH)
    labels: str = field(default="", metadata=settings.REQUIRED_PATH)


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str = ""
    source: Source | None = None
    sources: tuple[Source, ...] = ()


def test_a_path_starts_at_the_folder_of_its_yaml_file(tmp_path, monkeypatch):
    folder, here = tmp_path / "configs", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    (folder / "labels.gpkg").write_text("")
    (here / "scenes").mkdir()
    (folder / "job.yaml").write_text(
        "name: labels.gpkg\n"
        "source: {path: scenes, labels: labels.gpkg, lists: [a.txt, /abs.txt, 's3://b/c.txt']}\n"
        "sources: [{path: gone}, {kind: made, path: gone}, {path: '${HOME_OF_ALL}/x'}]\n"
    )
    job = settings.load_yaml(Job, folder / "job.yaml", ["sources.0.labels=mine.gpkg"])
    # Only in the current folder there are scenes.
    assert job.source.path == "scenes"
    assert job.source.labels == str(folder / "labels.gpkg")
    assert job.source.lists == (str(folder / "a.txt"), "/abs.txt", "s3://b/c.txt")
    assert [source.path for source in job.sources] == [
        str(folder / "gone"),
        "gone",
        "${HOME_OF_ALL}/x",
    ]
    # A setting of the command line starts at the current folder.
    assert job.sources[0].labels == "mine.gpkg"
    assert job.name == "labels.gpkg"


def test_a_file_that_is_in_neither_folder_is_named_with_both(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "job.yaml").write_text("sources: [{}, {labels: x/labels.gpkg}]\n")
    with pytest.raises(SettingsError) as error:
        settings.load_yaml(Job, folder / "job.yaml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'job.yaml'}: sources[1].labels: there is no file 'x/lab")
    assert str(folder / "x/labels.gpkg") in message
    assert str(tmp_path / "x/labels.gpkg") in message


def test_the_paths_of_inputs_are_found_wherever_they_stand():
    label = config.LabelConfig(
        schema="water", label_from="s1", vector=config.VectorConfig(path="a.gpkg", column="class")
    )
    area = config.HoldoutConfig(name="x", split="test", geojson="x.json")
    event = config.HoldoutConfig(name="y", split="test", values=("y",))
    build = config.BuildConfig(label=label, split=config.SplitConfig(holdouts=(event, area)))
    assert sorted(settings.input_paths(build)) == [
        ("label.vector.path", "a.gpkg"),
        ("split.holdouts[1].geojson", "x.json"),
    ]
    source = config.CatalogConfig(layout="sen12ms", path="s", split_lists=("a", "b"))
    assert list(settings.input_paths(source, "of")) == [
        ("of.path", "s"),
        ("of.split_lists[0]", "a"),
        ("of.split_lists[1]", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "found the key 'name' twice"),
        ("weights: {1: 0.5, 2: 1.0, 1: 0.7}\nname: a\n", "found the key 1 twice"),
        ("weights: {1: 0.5, '1': 0.7}\nname: a\n", "weights: the key 1 comes twice"),
    ],
)
def test_a_key_that_comes_twice_is_refused(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        settings.load_yaml(Tree, tmp_path / "a.yaml")


def test_a_merged_group_may_be_changed_by_keys_beside_it(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "name: a\nleaf: &leaf {rate: 0.1, steps: 3}\nmaybe: {<<: *leaf, steps: 4}\n"
        "leaves: [{<<: *leaf, rate: 0.2}, *leaf]\n"
    )
    tree = settings.load_yaml(Tree, tmp_path / "a.yaml")
    assert (tree.maybe.rate, tree.maybe.steps) == (0.1, 4)
    assert [(leaf.rate, leaf.steps) for leaf in tree.leaves] == [(0.2, 3), (0.1, 3)]
