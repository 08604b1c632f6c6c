"""Maps by a model behind a server: the same as by the model itself, or one line."""

import hashlib
import http.server
import json
import shutil
import socketserver
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.errors import DataError
from beam_jobs.predict import driver, segmenters
from beam_jobs.predict.remote_models import endpoints, remote
from beam_jobs.predict.remote_models.endpoints import Endpoint
from beam_jobs.terminal import program
from pipeline.serving import server_files
from pipeline.serving.server_files import ServedModel
from tests.data.networks import make_segmenter
from tests.data.servers import certificates, model_server
from tests.data.servers.model_server import ModelServer, serving, serving_grpc, serving_rest

STAND_INS = {"grpc": serving_grpc, "rest": serving_rest}
PROTOCOLS = pytest.mark.parametrize("protocol", STAND_INS)


@pytest.fixture(scope="module")
def server(flood):
    return ModelServer(
        name="flood",
        paths={3: f"{flood}/3", 12: f"{flood}/12"},
        labels={"stable": 12, "old": 3},
    )


@pytest.fixture(autouse=True)
def quick(server, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES_SECONDS", (0.02, 0.1))
    server.num_busy, server.token, server.seconds, server.most_at_once = 0, "", 0.0, 0
    server.loading.clear()
    server.shapes.clear()


@pytest.fixture(scope="module")
def segmenter(flood):
    return segmenters.find(flood)


def windows(batch=3, side=32):
    pixels = np.random.default_rng(0).normal(-15, 5, (batch, side, side, 2))
    pixels[0, :7, :9] = np.nan
    return {"s1": pixels.astype(np.float32)}


def endpoint_at(host, **options):
    return Endpoint(**{"host": host, "model": "flood", "retry_seconds": 1.0, **options})


def assert_is_local(found, segmenter, pixels):
    expected = segmenters.load(segmenter)(pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=model_server.TOLERANCE)


@PROTOCOLS
def test_a_server_answers_as_the_model_itself(server, segmenter, protocol):
    with serving(server, protocol) as host:
        for named in ({}, {"label": "stable"}, {"version": 12}):
            endpoint = endpoint_at(host, protocol=protocol, **named)
            remote.check(endpoint, segmenter)
            assert_is_local(remote.connect(endpoint, segmenter)(windows()), segmenter, windows())


def test_a_batch_is_sent_in_requests_of_bounded_size(server, segmenter):
    pixels = windows(batch=7)
    with serving_grpc(server) as host:
        two = 2 * 32 * 32 * 2 * 4 / (1 << 20)
        found = remote.connect(endpoint_at(host, max_request_mib=two), segmenter)(pixels)
        assert sorted(shape[0] for shape in server.shapes) == [1, 2, 2, 2]
        assert_is_local(found, segmenter, pixels)
        # An answer of four classes is twice as large as its request of two bands.
        server.shapes.clear()
        many = replace(segmenter, classes=segmenter.classes * 2)
        with pytest.raises(DataError, match=r"with the shape \(1, 32, 32, 2\), the card asks for"):
            remote.connect(endpoint_at(host, max_request_mib=two), many)(pixels)
    assert {shape[0] for shape in server.shapes} == {1}


@pytest.mark.parametrize("most", [1, 3])
def test_requests_under_way_are_bounded_for_all_threads_of_a_process(server, segmenter, most):
    server.seconds = 0.05
    with serving_grpc(server) as host:
        endpoint = endpoint_at(host, max_in_flight=most, max_request_mib=1e-3)
        send = remote.connect(endpoint, segmenter)
        threads = [threading.Thread(target=send, args=(windows(4),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.shapes) == 12
    assert server.most_at_once == most


def test_answers_larger_than_the_default_of_grpc_arrive(server, segmenter):
    with serving(server) as host:
        found = remote.connect(endpoint_at(host), segmenter)(windows(1, 1024))
    assert found.nbytes > 4 << 20


@PROTOCOLS
def test_a_request_above_the_servers_limit_is_one_line_with_the_cure(server, segmenter, protocol):
    limit = 40_000 if protocol == "grpc" else 100_000
    with STAND_INS[protocol](server, max_request_bytes=limit) as host:
        endpoint = endpoint_at(host, protocol=protocol)
        with pytest.raises(
            DataError, match=r"of 9 windows and 0.1 MiB .*: use a smaller --max-request-mib"
        ) as caught:
            remote.connect(endpoint, segmenter)(windows(9))
        assert caught.value.exit_code == 2
        # One window alone is too large as well.
        with pytest.raises(
            DataError, match=r"larger? .*smaller windows \(--set window.size_px, now 128\)"
        ):
            remote.connect(endpoint, segmenter)(windows(1, 128))
        small = replace(endpoint, max_request_mib=0.01)
        assert_is_local(remote.connect(small, segmenter)(windows(9)), segmenter, windows(9))


@PROTOCOLS
def test_a_busy_server_is_asked_again(server, segmenter, protocol):
    with STAND_INS[protocol](server) as host:
        server.num_busy = 4
        endpoint = endpoint_at(host, protocol=protocol, retry_seconds=20)
        assert_is_local(remote.connect(endpoint, segmenter)(windows()), segmenter, windows())
        server.num_busy = 10**6
        endpoint = replace(endpoint, retry_seconds=0.3)
        with pytest.raises(DataError, match=r"no answer in \d+ tries .*queue .* full") as caught:
            remote.connect(endpoint, segmenter)(windows())
    assert 10**6 - 50 < server.num_busy < 10**6 - 3
    assert caught.value.exit_code == 1


def test_pauses_grow_to_a_longest_one_and_end_with_the_time(monkeypatch):
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    def refuse():
        raise endpoints.BusyError("queue is full")

    monkeypatch.setattr(remote, "_PAUSES_SECONDS", (0.5, 8.0))
    monkeypatch.setattr(remote.time, "sleep", sleep)
    monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])
    with pytest.raises(DataError, match=r"no answer in .* tries and 60 s"):
        remote._retried(endpoint_at("h:1", retry_seconds=60.0), refuse)
    assert sum(pauses) == pytest.approx(60.0)
    for pause, longest in zip(pauses[:-1], [0.5, 1, 2, 4, *[8] * 99], strict=False):
        assert longest / 2 <= pause <= longest


@PROTOCOLS
def test_a_slow_server_is_one_line_with_the_cure(server, segmenter, protocol):
    with STAND_INS[protocol](server) as host:
        server.seconds = 1.0
        endpoint = endpoint_at(host, protocol=protocol, timeout_seconds=0.2, retry_seconds=60)
        with pytest.raises(DataError, match=r"no answer within 0.2 s: raise --timeout") as caught:
            remote.connect(endpoint, segmenter)(windows())
    assert caught.value.exit_code == 1
    # It was not asked again.
    assert server.num_busy == -1


@PROTOCOLS
def test_nothing_is_lost_when_the_server_goes_and_comes_back(server, segmenter, protocol):
    with STAND_INS[protocol](server) as host:
        send = remote.connect(endpoint_at(host, protocol=protocol, retry_seconds=20), segmenter)
        expected = send(windows())

    def come_back():
        time.sleep(0.5)
        with STAND_INS[protocol](server, port=int(host.rpartition(":")[2])):
            finished.wait(20)

    finished = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        np.testing.assert_array_equal(send(windows()), expected)
    finally:
        finished.set()
        thread.join()


@contextmanager
def answering(*answers):
    """Serve HTTP with given bytes on the wire, one after the other, and yield the host."""
    left = list(answers)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            line = self.rfile.readline()
            length = 0
            while (header := self.rfile.readline().strip()) and line:
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            self.wfile.write(left.pop(0) if len(left) > 1 else left[0])

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_body_that_nobody_reads_is_named(segmenter):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{running.server_address[1]}"
        endpoint = endpoint_at(host, protocol="rest", retry_seconds=0)
        with pytest.raises(DataError, match=r"if 1\d MiB are above a limit: a smaller --max"):
            remote.connect(endpoint, segmenter)(windows(1, 512))
        running.shutdown()


def response(body, code="200 OK", length=None):
    return f"HTTP/1.0 {code}\r\nContent-Length: {length or len(body)}\r\n\r\n{body}".encode()


def test_an_answer_that_breaks_off_is_asked_for_again(segmenter):
    pixels = {"s1": np.zeros([1, 4, 4, 2], np.float32)}
    row = {"probabilities": np.full([4, 4, 2], 0.5).tolist(), "label": [[0] * 4] * 4}
    whole = json.dumps({"predictions": [row]})
    with answering(b"", response(whole[:40], length=len(whole)), response(whole)) as host:
        endpoint = endpoint_at(host, protocol="rest", retry_seconds=20)
        found = remote.connect(endpoint, segmenter)(pixels)
    np.testing.assert_array_equal(found, np.full([1, 4, 4, 2], 0.5))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (response("<html>hello"), "it answers no JSON: <html>hello"),
        (response('{"name": "flood"}'), "it describes no model"),
        (response("gone", code="504 Gateway Timeout"), "no answer within 60 s"),
        (response("no", code="403 Forbidden"), f"set {endpoints.TOKEN_VARIABLE}"),
        (
            b"\x00\x00\x12\x04 no http",
            "no answer in .*BadStatusLine.* another --host",
        ),
    ],
)
def test_what_is_no_model_server_is_one_line(segmenter, answer, why):
    with answering(answer) as host, pytest.raises(DataError, match=why):
        remote.check(endpoint_at(host, protocol="rest", retry_seconds=0.1), segmenter)


