"""Runs whose tasks start from a published encoder: what they inherit, and what is refused."""

import copy
import json
import re
import shutil

import pytest
import yaml

from beam_jobs.contracts import manifest, settings, windows
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.locations import DamagedFileError
from models.config import EncoderConfig, PretrainConfig
from models.public_weights.catalog import KNOWN
from models.published import card as card_lib
from pipeline import published_encoder
from pipeline.config import RunConfig, load_run_config
from tests.data.runs.repository import REPOSITORY
from tests.data.shards import make_shards, make_spans

BANDS = {"s1": list(S1_DEFAULT_BANDS), "s2": list(S2_L2A_BANDS)}
CLAIM = {"primary": {"task": "flood", "inputs": "s1", "regime": "linear", "fraction": 0.1}}
ENCODER = EncoderConfig(backbone="resnet18", embedding_dim=8, norm="group")


def publish(folder, sensors=("s1", "s2"), **changes):
    """The parts of a published encoder that a run reads before it starts: card and file names."""
    assets = folder / "assets.extra"
    assets.mkdir(parents=True)
    for sensor in sensors:
        (assets / f"{sensor}_encoder.keras").touch()
    config = PretrainConfig(
        encoder=ENCODER, num_steps=2, objective=changes.pop("objective", "multimodal")
    )
    described = {
        "task": "pretraining",
        "config": settings.to_dict(config),
        "inputs": {sensor: {"bands": BANDS[sensor]} for sensor in sensors},
        "data_manifest_sha256": "5" * 64,
        "data_span": 1,
        "data_version": 1,
        "started_from": {},
    }
    card_lib.write_card(str(assets), described | changes)
    return str(folder)


def import_weights(folder, name):
    """The same of `import-weights`, with the card that it writes."""
    known = KNOWN[name]
    bands = {known.sensor: BANDS[known.sensor]}
    card = card_lib.make_imported_card(
        bands, stride=32, signatures=(), config=known, s2_processing_level=None, source={}
    )
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "assets.extra" / f"{known.sensor}_encoder.keras").touch()
    card_lib.write_card(str(folder / "assets.extra"), card)
    return str(folder)


@pytest.fixture
def run(values, tmp_path):
    """Loads a run without `pretrain`, with the given tasks and other settings."""
    del values["pretrain"]

    def load(tasks, *overrides, environment=None, **further):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(values), "tasks": tasks, **further}))
        return load_run_config(path, overrides, environment or {})

    return load


def test_tasks_start_from_one_folder_and_have_the_architecture_of_its_card(run, tmp_path):
    folder = publish(tmp_path / "encoder" / "17")
    config = run(["flood", "landcover-fused"], encoder="encoder/17")
    flood, fused = (task.segment for task in config.tasks)
    assert flood.encoder_paths == {"s1": folder}
    assert fused.encoder_paths == {"s1": folder, "s2": folder}
    assert flood.encoder == fused.encoder == ENCODER
    assert (config.pretrain, config.needs_pairs) == (None, False)
    assert settings.from_dict(RunConfig, settings.to_dict(config)) == config


def test_each_sensor_may_have_a_folder_and_an_architecture_of_its_own(run, tmp_path):
    radar = import_weights(tmp_path / "s1", "ssl4eo-s12-s1-moco-resnet50")
    optical = import_weights(tmp_path / "s2", "ssl4eo-s12-s2-moco-resnet18")
    config = run(
        ["flood", "landcover"],
        encoder={"s1": radar, "s2": "${OPTICAL}"},
        environment={"OPTICAL": optical},
    )
    flood, landcover = (task.segment for task in config.tasks)
    assert (flood.encoder_paths, landcover.encoder_paths) == ({"s1": radar}, {"s2": optical})
    assert (flood.encoder.backbone, landcover.encoder.backbone) == (
        "torch_resnet50",
        "torch_resnet18",
    )
    with pytest.raises(
        settings.SettingsError,
        match=r"tasks\[0\]\.segment\.encoder must be that of .*s2, torch_resnet18 with norm batch, "
        r"got torch_resnet50 with norm batch: .*start each sensor from one architecture",
    ):
        run(["landcover-fused"], encoder={"s1": radar, "s2": optical})


def test_the_run_that_the_page_of_public_weights_shows_loads(tmp_path):
    page = (REPOSITORY / "docs" / "public_weights.md").read_text()
    (shown,) = re.findall(r"```yaml\n(name: .*?)```", page, re.DOTALL)
    assert len(shown.strip().splitlines()) == 10
    for sensor in ("s1", "s2"):
        import_weights(tmp_path / "encoders" / sensor, f"ssl4eo-s12-{sensor}-moco-resnet50")
    (tmp_path / "my.yaml").write_text(shown)
    config = load_run_config(tmp_path / "my.yaml", [], {})
    assert [task.segment.encoder_paths for task in config.tasks] == [
        {sensor: str(tmp_path / "encoders" / sensor)} for sensor in ("s1", "s2")
    ]
    assert {task.segment.encoder.backbone for task in config.tasks} == {"torch_resnet50"}


