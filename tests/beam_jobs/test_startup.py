"""Processes import what they need, and no more."""

import importlib
import subprocess
import sys

import pytest
from repository import REPOSITORY

from beam_jobs import startup

_PROGRAM = """
import sys
from beam_jobs import startup
startup.prepare()
import tensorflow as tf
assert not [name for name in sys.modules if name.startswith(("keras.", "googleapiclient"))]
assert tf.keras.layers.Dense(3)(tf.ones([2, 2])).shape == (2, 3)
import keras
from tensorflow import keras as same
assert tf.keras.layers.Dense is keras.layers.Dense is same.layers.Dense
assert not {"IPython", "matplotlib", "sklearn"} & set(sys.modules)
import googleapiclient, matplotlib
"""


def test_a_library_starts_without_what_it_can_spare_and_others_find_it(monkeypatch, tmp_path):
    (tmp_path / "starting.py").write_text(
        "try:\n    import spared\nexcept ImportError:\n    spared = None\n"
    )
    (tmp_path / "spared.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(startup, "_UNUSED_BY", {"starting": ("spared",)})
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    startup.prepare()
    startup.prepare()
    assert importlib.import_module("starting").spared is None
    assert importlib.import_module("spared").__file__ == str(tmp_path / "spared.py")
    assert [type(finder) for finder in sys.meta_path].count(startup._Refusal) == 1
    for name in ("starting", "spared"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.e2e
def test_tensorflow_starts_without_keras_which_is_there_when_it_is_needed():
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
