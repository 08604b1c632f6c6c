"""Prerequisites: an unsupported Python and a missing group are said in one line."""

import ast
from pathlib import Path

import pytest

from beam_jobs.terminal import prerequisites
from tests.data.runs.repository import REPOSITORY


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12)])
def test_supported_python_passes(version):
    prerequisites.check_python(version)


@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_unsupported_python_ends_in_one_line_and_exit_code_2(version, capsys):
    with pytest.raises(SystemExit) as left:
        prerequisites.check_python(version)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: terrapair runs on Python 3.10 to 3.12, this is Python {version[0]}.{version[1]}: "
        "install Python 3.11 and make the environment with it"
    )


@pytest.mark.parametrize("module", ["__main__", "terminal/prerequisites", "terminal/__init__"])
def test_what_an_old_python_meets_first_is_in_its_syntax(module):
    path = Path(prerequisites.__file__).parents[1] / f"{module}.py"
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    # Only the standard library and this module are imported before the check.
    imported = {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported <= {
        "__future__",
        "typing",
        "importlib.util",
        "beam_jobs.terminal",
    }


def test_range_is_that_of_the_package():
    text = (REPOSITORY / "pyproject.toml").read_text()
    oldest, newest = prerequisites.OLDEST_PYTHON, prerequisites.NEWEST_PYTHON
    assert f'requires-python = ">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"' in text