def test_a_shipped_run_takes_the_encoder_from_the_command_line(configs_dir, tmp_path):
    folder = publish(tmp_path / "7")
    overrides = ["pretrain=null", f"encoder={folder}", "pairs.patch.size_px=64"]
    config = load_run_config(configs_dir / "demo.yaml", overrides, {})
    assert {path for task in config.tasks for path in task.segment.encoder_paths.values()} == {
        folder
    }


def test_an_encoder_of_the_task_wins_and_new_weights_start_from_none(run, tmp_path):
    folder, own = publish(tmp_path / "run"), publish(tmp_path / "own")
    scratch = {"use": "flood", "name": "scratch", "segment": {"regime": "scratch"}}
    mixed = {"use": "landcover-fused", "segment": {"encoder_paths": {"s2": own}}}
    config = run([scratch, mixed], encoder=folder)
    assert config.tasks[0].segment.encoder_paths == {}
    assert config.tasks[0].segment.encoder == ENCODER
    assert config.tasks[1].segment.encoder_paths == {"s1": folder, "s2": own}


def test_a_run_needs_neither_when_its_tasks_need_none_or_name_their_own(run, tmp_path):
    own = publish(tmp_path / "own")
    scratch = {
        "use": "landcover",
        "segment": {"regime": "scratch", "encoder": {"backbone": "small"}},
    }
    named = {"use": "flood", "segment": {"encoder_paths": {"s1": own}}}
    config = run([scratch, named])
    assert not config.needs_pairs
    assert [task.segment.encoder.backbone for task in config.tasks] == ["small", "resnet18"]


