"""Run the smoke config in a new process, as a newcomer does, and again in this one."""

import json
import os
import re
import shutil

import pytest
import rasterio
from PIL import Image

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts import layout, manifest, windows
from beam_jobs.contracts.locations import copy_file, list_tree, locate
from beam_jobs.contracts.published import versions
from beam_jobs.contracts.settings import read_yaml
from beam_jobs.contracts.windows import WindowConfig
from beam_jobs.errors import RefusedError
from beam_jobs.simulation.simulate import simulate
from components.drift_check import read_report
from pipeline.config import load_run_config
from pipeline.report.run_record import read_last_run
from pipeline.runners.data_jobs import data_jobs
from pipeline.runners.local import compile_nodes, run_local
from pipeline.service.attempts import read_attempts
from tests.data.runs import compiled_tasks
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline, run_pipeline_here
from tests.data.servers import maria_db
from tests.data.shards import make_poison

CONFIG = "pipeline/configs/smoke.yaml"
MODELS = ("encoder", "flood", "landcover")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def first_run(root):
    return run_pipeline("run", "--config", CONFIG, "--set", f"root={root}")


@pytest.fixture(scope="module")
def second_run(first_run, root):
    assert first_run.returncode == 0, first_run.stderr
    return run_pipeline_here("run", "--config", CONFIG, "--set", f"root={root}")


def published(root):
    return {model: list((root / "serving" / model).glob("*/saved_model.pb")) for model in MODELS}


@pytest.mark.e2e
def test_first_run_publishes_three_whole_models_and_shows_them(first_run, root):
    assert first_run.returncode == 0, first_run.stderr
    for model, files in published(root).items():
        (file,) = files
        assets = file.parent / "assets.extra"
        card = json.loads((assets / "model_card.json").read_text())
        assert card["data_manifest_sha256"]
        assert (assets / "tf_serving_warmup_requests").stat().st_size > 0
        assert str(file.parent) in first_run.stdout, model
    for task in ("flood", "landcover"):
        with Image.open(root / "report" / f"{task}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 50
        assert (root / "report" / f"{task}_reliability.png").stat().st_size > 0
        assert f"{task}: scores on the test split" in first_run.stdout
        assert re.search(r"eval split \(\d+ patches\): ", first_run.stdout)
    assert "Traceback" not in first_run.stderr
    # The only warning, once a task: it has less than 100 labelled patches to train on.
    warned = [line for line in first_run.stderr.splitlines() if "WARNING" in line]
    assert len(warned) == 2
    for line in warned:
        assert re.search(r": only \d+ of \d+ labelled patches, in \d+ blocks, reach train", line)


@pytest.mark.e2e
def test_second_run_is_answered_by_the_cache_alone(second_run, root):
    before = published(root)
    assert second_run.returncode == 0, second_run.stderr
    config = load_run_config(REPOSITORY / CONFIG, [f"root={root}"], {})
    record = read_last_run(config.metadata_path, config.name)
    assert [item.component_id for item in record.components if not item.is_cached] == []
    assert len(record.components) == 7 * 3 + 5 + 8 * 2
    assert published(root) == before
    assert all(len(files) == 1 for files in before.values())
    for files in before.values():
        assert str(files[0].parent) in second_run.stdout


def run_node_by_node(config, *options):
    """Run each node of a run by the verb, in the order of the pipeline; return node -> outcome."""
    nodes = compile_nodes(config, config.metadata_path, "order", lambda *_: None).ids
    found = {}
    for node in ("begin", *data_jobs(config), *nodes, "report"):
        ended = run_pipeline_here("node", *options, "--node", node, "--json")
        assert ended.returncode == 0, (node, ended.stdout + ended.stderr)
        found[node] = json.loads(ended.stdout)["outcome"]
    return found


@pytest.mark.e2e
def test_nodes_one_by_one_are_answered_by_the_cache_of_the_whole_run(second_run, root):
    before = published(root)
    settings = ("--config", CONFIG, "--set", f"root={root}", "--run-id", "by-node")
    config = load_run_config(REPOSITORY / CONFIG, [f"root={root}"], {})
    outcomes = run_node_by_node(config, *settings)
    assert (outcomes.pop("begin"), outcomes.pop("report")) == ("done", "published")
    jobs = ["build-pairs", "build-labels-flood", "build-labels-landcover"]
    assert [outcomes.pop(job) for job in jobs] == ["cached"] * 3
    # The same cache keys: what the verb runs is what the whole run ran.
    assert outcomes == dict.fromkeys(outcomes, "cached")
    record = read_last_run(config.metadata_path, config.name, "by-node")
    assert [item.component_id for item in record.components] == list(outcomes)
    assert len(outcomes) == 7 * 3 + 5 + 8 * 2
    assert published(root) == before
    result = json.loads((root / "runs" / "by-node" / "result.json").read_text())
    assert (result["outcome"], result["exit_code"], set(result["nodes"])) == (
        "published",
        0,
        {"begin", *jobs, *outcomes},
    )


@pytest.mark.e2e
def test_retrain_finds_the_work_done_and_then_nothing_new(second_run, root):
    before = published(root)
    settings = ("--config", CONFIG, "--set", f"root={root}")
    # The first attempt does not know whether the newest span was ever trained on.
    first = run_pipeline_here("retrain", *settings)
    assert first.returncode == 0, first.stderr
    second = run_pipeline_here("retrain", *settings)
    assert second.returncode == 5
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert "every scene is in an earlier span" in line
    assert [one.outcome for one in read_attempts(root)] == ["unchanged", "nothing_new"]
    assert published(root) == before


@pytest.mark.e2e
def test_published_models_answer_as_their_keras_models(second_run, root):
    checked = run_pipeline_here("serve-check", "--config", CONFIG, "--set", f"root={root}")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" ok ") == 12
    assert "failed" not in checked.stdout


