"""The files of examples/ run against a server as they are, and give the model's answer."""

import json
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from tests.data.networks import make_segmenter
from tests.data.runs.repository import REPOSITORY
from tests.data.servers import model_server

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "flood" / "12"
    make_segmenter.publish(path, {"s1": ("VV", "VH")})
    return model_server.ModelServer(name="flood", paths={12: str(path)}, labels={"stable": 12})


def window(side):
    """Return the pixels of the Python examples."""
    pixels = np.full([64, 64, 2], [-8.0, -14.0], np.float32)
    pixels[:, :32] = [-20.0, -27.0]
    pixels[:side, :side] = np.nan
    return pixels


def halves(server, pixels):
    """Return the mean probability of water of the left and the right half."""
    found = server.models[12].predict("", {"s1": pixels[np.newaxis]})["probabilities"][0, ..., 1]
    return [pytest.approx(found[:, part].mean(), abs=6e-4) for part in np.s_[:32, 32:]]


def test_every_example_is_tested():
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert names == {"ask_by_grpc.py", "ask_by_rest.py", "ask_by_curl.sh"}


def test_grpc(server, monkeypatch, capsys):
    # In this process: another one would import TensorFlow for seconds.
    with model_server.serving(server, "grpc") as host:
        monkeypatch.setattr(sys, "argv", ["ask_by_grpc.py", host])
        runpy.run_path(str(EXAMPLES / "ask_by_grpc.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "version 12\n" in shown
    left, right = map(float, re.findall(r": ([\d.]+)", shown))
    assert [left, right] == halves(server, window(4))
    assert left - right > 0.5


def test_rest(server):
    with model_server.serving(server, "rest") as host:
        command = [sys.executable, str(EXAMPLES / "ask_by_rest.py"), host]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert list(map(float, re.findall(r": ([\d.]+)", shown))) == halves(server, window(1))


def test_curl(server):
    with model_server.serving(server, "rest") as host:
        command = [str(EXAMPLES / "ask_by_curl.sh"), host]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pixels = np.full([1, 32, 32, 2], [-20.0, -27.0], np.float32)
    pixels[0, 0, 0] = np.nan
    expected = server.models[12].predict("", {"s1": pixels})["probabilities"]
    np.testing.assert_allclose(json.loads(shown)["predictions"], expected, atol=1e-6)
