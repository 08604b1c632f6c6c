"""The canary: a good model passes, and each way to break one is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts.locations import DamagedFileError
from models.published import canary, golden, second_reader
from models.published.canary import CanaryConfig, Findings
from tests.data.networks import make_segmenter
from tests.data.runs.repository import REPOSITORY

BANDS = {"s1": ("VV", "VH")}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A SavedModel with the golden answers of its own signature."""
    folder = tmp_path_factory.mktemp("published") / "1"
    make_segmenter.publish(folder, BANDS)
    golden.write(str(folder / "assets.extra"), make_segmenter.golden_calls(folder))
    return folder


@pytest.fixture
def copy(good, tmp_path):
    """The good model, to be broken."""
    return Path(shutil.copytree(good, tmp_path / "copy"))


def change(folder, **outputs):
    """Replace golden outputs: the model then differs from what was trained."""
    calls = golden.read(folder)
    changed = [
        golden.Golden(
            signature=call.signature,
            inputs=call.inputs,
            outputs={
                name: outputs[name](value) if name in outputs else value
                for name, value in call.outputs.items()
            },
        )
        for call in calls
    ]
    golden.write(str(folder / "assets.extra"), changed)


def test_a_good_model_has_no_fault_and_figures(good):
    found = canary.probe(str(good))
    assert found.faults == ()
    assert found.max_difference == 0.0
    assert found.num_calls == 4
    assert found.call_seconds > 0
    assert found.memory_mib > 100


def test_golden_pixels_have_two_sizes_and_patches_without_data(good):
    first, second = golden.read(good)
    assert first.inputs["s1"].shape == (3, 8, 8, 2)
    assert second.inputs["s1"].shape == (3, 12, 4, 2)
    for call in (first, second):
        missing = np.isnan(call.inputs["s1"]).all(axis=-1).mean(axis=(1, 2))
        assert 0 < missing[0] < 0.2
        assert missing[2] == 1.0


def test_another_answer_than_the_trained_models_is_a_fault(copy):
    change(copy, probabilities=lambda value: value + np.float32(0.01))
    found = canary.judge(canary.probe(str(copy)), CanaryConfig())
    assert found.max_difference == pytest.approx(0.01, abs=1e-6)
    assert found.faults == ("difference from the trained model: 0.01, allowed 0.0001",)


@pytest.mark.parametrize(
    "change_to", [lambda value: value[:, :-1], lambda value: np.full_like(value, np.nan)]
)
def test_another_shape_and_an_answer_without_number_are_faults(copy, change_to):
    change(copy, probabilities=change_to)
    (fault,) = canary.probe(str(copy)).faults
    assert fault.startswith("an answer is not finite, or has another shape")


def test_an_answer_to_no_patch_is_a_fault(copy, tmp_path):
    model = tf.Module()
    model.inner = tf.saved_model.load(str(copy))
    ask = model.inner.signatures["serving_default"]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32, "s1")])
    def serve(s1):
        answer = ask(s1=s1)["probabilities"]
        return {
            "probabilities": tf.cond(
                tf.shape(s1)[0] > 0, lambda: answer, lambda: tf.ones([1, 8, 8, 2])
            )
        }

    tf.saved_model.save(model, str(tmp_path / "eager"), {"serving_default": serve})
    shutil.copytree(copy / "assets.extra", tmp_path / "eager" / "assets.extra")
    (fault,) = set(canary.probe(str(tmp_path / "eager")).faults)
    assert fault == "signature serving_default: probabilities has 1 answers to no patch"


def test_a_missing_signature_and_missing_weights_are_faults(copy):
    calls = golden.read(copy)
    renamed = [
        golden.Golden(signature="embed_s1", inputs=call.inputs, outputs=call.outputs)
        for call in calls
    ]
    golden.write(str(copy / "assets.extra"), renamed)
    (fault,) = canary.probe(str(copy)).faults
    assert fault.startswith("signature embed_s1: ")
    assert "serving_default" in fault
    (copy / "assets.extra" / golden.GOLDEN_NAME).unlink()
    assert canary.probe(str(copy)).faults[0].startswith("it has no golden answers")


def test_a_label_may_differ_only_where_two_classes_are_about_equal():
    expected = {
        "probabilities": np.array([[0.4, 0.6], [0.5004, 0.4996], [0.1, 0.9]]),
        "label": np.array([1, 0, 255]),
    }
    for label, threshold, is_fault in (
        ([1, 1, 255], None, False),
        ([0, 0, 255], None, True),
        # Near the threshold either class may come out.
        ([0, 0, 255], 0.6, False),
        # No data stays no data.
        ([1, 0, 1], None, True),
    ):
        answer = {**expected, "label": np.array(label)}
        assert canary._difference(answer, expected, threshold) == float(is_fault), label