@pytest.mark.e2e
def test_report_shows_what_the_encoder_was_blessed_for(first_run):
    assert "Encoder probe: blessed" in first_run.stdout
    assert "accuracy_s2_over_random" in first_run.stdout
    assert "no encoder is published yet: nothing to compare with" in first_run.stdout


@pytest.mark.e2e
def test_a_published_version_that_lost_its_weights_is_said(second_run, root):
    (graph,) = published(root)["flood"]
    settings = ("--config", CONFIG, "--set", f"root={root}")
    aside = (graph.parent / "variables").rename(root / "variables")
    try:
        damaged = run_pipeline_here("report", *settings)
    finally:
        aside.rename(graph.parent / "variables")
    assert damaged.returncode == 3, damaged.stderr
    document = json.loads((root / "report" / "report.json").read_text())
    assert document["published"]["flood"] is None
    (line,) = document["refusals"]
    assert line.startswith(f"flood: {graph.parent}: is in service but damaged (")
    assert run_pipeline_here("report", *settings).returncode == 0
    document = json.loads((root / "report" / "report.json").read_text())
    for model, files in published(root).items():
        assert document["published"][model] == str(files[0].parent)
        assert document["training"][model]["canary"]["second_reader"]


@pytest.mark.e2e
def test_refused_encoder_stops_the_run_before_any_segmenter_and_stays_unpublished(second_run, root):
    before = published(root)
    # No encoder can reach this value.
    settings = ["--set", f"root={root}", "--set", "probe.min_recall_over_chance=1000"]
    refused = run_pipeline_here("run", "--config", CONFIG, *settings)
    assert refused.returncode == 4
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: the encoder is refused: recall@1 s1 to s2 among ")
    assert "Traceback" not in refused.stderr

    config = load_run_config(REPOSITORY / CONFIG, [f"root={root}"], {})
    record = read_last_run(config.metadata_path, config.name)
    assert {item.component_id for item in record.components if not item.is_complete} == {
        "EncoderGate"
    }
    ran = {item.component_id for item in record.components}
    assert (
        not {
            f"{kind}-{task}"
            for kind in ("Trainer", "Scorer", "Evaluator", "ChampionGate", "Canary", "Pusher")
            for task in MODELS[1:]
        }
        & ran
    )
    assert record.output("Pusher-encoder", "pushed_model").properties["pushed"] == 0
    assert published(root) == before

    shown = run_pipeline_here("report", "--config", CONFIG, *settings)
    assert shown.returncode == 4
    assert "Encoder probe: refused" in shown.stdout
    assert "no task was trained: the encoder is refused" in shown.stdout


