import shutil

import keras
import numpy as np
import pytest

from beam_jobs.contracts import object_store
from models.training.checkpoints import (
    CheckpointMismatchError,
    Checkpoints,
    Progress,
    remove_checkpoints,
)


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


def test_newer_checkpoint_takes_the_place_of_the_older(tmp_path, events):
    for step in (9, 10):
        save(tmp_path / "kept", step, float(step), events)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000010"]


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
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000010"]


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
