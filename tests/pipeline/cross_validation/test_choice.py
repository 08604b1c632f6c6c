"""Tasks to cross-validate: what cannot work is refused in one line, before any data."""

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from pipeline.config import RunConfig
from pipeline.cross_validation.choice import choose_tasks


def make_config(values, **split):
    values["pairs"]["split"] = {"folds": 3, **split}
    values["tasks"].append({**values["tasks"][0], "name": "lakes"})
    return settings.from_dict(RunConfig, values)


def test_all_tasks_or_those_that_are_named_each_once(values):
    config = make_config(values)
    assert [task.name for task in choose_tasks(config, ())] == ["flood", "lakes"]
    assert [task.name for task in choose_tasks(config, ("lakes", "lakes"))] == ["lakes"]


def refused(config, message, names=()):
    with pytest.raises(SettingsError) as error:
        choose_tasks(config, names)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_without_folds_is_refused(values):
    refused(make_config(values, folds=0), "at least 3 folds, got 0: add --set pairs.split.folds=5")


def test_an_unknown_task_is_refused_with_the_known_ones(values):
    refused(
        make_config(values),
        "--task: no task 'food' in the config; it has flood, lakes",
        names=("flood", "food"),
    )


def test_a_run_without_tasks_is_refused(values):
    values["pairs"]["split"] = {"folds": 3}
    values["tasks"] = []
    refused(settings.from_dict(RunConfig, values), "needs at least one task")


def test_a_task_with_a_teacher_is_refused(values):
    encoder = values["tasks"][0]["segment"]["encoder"]
    values["tasks"].append(
        {
            **values["tasks"][0],
            "name": "student",
            "segment": {**values["tasks"][0]["segment"], "sensors": ["s2"], "encoder": encoder},
            "distill": {"teacher": "flood", "num_steps": 1, "global_batch_size": 4},
        }
    )
    config = make_config(values)
    refused(config, "tasks: 'student' has a teacher (distill)")
    assert choose_tasks(config, ("flood",))