@pytest.fixture
def poisoned_span(second_run, root):
    """Span 2 of the pairs: those of span 1 with doubled decibels; removed afterwards."""
    pairs = root / "data" / "pairs"
    yield make_poison.poison_version(pairs / "span-1" / "version-1", pairs, 2, "doubled")
    shutil.rmtree(pairs / "span-2")


@pytest.mark.e2e
def test_poisoned_pairs_stop_before_any_training(poisoned_span, root):
    before = published(root)
    looked = run_pipeline_here("drift", "--run", str(root), "--span", "2", "--json")
    assert looked.returncode == 4, looked.stderr
    (report,) = json.loads(looked.stdout)["data"]
    assert (report["data"], report["outcome"], report["span"]) == ("pairs", "refused", 2)
    assert report["reference"] == str(published(root)["encoder"][0].parent)
    assert report["score"] > 1.0

    config = load_run_config(REPOSITORY / CONFIG, [f"root={root}"], {})
    # Not `run`, which would build the span again from the scenes, and these are good.
    with pytest.raises(RefusedError) as refused:
        run_local(config, config.metadata_path, lambda _: None, lambda *_: None, lambda *_: None)
    assert refused.value.exit_code == 4
    line = str(refused.value)
    assert line.startswith("pairs: span 2 differs from the data of the model in service")
    assert re.search(r"V[VH]: the .* in the reference: .* of the rule s1_", line)
    record = read_last_run(config.metadata_path, config.name)
    assert {item.component_id for item in record.components if not item.is_complete} == {
        "DriftGate-pairs"
    }
    assert not [item for item in record.components if "Trainer" in item.component_id]
    assert published(root) == before
    # The run found what the verb found.
    checked = read_report(record.output("DriftCheck-pairs", "report").uri)
    assert set(checked.refusals) == set(report["refusals"])

    shown = run_pipeline_here("report", "--config", CONFIG, "--set", f"root={root}")
    assert shown.returncode == 4, shown.stderr
    assert "pairs 2.1: refused, score" in shown.stdout
    assert "nothing was trained: the data are refused: pairs" in shown.stdout
    assert "pairs: span 2.1 was set aside" in shown.stdout
    # A later run with `spans` goes on without it.
    assert f"remove {poisoned_span.parent}, so that the next span takes them" in line
    assert [one.span for one in windows.resolve(config.pairs_dir, WindowConfig())] == [1]


def declare_power(item):
    item["assets"]["data"].update({"terrapair:unit": "power", "nodata": "nan"})


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("spoil", "declare", "why"),
    [
        (lambda pixels: pixels[::-1], None, "the bands seem swapped"),
        (lambda pixels: pixels * 2.0, None, "the median of VH in dB must lie within"),
        (lambda pixels: pixels, declare_power, "negative, as decibels are"),
    ],
)
def test_new_scenes_of_a_wrong_unit_or_order_end_an_attempt_before_a_patch_is_cut(
    second_run, root, tmp_path, spoil, declare, why
):
    before = published(root)
    catalog = simulate(SimulateConfig(num_places=1, num_dates=1, size_px=64, seed=8), tmp_path)
    items = [json.loads(line) for line in catalog.read_text().splitlines()]
    (item,) = [one for one in items if one["properties"]["constellation"] == "sentinel-1"]
    with rasterio.open(tmp_path / item["assets"]["data"]["href"], "r+") as raster:
        raster.write(spoil(raster.read()))
    if declare is not None:
        declare(item)
    catalog.write_text("".join(f"{json.dumps(one)}\n" for one in items))
    shipped = read_yaml(REPOSITORY / CONFIG, "config")["catalogs"]
    catalogs = json.dumps([*shipped, {"layout": "stac", "path": str(catalog)}])
    given = ("--set", f"root={root}", "--set", f"catalogs={catalogs}")
    ended = run_pipeline_here("retrain", "--config", CONFIG, *given)
    assert ended.returncode == 3, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert why in line
    assert "1 of 2 scenes are bad" in line
    assert published(root) == before
    assert layout.list_versions(root / "data" / "pairs") == [(1, 1)]
    assert read_attempts(root)[-1].outcome == "failed"


