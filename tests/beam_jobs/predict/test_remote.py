"""Maps by a model behind a server: the same as by the model itself, or one line."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_server import ModelServer, serving_grpc, serving_rest

from beam_jobs.errors import DataError
from beam_jobs.predict import driver, remote, segmenters
from beam_jobs.predict.remote import Endpoint
from beam_jobs.terminal import program


@pytest.fixture(scope="module")
def server(flood):
    return ModelServer(
        name="flood",
        paths={3: f"{flood}/3", 12: f"{flood}/12"},
        labels={"stable": 12, "old": 3},
    )


@pytest.fixture(autouse=True)
def quick(server, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.01)
    server.num_busy, server.token = 0, ""
    server.shapes.clear()


@pytest.fixture(scope="module")
def segmenter(flood):
    return segmenters.find(flood)


def windows(batch=3, side=32):
    pixels = np.random.default_rng(0).normal(-15, 5, (batch, side, side, 2))
    pixels[0, :7, :9] = np.nan
    return {"s1": pixels.astype(np.float32)}


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("named", [{}, {"label": "stable"}, {"version": 12}])
def test_a_server_answers_as_the_model_itself(server, segmenter, protocol, named):
    serve = serving_grpc if protocol == "grpc" else serving_rest
    with serve(server) as host:
        endpoint = Endpoint(host=host, model="flood", protocol=protocol, **named)
        remote.check(endpoint, segmenter)
        found = remote.connect(endpoint, segmenter)(windows())
    np.testing.assert_array_equal(found, segmenters.load(segmenter)(windows()))


def test_a_batch_is_sent_in_requests_of_bounded_size(server, segmenter, monkeypatch):
    monkeypatch.setattr(remote, "_MAX_REQUEST_BYTES", 2 * 32 * 32 * 2 * 4)
    pixels = windows(batch=7)
    with serving_grpc(server) as host:
        endpoint = Endpoint(host=host, model="flood", max_in_flight=3)
        found = remote.connect(endpoint, segmenter)(pixels)
    assert sorted(shape[0] for shape in server.shapes) == [1, 2, 2, 2]
    np.testing.assert_array_equal(found, segmenters.load(segmenter)(pixels))


def test_answers_larger_than_the_default_of_grpc_arrive(server, segmenter):
    with serving_grpc(server) as host:
        found = remote.connect(Endpoint(host=host, model="flood"), segmenter)(windows(1, 1024))
    assert found.nbytes > 4 << 20


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_busy_server_is_asked_again(server, segmenter, protocol):
    serve = serving_grpc if protocol == "grpc" else serving_rest
    server.num_busy = remote.NUM_TRIES - 1
    with serve(server) as host:
        endpoint = Endpoint(host=host, model="flood", protocol=protocol)
        found = remote.connect(endpoint, segmenter)(windows())
        np.testing.assert_array_equal(found, segmenters.load(segmenter)(windows()))
        server.num_busy = remote.NUM_TRIES
        with pytest.raises(DataError, match=r"no answer in 7 tries .*queue is full") as caught:
            remote.connect(endpoint, segmenter)(windows())
    assert caught.value.exit_code == 1


def test_nothing_is_lost_when_the_server_goes_and_comes_back(server, segmenter, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.2)
    with serving_grpc(server) as host:
        endpoint = Endpoint(host=host, model="flood")
        send = remote.connect(endpoint, segmenter)
        expected = send(windows())

    def come_back():
        time.sleep(0.5)
        with serving_grpc(server, int(host.rpartition(":")[2])):
            finished.wait(20)

    finished = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        np.testing.assert_array_equal(send(windows()), expected)
    finally:
        finished.set()
        thread.join()


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"model": "snow"}, r"Servable not found for request: Latest\(snow\)"),
        ({"version": 7}, r"\(7\): the server refuses \(.*Specific\(flood, 7\)"),
        ({"label": "canary"}, r"\(canary\): the server refuses"),
    ],
)
def test_a_model_that_is_not_loaded_is_one_line(server, segmenter, protocol, named, why):
    serve = serving_grpc if protocol == "grpc" else serving_rest
    with serve(server) as host:
        endpoint = Endpoint(**{"host": host, "model": "flood", "protocol": protocol, **named})
        with pytest.raises(DataError, match=why):
            remote.check(endpoint, segmenter)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_card_of_another_model_is_refused(server, segmenter, protocol):
    serve = serving_grpc if protocol == "grpc" else serving_rest
    with serve(server) as host:
        endpoint = Endpoint(host=host, model="flood", label="old", protocol=protocol)
        with pytest.raises(DataError, match="takes s1 of 1 bands, but the card names s1 of 2"):
            remote.check(endpoint, segmenter)


def test_a_token_comes_from_the_environment(server, segmenter, monkeypatch):
    server.token = "secret"
    with serving_grpc(server) as host:
        endpoint = Endpoint(host=host, model="flood")
        with pytest.raises(DataError, match="UNAUTHENTICATED: no token"):
            remote.check(endpoint, segmenter)
        monkeypatch.setenv(remote.TOKEN_VARIABLE, "secret")
        remote.check(endpoint, segmenter)


def rasters(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).glob("*/*.tif"))
    }


def test_maps_are_those_of_the_local_model(simulated, flood, server, config, tmp_path, capsys):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    driver.predict(config, segmenters.find(flood), [simulated], here)
    with serving_grpc(server) as host:
        server.num_busy = 3
        code = program.run(
            [
                *("predict-remote", "--host", host, "--model", "flood", "--label", "stable"),
                *("--card", flood, "--scenes", str(simulated), "--output", there),
                *("--set", "window.size_px=48", "--set", "window.margin_px=8"),
                *("--set", "window.blend_px=4", "--set", "part_px=56", "--json"),
            ]
        )
    assert code == 0, capsys.readouterr().err
    assert rasters(there) == rasters(here)
    assert len(rasters(here)) == 6 * 3


def test_a_server_that_is_gone_ends_the_run_and_the_next_one_goes_on(
    simulated, flood, server, config, tmp_path
):
    segmenter = segmenters.find(flood)
    with serving_grpc(server) as host:
        endpoint = Endpoint(host=host, model="flood")
        remote.check(endpoint, segmenter)
        # After the check and ten windows, the server is busy for good.
        predict, count = server.predict, iter(range(10))

        def predict_and_stop(*args):
            if next(count, None) is None:
                server.num_busy = 10**6
            return predict(*args)

        server.predict = predict_and_stop
        try:
            with pytest.raises(Exception, match="no answer in 7 tries"):
                driver.predict(
                    config,
                    segmenter,
                    [simulated],
                    str(tmp_path),
                    driver.Execution(endpoint=endpoint),
                )
        finally:
            server.predict, server.num_busy = predict, 0
        num_parts = len(list(tmp_path.glob(".predicting/*/part-*.tif")))
        assert num_parts
        server.shapes.clear()
        driver.predict(
            config, segmenter, [simulated], str(tmp_path), driver.Execution(endpoint=endpoint)
        )
    assert len(list(tmp_path.glob("*/class.tif"))) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "stable", "version": 3}, "a label and a version exclude each other"),
        ({"timeout_seconds": 0.0}, "timeout_seconds must be above 0"),
        ({"max_in_flight": 0}, "max_in_flight at least 1, got 60 and 0"),
    ],
)
def test_what_makes_no_endpoint_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(Endpoint(host="h:1", model="flood"), **changes)