def test_a_student_needs_the_pairs(run, tmp_path):
    student = {"use": "flood", "distill": {"teacher": "optical", "num_steps": 3}}
    teacher = {"use": "flood", "name": "optical", "segment": {"sensors": ["s2"]}}
    assert run([teacher, student], encoder=publish(tmp_path / "encoder")).needs_pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "gone"}, r"encoder: '.*gone' is no published encoder: no such folder; check"),
        ({"encoder": "empty"}, r"encoder: '.*empty' is no published encoder: no model card; name"),
        (
            {"encoder": "serving/encoder"},
            r"encoder: '.*encoder' is no .*: no model card; name one version in it, such as "
            r"\S*serving/encoder/10$",
        ),
        (
            {"encoder": "segmenter"},
            r"encoder: .*segmenter must be a published encoder, got a model of segmentation: name",
        ),
        (
            {"encoder": "control"},
            r"encoder: .*control must hold trained encoders, got untrained ones \(objective none\)",
        ),
        (
            {"encoder": "radar"},
            r"tasks\[1\]: needs an encoder of s2, but `encoder` .*radar holds one of s1: name a",
        ),
        (
            {"encoder": {"s1": "radar", "s2": "radar"}},
            r"encoder\.s2: .*radar holds an encoder of s1, not of s2: name the folder of",
        ),
        ({"encoder": {"s3": "radar"}}, r"encoder: must map s1, s2 to folders, got 's3'"),
        ({"encoder": 3}, r"encoder: must be the folder .* or a mapping of s1, s2 to .* got 3"),
        (
            {"encoder": "unfinished"},
            r"encoder: .*s1_encoder.keras: no such weights, but the card names them; copy",
        ),
        (
            {"encoder": "three"},
            r"encoder: .*three: the encoder of s2 takes the bands B2, B3, B4, but the patches "
            r"have B1, .*: set pairs\.patch\.s2_bands .* --bands B1,B2",
        ),
        ({}, r"tasks\[0\]: starts from a pretrained encoder, but the run has neither `encoder`"),
        (
            {"encoder": "both", "pretrain": {"encoder": {"backbone": "small"}, "num_steps": 2}},
            r"encoder and pretrain exclude each other, got both: remove pretrain",
        ),
        ({"encoder": "both", "tasks": []}, r"tasks must hold at least one task in a run without"),
        ({"encoder": "both", "warm_start": True}, r"warm_start must be false in a run without"),
        (
            {"encoder": "both", "claim": CLAIM},
            r"claim compares pretrainings and needs pretrain, got none: .* weights:<folder>",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(run, tmp_path, change, message):
    for number in (9, 10):
        publish(tmp_path / "serving" / "encoder" / str(number))
    publish(tmp_path / "both")
    publish(tmp_path / "radar", ["s1"])
    publish(tmp_path / "segmenter", task="segmentation")
    publish(tmp_path / "control", objective="none")
    publish(
        tmp_path / "three",
        inputs={"s1": {"bands": BANDS["s1"]}, "s2": {"bands": ["B2", "B3", "B4"]}},
    )
    (tmp_path / "empty").mkdir()
    publish(tmp_path / "unfinished")
    (tmp_path / "unfinished" / "assets.extra" / "s1_encoder.keras").unlink()
    with pytest.raises(settings.SettingsError, match=message) as caught:
        run(**{"tasks": ["flood", "landcover"], **change})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/run.yaml: ")


def test_another_architecture_is_refused_and_another_embedding_is_not(run, tmp_path):
    folder = publish(tmp_path / "encoder")
    same = {"backbone": "resnet18", "norm": "group", "embedding_dim": 64}
    config = run([{"use": "flood", "segment": {"encoder": same}}], encoder=folder)
    assert config.tasks[0].segment.encoder.embedding_dim == 64
    with pytest.raises(
        settings.SettingsError,
        match=r"tasks\[0\]\.segment\.encoder must be that of .*encoder, resnet18 with norm group, "
        r"got small with norm group: leave segment\.encoder out",
    ):
        run(
            [{"use": "flood", "segment": {"encoder": same | {"backbone": "small"}}}], encoder=folder
        )


@pytest.mark.parametrize("content", ["{", "{}", '{"inputs": {}, "task": "pretraining"}', "[1]"])
def test_a_damaged_card_is_one_line_with_its_path(run, tmp_path, content):
    card = tmp_path / "encoder" / "assets.extra" / "model_card.json"
    publish(tmp_path / "encoder")
    card.write_text(content)
    with pytest.raises(
        DamagedFileError, match=r"model_card\.json: .*; copy the model back"
    ) as caught:
        run(["flood"], encoder=str(tmp_path / "encoder"))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Root of a run with pairs; encoders are published beside them."""
    root = tmp_path_factory.mktemp("run")
    make_shards.make_version(root / "data" / "pairs", num_patches=6, size_px=16, span=2)
    return root


def test_pairs_of_a_run_are_at_hand_and_those_of_others_are_named(root, tmp_path):
    version = root / "data" / "pairs" / "span-2" / "version-1"
    trained_on = {
        "data_manifest_sha256": manifest.read(version).sha256,
        "data_span": 2,
        "data_version": 1,
    }
    first = publish(root / "serving" / "encoder" / "1", **trained_on)
    moved = publish(tmp_path / "moved", **trained_on, started_from={"s1": first, "s2": first})
    other = publish(
        root / "serving" / "encoder" / "2", **trained_on | {"data_manifest_sha256": "e" * 64}
    )
    public = import_weights(tmp_path / "public", "ssl4eo-s12-s1-moco-resnet50")

    seen = published_encoder.seen_pairs([first, first], with_remote=True)
    assert (seen.versions, seen.unknown) == ((str(version),), ())
    # What a warm start began with has been seen, too.
    warm = published_encoder.seen_pairs([moved], with_remote=True)
    assert warm.versions == (str(version),)
    (reason,) = warm.unknown
    assert reason.startswith(f"{moved}: trained on pairs that are not at hand (manifest ")
    rest = published_encoder.seen_pairs([other, public, "own.keras", "s3://b/e"], with_remote=False)
    assert rest.versions == ()
    assert [reason.partition(":")[0] for reason in rest.unknown] == [
        other,
        public,
        "own.keras",
        "s3",
    ]
    assert json.dumps(rest.unknown).count("manifest eeeeeeeeeeee, span 2, version 1") == 1


def test_all_spans_that_an_encoder_was_trained_on_count_as_seen(tmp_path):
    pairs = tmp_path / "data" / "pairs"
    for span in (1, 2, 3):
        make_spans.make_span(pairs, span)
    window = windows.resolve(pairs, windows.WindowConfig(last=2))
    trained_on = {
        "data_manifest_sha256": windows.read(pairs, window).sha256,
        "data_span": 3,
        "data_version": 1,
        "data_window": settings.to_dict(window),
    }
    folder = publish(tmp_path / "serving" / "encoder" / "1", **trained_on)
    seen = published_encoder.seen_pairs([folder], with_remote=True)
    # Of the first span it saw only what judges the encoder.
    assert seen.versions == tuple(f"{pairs}/span-{span}/version-1" for span in (2, 3))
    assert seen.unknown == ()
    shutil.rmtree(pairs / "span-2")
    seen = published_encoder.seen_pairs([folder], with_remote=True)
    assert seen.versions == (f"{pairs}/span-3/version-1",)
    (reason,) = seen.unknown
    assert "trained on pairs that are not at hand" in reason