@pytest.mark.e2e
def test_model_below_its_threshold_is_held_back_with_a_reason(second_run, root):
    raised = run_pipeline_here(
        "run", "--config", CONFIG, "--set", f"root={root}", "--set", "tasks.1.min_mean_iou=0.999"
    )
    assert raised.returncode == 4
    assert "landcover: not published: mean_iou is 0." in raised.stdout
    assert "the config asks for at least 0.999" in raised.stdout
    # The model that was published before stays in service.
    assert all(len(files) == 1 for files in published(root).values())


@pytest.mark.e2e
def test_a_task_starts_from_the_published_encoder_without_pairs_and_gate(first_run, root, tmp_path):
    (encoder,) = versions(root / "serving" / "encoder")
    task = "use: flood, quality: null, segment: {num_steps: 2, global_batch_size: 8, "
    scenes = root / "catalogs" / "0" / "simulated" / "items.ndjson"
    overrides = [
        f"root={tmp_path}",
        "pretrain=null",
        f"encoder={encoder}",
        f"tasks=[{{min_mean_iou: 0.001, {task}loss: {{class_weights: {{}}}}}}}}]",
        f"catalogs=[{{layout: stac, path: {scenes}}}]",
    ]
    settings = [item for override in overrides for item in ("--set", override)]
    for attempt in range(2):
        finished = run_pipeline_here("run", "--config", CONFIG, *settings)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        config = load_run_config(REPOSITORY / CONFIG, overrides, {})
        components = read_last_run(config.metadata_path, config.name).components
        assert {item.component_id.removesuffix("-flood") for item in components} == {
            *("ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator"),
            *("DataManifest", "DriftCheck", "DriftGate", "OverlapAudit", "OverlapGate"),
            *("Trainer", "Scorer", "Evaluator", "ChampionGate", "Canary", "Pusher"),
        }
        assert all(item.is_cached == bool(attempt) for item in components)
    assert os.listdir(tmp_path / "data") == ["flood"]
    (card_path,) = (tmp_path / "serving").glob("*/*/assets.extra/model_card.json")
    assert json.loads(card_path.read_text())["started_from"] == {"s1": str(encoder)}
    # The pairs of the encoder are at hand, so the audit compares the labels with them.
    assert re.search(r"flood: \d+ unlabeled train patches, \d+ .*: no overlap", finished.stdout)
    assert "Encoder probe" not in finished.stdout


def run_tasks(path, run_id, folder, **parameters):
    """Run the tasks of a compiled pipeline; return node -> outcome, and the last exit code."""
    found = {}
    for task in compiled_tasks.tasks(path, run_id, folder, **parameters):
        program, *arguments = task.command
        assert program == "terrapair"
        ended = run_pipeline_here(*arguments)
        assert ended.returncode == 0 or task.node == "report", (task.node, ended.stderr)
        assert maria_db.PASSWORD not in ended.stdout + ended.stderr
        found[task.node] = task.outcome_file.read_text()
    return found, ended.returncode


