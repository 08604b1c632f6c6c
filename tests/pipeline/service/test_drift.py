"""The verb `drift` on folders that lack something; tests/e2e/test_smoke.py has a whole one."""

import pytest
import yaml
from repository import REPOSITORY
from run_pipeline import run_pipeline_here

from beam_jobs.contracts import settings
from pipeline.config import load_run_config


@pytest.fixture
def run_root(tmp_path):
    """The root of a run that has built nothing; its config names another folder."""
    config = load_run_config(
        REPOSITORY / "pipeline/configs/smoke.yaml", ["root=moved/since", "drift.noise=3"], {}
    )
    text = yaml.safe_dump(settings.to_dict(config), sort_keys=False)
    (tmp_path / "config.yaml").write_text(f"# sha256\n{text}")
    return tmp_path


def error_of(*arguments):
    ended = run_pipeline_here("drift", *arguments)
    (line,) = ended.stderr.strip().splitlines()
    assert ended.stdout == ""
    return ended.returncode, line


def test_a_folder_of_no_run_is_bad_data(tmp_path):
    code, line = error_of("--run", str(tmp_path), "--span", "1")
    assert (code, line) == (
        3,
        f"error: {tmp_path}/config.yaml: no settings of a run: --run must name the root of one",
    )


def test_a_span_that_was_not_built_is_named_with_the_folder(run_root):
    code, line = error_of("--run", str(run_root), "--span", "7")
    assert code == 3
    assert line == (
        f"error: --span 7: no data set of {run_root}/data has it; built are none: build it by "
        "build-pairs, or by run"
    )


def test_a_wrong_setting_names_the_file_of_the_run(run_root):
    code, line = error_of("--run", str(run_root), "--span", "1", "--set", "drift.limits={x: 1}")
    assert code == 2
    assert line.startswith(f"error: {run_root}/config.yaml: drift: limits.x: no rule; known: ")