@PROTOCOLS
@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"model": "snow"}, r"request: Latest\(snow\).*; versions on the server: none"),
        (
            {"version": 7},
            r"\(7\): the server refuses \(.*Specific\(flood, 7\).*; versions on the server: "
            "3 AVAILABLE, 12 AVAILABLE",
        ),
        ({"label": "canary"}, r"\(canary\): the server refuses .*version label: canary"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(server, segmenter, protocol, named, why):
    with serving(server, protocol) as host:
        endpoint = endpoint_at(host, **{"protocol": protocol, **named})
        with pytest.raises(DataError, match=why) as caught:
            remote.check(endpoint, segmenter)
    assert caught.value.exit_code == 3


@PROTOCOLS
def test_a_model_that_is_loading_is_waited_for(server, segmenter, protocol):
    server.loading |= {3, 12}
    with STAND_INS[protocol](server) as host:
        endpoint = endpoint_at(host, protocol=protocol, retry_seconds=0.2)
        with pytest.raises(DataError, match=r"no answer in .*: 3 LOADING, 12 LOADING") as caught:
            remote.check(endpoint, segmenter)
        assert caught.value.exit_code == 1
        threading.Timer(0.4, server.loading.clear).start()
        remote.check(replace(endpoint, retry_seconds=20), segmenter)


@PROTOCOLS
def test_a_version_that_goes_during_a_run_is_one_line(server, segmenter, protocol):
    with STAND_INS[protocol](server) as host:
        endpoint = endpoint_at(host, protocol=protocol, version=12)
        send = remote.connect(endpoint, segmenter)
        send(windows())
        path = server.models.pop(12)
        try:
            with pytest.raises(DataError, match=r"\(12\): .* versions on the server: 3 AVAILABLE"):
                send(windows())
        finally:
            server.models[12] = path


@PROTOCOLS
def test_a_label_is_asked_once_and_the_run_stays_with_its_version(server, flood, protocol):
    with STAND_INS[protocol](server) as host:
        endpoint = remote.pinned(endpoint_at(host, protocol=protocol, label="old"))
        assert (endpoint.label, endpoint.version) == ("", 3)
        # The card of the version that answers, not the newest one.
        assert remote.find_card(endpoint, flood).path == f"{flood}/3"
        assert remote.find_card(endpoint, f"{flood}/3").version == "3"
        with pytest.raises(
            DataError, match=r"is version 12 itself, but --version is 3: .* .the server answers"
        ):
            remote.find_card(endpoint, f"{flood}/12")


def test_a_copy_of_a_card_serves_any_version(flood, server, tmp_path):
    shutil.copytree(Path(flood) / "12" / "assets.extra", tmp_path / "card/assets.extra")
    with serving_grpc(server) as host:
        endpoint = remote.pinned(endpoint_at(host))
        found = remote.find_card(endpoint, str(tmp_path / "card"))
        assert found.bands == {"s1": S1_DEFAULT_BANDS}
        remote.check(endpoint, found)


@PROTOCOLS
def test_a_card_of_another_model_is_refused(server, segmenter, protocol):
    with serving(server, protocol) as host:
        endpoint = endpoint_at(host, label="old", protocol=protocol)
        with pytest.raises(DataError, match="takes s1 of 1 bands, but the card names s1 of 2"):
            remote.check(endpoint, segmenter)
        endpoint = replace(endpoint, label="")
        three = replace(segmenter, classes=segmenter.classes[:1])
        with pytest.raises(DataError, match="tells 2 classes apart, but the card names 1"):
            remote.check(endpoint, three)
        with pytest.raises(DataError, match="is version 12, but the card names 7"):
            remote.check(endpoint, replace(segmenter, version="7"))


@PROTOCOLS
def test_a_model_of_another_task_is_refused(segmenter, tmp_path, protocol):
    path = make_segmenter.publish_encoder(tmp_path / "1", S1_DEFAULT_BANDS)
    with serving(ModelServer(name="flood", paths={1: path}), protocol) as host:
        endpoint = endpoint_at(host, protocol=protocol)
        with pytest.raises(DataError, match=r"must be a segmenter, .* of this model: embed_s1"):
            remote.check(endpoint, segmenter)


@PROTOCOLS
def test_a_token_comes_from_the_environment(server, segmenter, protocol, monkeypatch):
    server.token = "secret"
    with STAND_INS[protocol](server) as host:
        endpoint = endpoint_at(host, protocol=protocol)
        with pytest.raises(
            DataError, match=r"no token.*: set TERRAPAIR_SERVING_TOKEN to a valid"
        ) as caught:
            remote.check(endpoint, segmenter)
        assert caught.value.exit_code == 2
        monkeypatch.setenv(endpoints.TOKEN_VARIABLE, "secret")
        remote.check(endpoint, segmenter)


@pytest.fixture(scope="module")
def authority():
    return certificates.make()


@PROTOCOLS
def test_an_encrypted_server_is_asked_with_its_own_authority(
    server, segmenter, protocol, authority, tmp_path, monkeypatch
):
    trusted, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    trusted.write_bytes(authority.authority)
    other.write_bytes(certificates.make().authority)
    server.token = "secret"
    monkeypatch.setenv(endpoints.TOKEN_VARIABLE, "secret")
    pair = (authority.key, authority.certificate)
    with STAND_INS[protocol](server, certificate=pair) as host:
        endpoint = endpoint_at(
            host, protocol=protocol, is_encrypted=True, ca_file=str(trusted), retry_seconds=20
        )
        remote.check(endpoint, segmenter)
        assert_is_local(remote.connect(endpoint, segmenter)(windows()), segmenter, windows())
        for ca_file in ("", str(other)):
            with pytest.raises(DataError, match=r"no encrypted connection .*--ca-file") as caught:
                remote.check(replace(endpoint, ca_file=ca_file), segmenter)
            assert caught.value.exit_code == 2
        plain = replace(endpoint, is_encrypted=False, ca_file="", retry_seconds=0.1)
        with pytest.raises(DataError, match="add --tls if it encrypts"):
            remote.check(plain, segmenter)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_one_line(segmenter, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    endpoint = endpoint_at("127.0.0.1:1", is_encrypted=True, ca_file=str(path))
    with pytest.raises(DataError, match=r"must hold certificates as PEM.*another --ca-file"):
        remote.check(endpoint, segmenter)


@contextmanager
def kserve_stand_in(answer):
    """Serve version 1 of KServe's protocol; `answer` makes an answer of a request.

    KServe's own server is in tests/peers.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, code, content):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def do_GET(self):
            known = self.path == "/v1/models/flood"
            self.reply(
                200 if known else 404,
                {"name": "flood", "ready": True} if known else {"detail": "Not Found"},
            )

        def do_POST(self):
            assert self.path == "/v1/models/flood:predict"
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.reply(200, answer(json.loads(text, parse_constant=pytest.fail)))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def test_kserve_takes_rows_without_the_word_nan(segmenter):
    def answer(body):
        assert set(body) == {"instances"}
        pixels = np.array([row["s1"] for row in body["instances"]], np.float32)
        found = segmenters.load(segmenter)({"s1": pixels})
        return {"predictions": [{"probabilities": one.tolist()} for one in found]}

    with kserve_stand_in(answer) as host:
        endpoint = remote.pinned(endpoint_at(host, protocol="kserve"))
        remote.check(endpoint, segmenter)
        assert_is_local(remote.connect(endpoint, segmenter)(windows()), segmenter, windows())
        with pytest.raises(DataError, match="HTTP 404"):
            remote.check(replace(endpoint, model="snow"), segmenter)
    with (
        kserve_stand_in(lambda _: {"predictions": [[1.0]]}) as host,
        pytest.raises(DataError, match=r"with the shape \(1, 1\), the card asks for"),
    ):
        remote.connect(endpoint_at(host, protocol="kserve"), segmenter)(windows())


def rasters(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).glob("*/*.tif"))
    }


SMALL_WINDOWS = (
    *("--set", "window.size_px=48", "--set", "window.margin_px=8", "--set", "window.blend_px=4"),
    *("--set", "part_height_px=56", "--set", "part_width_px=56"),
)


def predict_remote(host, flood, scenes, output, *options):
    return program.run(
        [
            *("predict-remote", "--host", host, "--model", "flood", "--card", flood),
            *("--scenes", str(scenes), "--output", output, "--json"),
            *SMALL_WINDOWS,
            *options,
        ]
    )


@pytest.fixture(scope="module")
def local_maps(simulated, flood, tmp_path_factory):
    """Return the hashes of the maps that the model itself makes."""
    folder = tmp_path_factory.mktemp("here")
    arguments = ("--model", flood, "--scenes", str(simulated), "--output", str(folder))
    assert program.run(["predict", *arguments, *SMALL_WINDOWS, "--json"]) == 0
    assert len(rasters(folder)) == 6 * 3
    return rasters(folder)


def test_maps_are_those_of_the_local_model(simulated, flood, server, local_maps, tmp_path, capsys):
    with serving(server) as host:
        server.num_busy = 3
        code = predict_remote(host, flood, simulated, str(tmp_path), "--label", "stable")
    assert code == 0, capsys.readouterr().err
    assert rasters(tmp_path) == local_maps


@pytest.mark.e2e
def test_a_server_that_is_killed_and_started_again_loses_nothing(
    simulated, flood, local_maps, tmp_path, capsys
):
    """The server is a process of its own, with the arguments of serve-config."""
    config = tmp_path / "models.config"
    models = [ServedModel(name="flood", versions={"stable": 12, "old": 3})]
    config.write_text(server_files.models_config(models, str(Path(flood).parent)))
    port = model_server.free_port()
    arguments = (f"--port={port}", f"--model_config_file={config}")
    arguments += ("--allow_version_labels_for_unavailable_models=true",)
    num_parts = []

    def kill_and_start(stack, process):
        while not (parts := list((tmp_path / "maps").glob(".predicting/*/part-*.tif"))):
            time.sleep(0.01)
        process.kill()
        num_parts.append(len(parts))
        stack.enter_context(model_server.program(*arguments))

    with ExitStack() as stack:
        process = stack.enter_context(model_server.program(*arguments))
        thread = threading.Thread(target=kill_and_start, args=(stack, process))
        thread.start()
        code = predict_remote(
            f"127.0.0.1:{port}",
            flood,
            simulated,
            str(tmp_path / "maps"),
            *("--label", "stable", "--retry", "300"),
        )
        thread.join()
    assert code == 0, capsys.readouterr().err
    assert process.returncode == -9
    assert 0 < num_parts[0] < 6 * 9
    assert rasters(tmp_path / "maps") == local_maps


def test_a_server_that_is_gone_ends_the_run_and_the_next_one_goes_on(
    simulated, flood, server, config, tmp_path
):
    segmenter = segmenters.find(flood)
    with serving_grpc(server) as host:
        endpoint = endpoint_at(host, retry_seconds=0.2)
        remote.check(endpoint, segmenter)
        # After the check and ten windows, the server is busy for good.
        predict, count = server.predict, iter(range(10))

        def predict_and_stop(*args):
            if next(count, None) is None:
                server.num_busy = 10**6
            return predict(*args)

        server.predict = predict_and_stop
        execution = driver.Execution(endpoint=endpoint)
        try:
            with pytest.raises(Exception, match=r"no answer in \d+ tries") as caught:
                driver.predict(config, segmenter, [simulated], str(tmp_path), execution)
        finally:
            server.predict, server.num_busy = predict, 0
        # Beam keeps the class of the error, so the exit code too.
        assert caught.value.exit_code == 1
        num_parts = len(list(tmp_path.glob(".predicting/*/part-*.tif")))
        assert num_parts
        server.shapes.clear()
        driver.predict(config, segmenter, [simulated], str(tmp_path), execution)
    assert len(list(tmp_path.glob("*/class.tif"))) == 6


def test_wrong_units_are_refused_before_the_server_sees_a_pixel(
    copied, flood, server, edit_items, tmp_path, capsys
):
    """The readers are those of `predict`: power as dB is refused here, too."""
    import rasterio

    for path in copied.parent.rglob("*.tif"):
        with rasterio.open(path, "r+") as dataset:
            if dataset.dtypes[0] == "float32":
                dataset.write(10 ** (dataset.read() / 10))
    with serving_grpc(server) as host:
        code = predict_remote(host, flood, copied, str(tmp_path / "maps"))
    error = capsys.readouterr().err
    assert code == 3
    assert "no scene gave a map (s1_not_db 6)" in error
    assert server.shapes == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "stable", "version": 3}, "a label and a version exclude each other"),
        ({"timeout_seconds": 0.0}, "timeout_seconds must be above 0, got 0"),
        ({"max_in_flight": 0}, "max_in_flight must be above 0, got 0"),
        ({"max_request_mib": -1.0}, "max_request_mib must be above 0, got -1"),
        ({"retry_seconds": -1.0}, "retry_seconds must be at least 0, got -1"),
        ({"host": "http://h:1"}, "host must be a host and a port, such as 127.0.0.1:8500"),
        ({"ca_file": "ca.pem"}, "ca_file is for TLS only: use --tls too, got 'ca.pem'"),
        ({"protocol": "kserve", "version": 3}, "kserve knows no label and no version"),
    ],
)
def test_what_makes_no_endpoint_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(Endpoint(host="h:1", model="flood"), **changes)
