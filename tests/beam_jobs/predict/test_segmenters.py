"""Published segmenters: the wanted version is found, and a damaged one is one line."""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.errors import DataError
from beam_jobs.predict import memory, segmenters

MODELS = """model_config_list {
  config {
    name: "flood"
    base_path: "/models/flood"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 3 versions: 12 } }
    version_labels { key: "canary" value: 12 }
    version_labels { key: "stable" value: 3 }
  }
}
"""


@pytest.fixture
def run(flood, tmp_path) -> Path:
    """A run with the versions 3 and 12 of a model and the files of a server."""
    shutil.copytree(flood, tmp_path / "serving/flood")
    (tmp_path / "server/config").mkdir(parents=True)
    (tmp_path / "server/config/models.config").write_text(MODELS)
    return tmp_path


def test_a_label_names_the_version_that_a_server_would_take(run, monkeypatch):
    model, server = str(run / "serving/flood"), str(run / "server")
    found = {
        label: segmenters.labelled_version(model, label, server) for label in ("stable", "canary")
    }
    assert found == {"stable": 3, "canary": 12}
    assert segmenters.find(model, found["stable"]).version == "3"
    monkeypatch.chdir(run / "serving")
    assert segmenters.labelled_version("flood", "stable", server) == 3


def test_without_a_server_a_label_is_that_of_the_model(run):
    model = run / "serving/flood"
    # Nobody has labelled a version: the newest is in service.
    assert segmenters.labelled_version(str(model), "stable") == 12
    assert segmenters.find(str(model)).version == "12"
    (model / "labels.json").write_text('{"versions": {"stable": 3, "canary": 12}, "since": ""}')
    assert segmenters.labelled_version(str(model), "canary") == 12
    assert segmenters.find(str(model)).version == "3"
    with pytest.raises(DataError, match=r"no version with the label 'old'; labels are: canary ="):
        segmenters.labelled_version(str(model), "old")


def test_a_label_that_is_not_there_is_one_line(run):
    model, server = run / "serving/flood", str(run / "server")
    with pytest.raises(
        DataError, match=r"no version with the label 'old'; labels are: canary = 12, stable = 3"
    ):
        segmenters.labelled_version(str(model), "old", server)
    with pytest.raises(DataError, match=r"'snow' has no version .* labels are: none"):
        segmenters.labelled_version(str(model.with_name("snow")), "stable", server)
    with pytest.raises(DataError, match="is version 3 itself: for --label, name the folder"):
        segmenters.labelled_version(str(model / "3"), "stable", server)
    # The label names a version that was deleted.
    shutil.rmtree(model / "3")
    with pytest.raises(DataError, match="has no version 3; complete versions are: 12"):
        segmenters.find(str(model), segmenters.labelled_version(str(model), "stable", server))
    file = run / "server/config/models.config"
    file.write_text("model_config_list { config {")
    with pytest.raises(DamagedFileError, match=r"models\.config: .*terrapair serve-config"):
        segmenters.labelled_version(str(model), "stable", server)
    file.unlink()
    with pytest.raises(DataError, match=r"models\.config: no such file, .*by --server"):
        segmenters.labelled_version(str(model), "stable", server)


def test_a_folder_of_one_version_is_that_version(flood):
    assert segmenters.find(f"{flood}/3").version == "3"
    assert segmenters.find(f"{flood}/3", 3).version == "3"
    with pytest.raises(DataError, match=r"is version 3 itself, but --version is 12: name"):
        segmenters.find(f"{flood}/3", 12)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inputs": {"s1": {"bands": ["VV"]}}}, r"takes {'s1': 2} .* card says {'s1': 1}"),
        ({"inputs": {"s2": {"bands": ["B4", "B8"]}}}, r"takes {'s1': 2} .* card says {'s2': 2}"),
        (
            {"class_names": ["dry", "wet", "ice"], "class_colors": ["#000000"] * 3},
            "tells 2 classes apart, but its card says .* and 3",
        ),
    ],
)
def test_a_model_beside_the_card_of_another_one_is_refused(flood, tmp_path, changes, told):
    copied = Path(shutil.copytree(f"{flood}/12", tmp_path / "12"))
    card = copied / "assets.extra/model_card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    with pytest.raises(DataError, match=f"12: the SavedModel .*{told}") as caught:
        segmenters.load(segmenters.find(str(copied)))
    assert caught.value.exit_code == 3


def test_a_saved_model_that_lacks_files_or_outputs_is_one_line(flood, tmp_path):
    broken = Path(shutil.copytree(f"{flood}/12", tmp_path / "1"))
    (broken / "saved_model.pb").unlink()
    with pytest.raises(DataError, match=r"1: the SavedModel cannot be read .*publish it again"):
        segmenters.load(segmenters.find(str(broken)))
    (broken / "assets.extra/model_card.json").write_text('{"task": "segmentation"}')
    with pytest.raises(DamagedFileError, match=r"model_card\.json"):
        segmenters.find(str(broken))


@pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0",
    reason="TensorFlow has no allocator of its own for this CPU",
)
def test_windows_of_all_sizes_share_one_region_of_memory(flood):
    segmenters.load(segmenters.find(f"{flood}/3"))
    statm = Path("/proc/self/statm")
    before, resident = (int(one) * 4096 for one in statm.read_text().split()[:2])
    # Nearly as much as all windows may take; pages that are not used do not count.
    with tf.device("CPU"):
        held = tf.raw_ops.Empty(shape=[960 << 20], dtype=tf.uint8)
    after, used = (int(one) * 4096 for one in statm.read_text().split()[:2])
    assert held.shape == (960 << 20,)
    assert after - before < 64 << 20
    assert used - resident < 64 << 20


@pytest.mark.parametrize("is_aligned", [True, False])
def test_a_model_answers_the_same_for_pixels_that_it_shares(flood, is_aligned):
    model = segmenters.load(segmenters.find(f"{flood}/3"))
    values = np.random.default_rng(0).normal(-15, 5, (2, 32, 64, 1)).astype(np.float32)
    values[0, 3] = np.nan
    room = memory.empty_aligned((values.size + 1,))
    pixels = room[0 if is_aligned else 1 :][: values.size].reshape(values.shape)
    pixels[:] = values
    assert (pixels.ctypes.data % memory.ALIGNED_BYTES == 0) == is_aligned
    np.testing.assert_array_equal(model({"s1": pixels}), model({"s1": values}))
    # Another member of an ensemble gets the same pixels.
    np.testing.assert_array_equal(pixels, values)


def test_aligned_pixels_are_not_copied():
    pixels = memory.empty_aligned((1, 4, 4, 2))
    pixels[:] = 1
    tensor = segmenters._tensor(pixels)
    pixels[0, 0, 0, 0] = 5
    assert tensor.numpy()[0, 0, 0, 0] == 5
