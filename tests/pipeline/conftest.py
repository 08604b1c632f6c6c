"""The settings of a run as plain values, and the folder of the shipped configs."""

import copy
from pathlib import Path

import pytest

from tests.data.runs.pipeline_values import VALUES
from tests.data.runs.repository import REPOSITORY

CONFIGS = REPOSITORY / "pipeline" / "configs"


@pytest.fixture
def values() -> dict:
    return copy.deepcopy(VALUES)


@pytest.fixture
def configs_dir() -> Path:
    return CONFIGS
