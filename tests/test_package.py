"""The wheel: what it holds, and that its base runs alone in an environment without TFX."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.data.runs.repository import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the tracked files, so that nothing untracked can slip in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout.split(b"\0")
    for name in filter(None, map(bytes.decode, names)):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (found,) = folder.glob("terrapair-*.whl")
    return found


def test_the_wheel_holds_what_runs_need(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (
        ("pipeline", "configs/*.yaml"),
        ("pipeline", "tasks/*.yaml"),
        ("beam_jobs", "**/*.py"),
        ("models", "**/*.py"),
        ("components", "**/*.py"),
        ("pipeline", "**/*.py"),
    ):
        shipped = {
            path.relative_to(REPOSITORY).as_posix()
            for path in (REPOSITORY / folder).glob(pattern)
            if "__pycache__" not in path.parts
        }
        assert shipped
        assert shipped <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_wheel_says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: <3.13,>=3.10" in metadata
    assert {"pipeline", "gcp", "earthengine", "dev"} == {
        line.removeprefix("Provides-Extra: ")
        for line in metadata.splitlines()
        if line.startswith("Provides-Extra: ")
    }
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "terrapair = pipeline." in archive.read(f"{folder}/entry_points.txt").decode()


@pytest.fixture(scope="module")
def base_environment(wheel, tmp_path_factory) -> Path:
    """Folder of programs of an environment that holds the base group at the lock's versions."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "uv", "--native-tls", "pip", "install", "--quiet"]
    command += ["--constraint", str(REPOSITORY / "requirements.txt"), "--no-verify-hashes"]
    subprocess.run([*command, "--python", str(python), str(wheel)], check=True)
    return folder / "bin"


@pytest.mark.e2e
def test_the_base_runs_alone(base_environment, tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(base_environment / "terrapair"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    for package in ("tfx", "ee", "ml_metadata"):
        found = list((base_environment.parent / "lib").glob(f"python*/site-packages/{package}"))
        assert not found, "the base must not bring it"
    # A shipped YAML, by its name: the wheel's user has no folder of configs.
    shown = run("config", "--config", "demo", "--set", "num_beam_workers=3")
    assert shown.returncode == 0, shown.stderr
    assert "name: terrapair-demo\n" in shown.stdout
    assert "num_beam_workers: 3\n" in shown.stdout
    done = run("simulate", "--output", "sim", "--set", "num_places=1", "--set", "num_dates=1")
    assert done.returncode == 0, done.stderr
    # TFX is not there: one line says how to get it.
    refused = run("run", "--config", "demo")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "terrapair[pipeline]" in refused.stderr