@pytest.mark.e2e
def test_compiled_tasks_publish_on_a_store_with_metadata_in_a_real_database(
    first_run, root, tmp_path, s3_folder, monkeypatch
):
    (encoder,) = versions(root / "serving" / "encoder")
    scenes = root / "catalogs" / "0" / "simulated"
    for folder, target in ((encoder, "encoder/1"), (scenes, "scenes")):
        for file in folder.rglob("*"):
            if file.is_file():
                copy_file(file, f"{s3_folder}/{target}/{file.relative_to(folder)}")
    task = "use: flood, quality: null, segment: {num_steps: 2, global_batch_size: 8, "
    secret = "{name: db, env: {password: TERRAPAIR_METADATA_PASSWORD}}"
    with maria_db.running(tmp_path) as server:
        overrides = [
            f"root={s3_folder}/run",
            "pretrain=null",
            f"encoder={s3_folder}/encoder/1",
            f"catalogs=[{{layout: stac, path: {s3_folder}/scenes/items.ndjson}}]",
            f"tasks=[{{min_mean_iou: 0.001, {task}loss: {{class_weights: {{}}}}}}}}]",
            f"metadata={{host: 127.0.0.1, port: {server.port}, user: {maria_db.USER}}}",
            "container_image=registry.example/terrapair:1",
            f"kubeflow.pods.default.secrets=[{secret}]",
        ]
        settings = ["--config", CONFIG, *(part for one in overrides for part in ("--set", one))]
        file = tmp_path / "run.yaml"
        compiled = run_pipeline_here("compile", *settings, "--output", str(file))
        assert compiled.returncode == 0, compiled.stderr
        unset = run_pipeline_here("node", *settings, "--run-id", "one", "--node", "begin")
        assert unset.returncode == 2
        assert "TERRAPAIR_METADATA_PASSWORD: must hold the password of terrapair" in unset.stderr

        monkeypatch.setenv("TERRAPAIR_METADATA_PASSWORD", maria_db.PASSWORD)
        serving = locate(f"{s3_folder}/run/serving/flood")
        found, code = run_tasks(file, "one", tmp_path / "outcomes")
        assert (found.pop("begin"), found.pop("report"), code) == ("done", "published", 0)
        # There is no audit: the pairs of the encoder are not beside it.
        assert len(found) == 1 + 7 + 6
        assert found == dict.fromkeys(found, "done")
        (version,) = versions(serving)
        # Built from the store, the shards are those that the whole run built here.
        built, here = (
            manifest.read(layout.version_dir(folder, 1, 1)).shards
            for folder in (f"{s3_folder}/run/data/flood", root / "data" / "flood")
        )
        assert built == here
        # A threshold that no model reaches: every task ends well, and the last one tells it.
        found, code = run_tasks(
            file, "two", tmp_path / "outcomes", thresholds={"flood": {"min_mean_iou": 0.999}}
        )
        assert (found["build-labels-flood"], found["report"], code) == ("cached", "refused", 4)
        assert set(found.values()) == {"done", "cached", "refused"}
        assert versions(serving) == [version]
        result = json.loads(locate(f"{s3_folder}/run/runs/two/result.json").read_text())
        assert result["outcome"] == "refused"
        assert "the config asks for at least 0.999" in " ".join(result["reasons"])
        # A month without a new scene: nothing is trained, and the run ends well.
        found, code = run_tasks(
            file, "three", tmp_path / "outcomes", overrides=["data.new_span=true"]
        )
        assert (found.pop("begin"), found.pop("report"), code) == ("done", "nothing_new", 0)
        assert found.pop("build-labels-flood") == "nothing_new"
        assert found == dict.fromkeys(found, "skipped")
        result = json.loads(locate(f"{s3_folder}/run/runs/three/result.json").read_text())
        assert result["exit_code"] == 5
        assert "every scene is in an earlier span" in result["reasons"][0]
        shown = run_pipeline_here("history", "--run", f"{s3_folder}/run")
        assert shown.returncode == 0, shown.stderr
    run = locate(f"{s3_folder}/run")
    kept = list_tree(run)
    assert len(kept) > 50
    assert not [name for name in kept if maria_db.PASSWORD.encode() in (run / name).read_bytes()]
