import io
import json
import os
import shutil

import make_shards
import make_unet
import model_server
import pytest
import yaml
from rich.console import Console

from beam_jobs.errors import DataError
from beam_jobs.predict import remote
from beam_jobs.predict.endpoints import Endpoint
from beam_jobs.terminal import program
from models.published import export, warmup
from pipeline.serving import check, probe

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two segmenters of one architecture with different weights."""
    version = make_shards.make_version(
        tmp_path_factory.mktemp("data"), kind="labels", label_schema="water", num_patches=4
    )
    folders = [tmp_path_factory.mktemp(f"model{seed}") for seed in (1, 2)]
    for seed, folder in enumerate(folders, 1):
        make_unet.publish(folder, version, seed=seed)
    return folders


def test_a_server_of_serve_config_replays_the_warm_up_requests(exported, tmp_path):
    run, output = tmp_path / "run", tmp_path / "server"
    shutil.copytree(exported[0], run / "serving/flood/7")
    serving = str(run / "serving")
    arguments = ("--run", str(run), "--models-uri", serving, "--output", str(output))
    assert program.run(["serve-config", *arguments, "--batching"]) == 0
    # The stand-in refuses flags that the server does not have.
    compose = yaml.safe_load((output / "compose.yaml").read_text())
    command = [
        one.replace("/etc/terrapair", str(output / "config"))
        for one in compose["services"]["serving"]["command"]
    ]
    (server,) = model_server.read_config(model_server.parse(command).model_config_file)
    assert server.models[7].warmed == ["serving_default", "serve_examples"]
    with model_server.serving_rest(server) as host:
        labelled = Endpoint(host=host, model="flood", label="stable", protocol="rest")
        endpoint = remote.pinned(labelled)
        remote.check(endpoint, remote.find_card(endpoint, f"{serving}/flood"))


def test_a_warm_up_request_that_fails_keeps_the_model_from_being_loaded(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path / "8")
    warmup.write_encoder_requests(str(tmp_path / "8/assets.extra"), "flood", {"s1": 2}, 16)
    with pytest.raises(ValueError, match='name: "embed_s1" not found in signature def'):
        model_server.LoadedModel(str(tmp_path / "8"))


def test_tampered_model_fails(exported, tmp_path):
    first, second = exported
    serving = tmp_path / "serving"
    tampered = serving / "flood" / "1"
    shutil.copytree(first, tampered)
    shutil.copy(second / "assets.extra" / "model.keras", tampered / "assets.extra" / "model.keras")
    results = check.check_published(serving, os.environ)
    assert {(result.model, result.version) for result in results} == {("flood", "1")}
    assert not any(result.is_ok for result in results)
    assert all(result.difference > result.tolerance for result in results)
    console = Console(file=io.StringIO(), width=160)
    console.print(check.render(results))
    assert console.file.getvalue().count("failed") == len(results)


def test_model_whose_process_dies_fails_with_its_last_words(exported, tmp_path, monkeypatch):
    shutil.copytree(exported[0], tmp_path / "flood" / "1")
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho first >&2\necho out of memory >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(dying))
    (result,) = check.check_published(tmp_path, os.environ)
    assert (result.error, result.is_ok) == ("out of memory", False)


def test_untouched_model_passes_on_every_signature_and_size(exported):
    answer = json.loads(probe.probe(str(exported[0])))
    assert {item["signature"] for item in answer} == set(export.SEGMENTER_SIGNATURES)
    assert len({str(item["input_shapes"]) for item in answer}) >= 2
    assert all(item["max_abs_difference"] <= item["tolerance"] for item in answer)


def test_empty_serving_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no published model"):
        check.check_published(tmp_path, os.environ)
