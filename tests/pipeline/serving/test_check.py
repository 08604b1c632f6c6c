"""Published models as a server sees them: checked, served, and rolled back meanwhile."""

import contextlib
import io
import json
import os
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from beam_jobs.contracts import published
from beam_jobs.errors import DataError
from beam_jobs.predict.remote_models import remote
from beam_jobs.predict.remote_models.endpoints import Endpoint
from beam_jobs.terminal import program
from models.published import export, warmup
from models.publishing.publication import Approval, publish
from models.publishing.rollback import Steps, roll_back
from pipeline.serving import check, following, probe
from tests.data.networks import make_unet
from tests.data.servers import model_server
from tests.data.shards import make_shards

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


def test_versions_share_a_process_until_one_of_them_ends_it(tmp_path, monkeypatch):
    versions = [tmp_path / "flood" / str(number) for number in range(4)]
    for version in versions:
        version.mkdir(parents=True)
    (versions[1] / "dies").touch()
    # It answers each folder in turn, as `pipeline.serving.probe` does.
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho start >> "$0.log"\nshift 2\nfor folder in "$@"; do\n'
        '  if [ -e "$folder/dies" ]; then echo out of memory >&2; exit 3; fi\n'
        f"  echo noise; echo '{probe.ANSWER}{json.dumps([COMPARISON])}'\ndone\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(program))
    results = check.check_versions(versions, os.environ)
    assert [(one.version, one.error, one.is_ok) for one in results] == [
        ("0", "", True),
        ("1", "out of memory", False),
        ("2", "", True),
        ("3", "", True),
    ]
    assert results[0].inputs == "s1 2\N{MULTIPLICATION SIGN}32"
    assert (tmp_path / "python.log").read_text().count("start") == 2


COMPARISON = {
    "signature": "serving_default",
    "input_shapes": {"s1": [2, 32]},
    "output_shapes": {},
    "max_abs_difference": 0.0,
    "tolerance": 1e-4,
}


def test_untouched_model_passes_on_every_signature_and_size(exported):
    answer = json.loads(probe.probe(str(exported[0])))
    assert {item["signature"] for item in answer} == set(export.SEGMENTER_SIGNATURES)
    assert len({str(item["input_shapes"]) for item in answer}) >= 2
    assert all(item["max_abs_difference"] <= item["tolerance"] for item in answer)


def test_empty_serving_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no published model"):
        check.check_published(tmp_path, os.environ)


class Client(threading.Thread):
    """Asks a server for `stable`, or for the newest version, again and again.

    Attributes:
        answers: (phase, version that answered, probabilities) of each request that
            began and ended in one phase.
        failures: what went wrong instead.
        phase: set by the test.
    """

    def __init__(self, host, label):
        super().__init__(daemon=True)
        self.answers, self.failures, self.phase = [], [], "before"
        self._host, self._label, self._ended = host, label, threading.Event()

    def run(self):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.version_label = "flood", self._label
        pixels = np.random.default_rng(0).normal(-15, 5, (1, 32, 32, 2)).astype(np.float32)
        request.inputs["s1"].CopyFrom(tf.make_tensor_proto(pixels))
        with grpc.insecure_channel(self._host) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._ended.wait(0.02):
                phase = self.phase
                try:
                    answer = stub.Predict(request, timeout=60)
                except grpc.RpcError as error:
                    self.failures.append(f"{phase}: {error.details()}")
                    continue
                if phase == self.phase:
                    values = tf.make_ndarray(answer.outputs["probabilities"])
                    self.answers.append((phase, answer.model_spec.version.value, values))

    def enter(self, phase):
        """Begin a phase, and wait until five requests were answered in it."""
        self.phase = phase
        deadline = time.monotonic() + 60
        while sum(one == phase for one, *_ in self.answers) < 5:
            assert time.monotonic() < deadline, self.failures
            time.sleep(0.01)

    def end(self):
        self._ended.set()
        self.join()

    def versions(self, phase):
        return {version for one, version, _ in self.answers if one == phase}


@contextlib.contextmanager
def asking(followed, label):
    with model_server.serving_grpc(*followed.servers) as host:
        client = Client(host, label)
        client.start()
        try:
            yield client
        finally:
            client.end()


def test_requests_go_on_while_a_rollback_moves_the_label(exported, tmp_path, capsys):
    base = tmp_path / "run/serving/flood"
    for position in (0, 1):
        publish(exported[position], str(base), Approval(reason="drill"))
    run = ("--run", str(tmp_path / "run"))
    serving = ("--models-uri", str(base.parent), "--output", str(tmp_path / "run/server"))
    assert program.run(["serve-config", *run, *serving]) == 0
    followed = model_server.Followed(str(tmp_path / "run/server/config/models.config"))
    rollback = ["rollback", *run, "--model", "flood", "--reason", "drill", "--to"]
    with asking(followed, "stable") as client:
        client.enter("before")
        # A new version comes into service while the server holds the other one only.
        third = shutil.copytree(exported[0], tmp_path / "third")
        (third / "assets.extra/note.txt").write_text("the same model, with a note")
        publish(str(third), str(base), Approval(reason="drill"))
        following.follow_all(str(tmp_path / "run"), str(base.parent))
        followed.poll_config()
        client.enter("the third version is not loaded yet")
        client.phase = "polling"
        followed.poll_folders()
        followed.poll_config()
        client.enter("published")
        # A version that lost its weights is no target: nothing changes.
        shutil.rmtree(base / "2/variables")
        assert program.run([*rollback, "2"]) == 4
        assert published.in_service(base).name == "3"
        assert program.run([*rollback, "1"]) == 0
        client.enter("the server has not looked yet")
        client.phase = "polling"
        followed.poll_folders()
        followed.poll_config()
        client.enter("after")
    assert client.failures == []
    assert client.versions("before") == {2}
    assert client.versions("the third version is not loaded yet") == {2}
    assert client.versions("published") == client.versions("the server has not looked yet") == {3}
    assert client.versions("after") == {1}
    assert len(followed.refused) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert line.startswith(f"error: {base}/2: cannot be served, so nothing was changed; name ")
    assert f"{base}/2/variables" in line
    (first,), (second,) = (
        {values.tobytes() for _, version, values in client.answers if version == number}
        for number in (1, 2)
    )
    assert first != second


def test_requests_go_on_where_a_server_takes_the_largest_number(exported, tmp_path):
    base = tmp_path / "run/serving/flood"
    for position in (0, 1):
        publish(exported[position], str(base), Approval(reason="drill"))
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "flood" base_path: "{base}" }} }}')
    followed = model_server.Followed(str(config))
    steps = Steps(check=lambda _: None, follow=lambda: None, withdraw=True)
    with asking(followed, "") as client:
        client.enter("before")
        # Somebody copies a version by hand, and has not come far.
        (base / "3/assets.extra").mkdir(parents=True)
        followed.poll_folders()
        client.enter("half a version")
        roll_back(base, 1, "drill", steps)
        client.enter("the server has not looked yet")
        client.phase = "polling"
        followed.poll_folders()
        client.enter("after")
    assert client.failures == []
    for phase in ("before", "half a version", "the server has not looked yet"):
        assert client.versions(phase) == {2}
    assert client.versions("after") == {1}