def test_limits_make_faults_of_figures():
    found = Findings(faults=(), max_difference=0.5, call_seconds=2.0, memory_mib=900.0)
    assert canary.judge(found, CanaryConfig(max_difference=1.0)).faults == ()
    config = CanaryConfig(max_difference=0.5, max_call_seconds=1.0, max_memory_mib=800.0)
    assert canary.judge(found, config).faults == (
        "memory in MiB: 900, allowed 800",
        "seconds of a call: 2, allowed 1",
    )
    with pytest.raises(ValueError, match="max_memory_mib must be above 0, got 0"):
        CanaryConfig(max_memory_mib=0.0)


def test_damaged_golden_answers_are_named(copy):
    (copy / "assets.extra" / golden.GOLDEN_NAME).write_bytes(b"PK cut short")
    with pytest.raises(DamagedFileError, match=r"golden\.npz"):
        golden.read(copy)


def test_a_published_version_is_loaded_and_asked_again(copy):
    assert canary.damage_of(str(copy), CanaryConfig()) == ()
    change(copy, probabilities=lambda value: value + np.float32(0.01))
    (fault,) = canary.damage_of(str(copy), CanaryConfig())
    assert fault == "difference from the trained model: 0.01, allowed 0.0001"
    # Limits of memory are those of the canary's own process.
    limits = CanaryConfig(max_difference=0.1, max_memory_mib=1.0)
    assert canary.damage_of(str(copy), limits) == ()
    # A version of an earlier release has no answers; it must load.
    (copy / "assets.extra" / golden.GOLDEN_NAME).unlink()
    assert canary.damage_of(str(copy), CanaryConfig()) == ()
    shutil.rmtree(copy / "variables")
    (fault,) = canary.damage_of(str(copy), CanaryConfig())
    assert "variables" in fault


def test_without_openvino_the_second_reader_is_said_to_be_missing(good, monkeypatch):
    monkeypatch.setattr(second_reader.importlib.util, "find_spec", lambda _: None)
    found = canary.read_again(str(good), Findings(faults=()), second_reader.interpreter({}))
    assert found.second_reader == "not checked: openvino is not installed"
    assert found.faults == ()
    assert "openvino is not installed" in found.summary


def reader(folder, answer):
    """A Python that takes the place of one with OpenVINO: it answers what it is told."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nimport sys\nimport numpy as np\n{answer}\n")
    program.chmod(0o755)
    return str(program)


ANSWER = """
given = np.load(sys.argv[4])
calls = np.load({golden!r})
for number in (0, 1):
    assert (given[f"{{number}}/s1"].shape) == calls[f"{{number}}|serving_default|in|s1"].shape
np.savez(sys.argv[5], **{{
    f"{{number}}/probabilities": calls[f"{{number}}|serving_default|out|probabilities"] + {more}
    for number in (0, 1)
}})
print("9.9")
"""


@pytest.mark.parametrize(("more", "is_fault"), [(0.0, False), (0.01, True), (np.nan, True)])
def test_the_second_reader_must_give_the_trained_models_answers(good, tmp_path, more, is_fault):
    path = str(good / "assets.extra" / golden.GOLDEN_NAME)
    python = reader(tmp_path, f"nan = np.nan\n{ANSWER.format(golden=path, more=more)}")
    assert second_reader.interpreter({second_reader.PYTHON_VARIABLE: python}) == python
    found = canary.read_again(str(good), Findings(faults=()), python)
    found = canary.judge(found, CanaryConfig())
    assert found.second_reader == "openvino 9.9"
    assert bool(found.faults) == is_fault
    assert all("openvino 9.9" in fault for fault in found.faults)


@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("sys.exit('Unsupported operation')", "signature serving_default: cannot read it: Unsup"),
        (None, f"{second_reader.PYTHON_VARIABLE} must name a Python with openvino"),
    ],
)
def test_a_second_reader_that_fails_is_one_fault(good, tmp_path, python, why):
    named = str(tmp_path / "gone") if python is None else reader(tmp_path, python)
    (fault,) = canary.read_again(str(good), Findings(faults=()), named).faults
    assert fault.startswith("openvino: ")
    assert why in fault
    assert "\n" not in fault


def test_openvino_itself_reads_the_model(good):
    """Run where OpenVINO is installed, or TERRAPAIR_OPENVINO_PYTHON names it."""
    python = second_reader.interpreter(os.environ)
    if python is None:
        pytest.skip("openvino is not installed")
    found = canary.judge(canary.read_again(str(good), Findings(faults=()), python), CanaryConfig())
    assert found.faults == ()
    assert found.second_reader.startswith("openvino 20")
    assert found.second_difference < 1e-5


def test_the_memory_of_a_process_is_not_that_of_its_parent():
    held = bytearray(b"x") * (800 << 20)
    code = "from models.published.canary import peak_mib; print(peak_mib())"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert len(held) == 800 << 20
    assert 20 < float(found.stdout) < 700
