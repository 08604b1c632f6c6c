import json
import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import locations, object_store
from models.training.checkpoints import (
    CheckpointMismatchError,
    Checkpoints,
    Progress,
    remove_checkpoints,
)
from models.training.evaluations import Evaluation
from tests.data.faults.damage import cut, flip, replace_by_folder


def trained(value, num_units=3):
    """A model of which every weight is `value`, and its optimizer."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(num_units)(inputs))
    optimizer = keras.optimizers.AdamW()
    optimizer.build(model.trainable_variables)
    for variable in [*model.variables, *optimizer.variables]:
        variable.assign(np.full(variable.shape, value))
    return model, optimizer


def values(model, optimizer):
    return {
        float(number)
        for variable in [*model.variables, *optimizer.variables]
        for number in np.ravel(variable.numpy())
    }


@pytest.fixture
def events(tmp_path):
    folder = tmp_path / "logs" / "train"
    folder.mkdir(parents=True)
    (folder / "events.1").write_bytes(b"a curve")
    return str(folder)


def save(folder, step, value, events_dir, **options):
    progress = Progress(step=step, last_losses=(0.5, 0.25), events_dir=events_dir)
    Checkpoints(str(folder), *trained(value, **options)).save(progress)


def test_all_variables_come_back_with_the_progress_and_the_events(tmp_path, events):
    # TensorFlow itself takes these characters for a pattern.
    kept = tmp_path / "runs [v1] {a,b}*?" / "kept"
    save(kept, 7, 3.0, events)
    target = trained(0.0)
    progress = Checkpoints(str(kept), *target).restore()
    assert values(*target) == {3.0}
    assert (progress.step, progress.last_losses) == (7, (0.5, 0.25))
    with open(f"{progress.events_dir}/events.1", "rb") as file:
        assert file.read() == b"a curve"


def test_no_checkpoint_leaves_everything_as_it_is(tmp_path):
    target = trained(1.0)
    assert Checkpoints(str(tmp_path / "none"), *target).restore() is None
    assert values(*target) == {1.0}


def test_the_best_step_comes_back_with_all_evaluations(tmp_path, events):
    model, optimizer = trained(3.0)
    best = tuple(variable.numpy() - 1.0 for variable in model.variables)
    found = (Evaluation(step=2, score=float("nan")), Evaluation(step=4, score=1 / 3))
    progress = Progress(step=5, events_dir=events, evaluations=found, best_weights=best)
    Checkpoints(str(tmp_path / "kept"), model, optimizer).save(progress)
    target = trained(0.0)
    restored = Checkpoints(str(tmp_path / "kept"), *target).restore()
    assert values(*target) == {3.0}
    assert [one.step for one in restored.evaluations] == [2, 4]
    assert np.isnan(restored.evaluations[0].score)
    assert restored.evaluations[1].score == 1 / 3
    for got, expected in zip(restored.best_weights, best, strict=True):
        np.testing.assert_array_equal(got, expected)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_checkpoints_are_kept(tmp_path, events):
    for step in (8, 9, 10):
        save(tmp_path / "kept", step, float(step), events)
    assert names(tmp_path / "kept") == ["step-000000009", "step-000000010"]


def test_checkpoint_that_was_cut_off_is_never_restored(tmp_path, events):
    save(tmp_path / "kept", 5, 5.0, events)
    whole = tmp_path / "kept" / "step-000000005"
    # As a kill within the next one leaves it: everything but the last file, or that
    # under its first name.
    cut_off = shutil.copytree(whole, whole.with_name("step-000000010"))
    (cut_off / "progress.json").rename(cut_off / "progress.json.part")
    target = trained(0.0)
    assert Checkpoints(str(tmp_path / "kept"), *target).restore().step == 5
    assert values(*target) == {5.0}
    # The next attempt gets there, too, and writes it anew.
    save(tmp_path / "kept", 10, 10.0, events)
    assert Checkpoints(str(tmp_path / "kept"), *target).restore().step == 10
    assert names(tmp_path / "kept") == ["step-000000005", "step-000000010"]


def test_checkpoint_of_another_architecture_is_refused_in_one_line(tmp_path, events):
    save(tmp_path / "kept", 5, 5.0, events)
    target = trained(0.0, num_units=4)
    with pytest.raises(CheckpointMismatchError) as caught:
        Checkpoints(str(tmp_path / "kept"), *target).restore()
    assert "\n" not in str(caught.value)
    assert f"{tmp_path}/kept/step-000000005: checkpoint of another architecture" in str(
        caught.value
    )
    assert "is [2, 3] there" in str(caught.value)
    assert "is [2, 4] here" in str(caught.value)
    assert values(*target) == {0.0}


def test_checkpoint_of_another_optimizer_is_refused(tmp_path, events):
    save(tmp_path / "kept", 5, 5.0, events)
    model, _ = trained(0.0)
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    with pytest.raises(CheckpointMismatchError, match="8 variables there, 4 here"):
        Checkpoints(str(tmp_path / "kept"), model, optimizer).restore()


def test_removed_checkpoints_leave_nothing(tmp_path, events):
    save(tmp_path / "kept", 5, 5.0, events)
    remove_checkpoints(str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()
    remove_checkpoints(str(tmp_path / "kept"))


DATA, INDEX = "variables.data-00000-of-00001", "variables.index"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "flipped weight": (lambda folder: flip(folder / DATA, 5), "Checksum does not match"),
    "flipped last byte": (lambda folder: flip(folder / DATA, -1), "Checksum does not match"),
    "cut weights": (lambda folder: cut(folder / DATA), "less bytes"),
    "no weights": (lambda folder: (folder / DATA).unlink(), "No such file"),
    "empty weights": (lambda folder: (folder / DATA).write_bytes(b""), ""),
    "flipped index": (lambda folder: flip(folder / INDEX, 20), "checksum mismatch"),
    "cut index": (lambda folder: cut(folder / INDEX), "sstable"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "matching files"),
    "empty progress": (lambda folder: (folder / "progress.json").write_bytes(b""), "no JSON"),
    "cut progress": (lambda folder: cut(folder / "progress.json"), "no JSON"),
    "no text": (lambda folder: (folder / "progress.json").write_bytes(b"\xff\xfe"), "no JSON"),
    "a list": (lambda folder: (folder / "progress.json").write_text("[1]"), "no JSON object"),
    "other types": (lambda folder: edit(folder / "progress.json", step="7"), "content_sha256"),
    "another step": (lambda folder: edit(folder / "progress.json", step=8), "content_sha256"),
    "null": (lambda folder: edit(folder / "progress.json", variables=None), "content_sha256"),
    "a folder": (lambda folder: replace_by_folder(folder / "progress.json"), "no JSON"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path, events, damage, why, caplog
):
    for step in (6, 7):
        save(tmp_path / "kept", step, float(step), events)
    damage(tmp_path / "kept" / "step-000000007")
    target = trained(0.0)
    with caplog.at_level(logging.INFO, "terrapair.training"):
        assert Checkpoints(str(tmp_path / "kept"), *target).restore().step == 6
    assert values(*target) == {6.0}
    assert names(tmp_path / "kept") == ["damaged-step-000000007", "step-000000006"]
    (line,) = caplog.messages
    assert line.startswith(f"checkpoint {tmp_path}/kept/step-000000007 is damaged (")
    assert why in line
    assert line.endswith("set aside as damaged-step-000000007; the training goes on from step 6")
    assert "\n" not in line
    # The next one takes its place, and may be damaged as well.
    save(tmp_path / "kept", 7, 7.5, events)
    damage(tmp_path / "kept" / "step-000000007")
    assert Checkpoints(str(tmp_path / "kept"), *target).restore().step == 6


@pytest.mark.parametrize("damage", [DAMAGES["cut weights"][0], DAMAGES["cut progress"][0]])
def test_without_a_whole_checkpoint_the_training_starts_from_the_beginning(
    tmp_path, events, damage, caplog
):
    for step in (6, 7):
        save(tmp_path / "kept", step, float(step), events)
        damage(tmp_path / "kept" / f"step-{step:09d}")
    target = trained(1.0)
    assert Checkpoints(str(tmp_path / "kept"), *target).restore() is None
    # Half of a damaged checkpoint is readable, and none of it was taken.
    assert values(*target) == {1.0}
    (line,) = caplog.messages
    assert line.endswith("starts from the beginning: no older checkpoint is left")
    assert names(tmp_path / "kept") == ["damaged-step-000000006", "damaged-step-000000007"]


def test_a_worker_that_does_not_write_leaves_a_damaged_checkpoint_where_it_is(
    tmp_path, events, caplog
):
    for step in (6, 7):
        save(tmp_path / "kept", step, float(step), events)
    cut(tmp_path / "kept" / "step-000000007" / DATA)
    assert Checkpoints(str(tmp_path / "kept"), *trained(0.0)).restore(is_writer=False).step == 6
    assert names(tmp_path / "kept") == ["step-000000006", "step-000000007"]
    assert caplog.messages == []


def test_a_mirrored_training_goes_on_from_the_one_before(tmp_path, events):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        for step in (6, 7):
            save(tmp_path / "kept", step, float(step), events)
        flip(tmp_path / "kept" / "step-000000007" / DATA, 5)
        target = trained(0.0)
    assert Checkpoints(str(tmp_path / "kept"), *target).restore().step == 6
    assert values(*target) == {6.0}


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_of_the_new_one(
    tmp_path, events, monkeypatch
):
    save(tmp_path / "kept", 6, 6.0, events)

    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    # The last file of a checkpoint but one: its weights are on the disk by then.
    with monkeypatch.context() as patch:
        patch.setattr("models.training.checkpoints.replace_files", fail)
        with pytest.raises(tf.errors.ResourceExhaustedError):
            save(tmp_path / "kept", 7, 7.0, events)
    assert names(tmp_path / "kept") == ["step-000000006"]
    save(tmp_path / "kept", 7, 7.0, events)
    assert names(tmp_path / "kept") == ["step-000000006", "step-000000007"]


@pytest.mark.e2e
def test_a_damaged_checkpoint_on_an_object_store_is_set_aside(s3_environment, s3_folder, events):
    object_store.load_filesystem(s3_folder)
    for step in (5, 6):
        save(s3_folder, step, float(step), events)
    path = locations.locate(s3_folder) / "step-000000006" / "progress.json"
    path.write_text(path.read_text()[:20])
    target = trained(0.0)
    assert Checkpoints(s3_folder, *target).restore().step == 5
    assert values(*target) == {5.0}
    aside = locations.locate(s3_folder) / "damaged-step-000000006"
    assert (aside / DATA).exists()
    assert not path.exists()
    remove_checkpoints(s3_folder)


@pytest.mark.e2e
def test_checkpoint_survives_on_an_object_store(s3_environment, s3_folder, events):
    object_store.load_filesystem(s3_folder)
    save(s3_folder, 5, 5.0, events)
    save(s3_folder, 6, 6.0, events)
    target = trained(0.0)
    progress = Checkpoints(s3_folder, *target).restore()
    assert progress.step == 6
    assert values(*target) == {6.0}
    remove_checkpoints(s3_folder)
    assert Checkpoints(s3_folder, *target).restore() is None
