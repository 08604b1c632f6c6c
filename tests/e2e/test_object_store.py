"""Run the whole job with its files on an object store: a loopback S3 server."""

import json

import pytest
import yaml
from repository import REPOSITORY
from run_pipeline import run_pipeline

from beam_jobs.contracts import layout, locations, manifest
from pipeline.config import load_run_config
from pipeline.report.run_record import read_last_run


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_a_run_on_an_object_store_publishes_models_there_and_ends_with_zero(
    s3_environment, s3_folder, tmp_path
):
    import tensorflow as tf

    # Take the smoke run with its first task only, and move its root to the store.
    values = yaml.safe_load((REPOSITORY / "pipeline/configs/smoke.yaml").read_text())
    values |= {
        "root": s3_folder,
        "local_root": str(tmp_path / "local"),
        "tasks": values["tasks"][:1],
    }
    values["probe"]["task"] = "flood"
    path = tmp_path / "store.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_run_config(path, [], {})

    ended = run_pipeline("run", "--config", str(path), **s3_environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "pure virtual" not in ended.stderr
    assert "Traceback" not in ended.stderr

    record = read_last_run(config.metadata_path, config.name)
    assert all(component.is_complete for component in record.components)
    assert record.output("ImportExampleGen-pairs", "examples").uri.startswith(f"{s3_folder}/tfx/")
    assert layout.list_versions(config.pairs_dir) == [(1, 1)]
    written_here = {
        path.relative_to(tmp_path).parts[1]
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    }
    assert written_here == {"metadata.sqlite", "catalogs"}

    for model, data_dir in (
        ("encoder", config.pairs_dir),
        ("flood", config.task_dir(config.tasks[0])),
    ):
        (saved,) = locations.locate(f"{config.serving_dir}/{model}").glob("*/saved_model.pb")
        card = json.loads((saved.parent / "assets.extra" / "model_card.json").read_text())
        assert (
            card["data_manifest_sha256"] == manifest.read(layout.version_dir(data_dir, 1, 1)).sha256
        )
        assert str(saved.parent) in ended.stdout.replace("\n", "").replace(" ", "").replace("│", "")
        signatures = tf.saved_model.load(str(saved.parent)).signatures
        assert set(card["signatures"]) <= set(signatures)
    answer = signatures["serving_default"](s1=tf.fill([1, 32, 32, 2], -15.0))
    assert float(tf.reduce_sum(answer["probabilities"][0, 0, 0])) == pytest.approx(1.0, abs=1e-5)
    picture = locations.locate(f"{config.report_dir}/flood.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

    checked = run_pipeline("serve-check", "--config", str(path), **s3_environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" ok ") == 8
