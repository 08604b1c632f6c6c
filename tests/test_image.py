"""The image: what its build may install, leaves out, and runs as."""

import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest
import tomllib

from tests.data.runs.repository import REPOSITORY

IMAGE = REPOSITORY / ".ci" / "image"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCKED = dict(
    re.findall(r"^([a-z0-9-]+)==(\S+) ", (REPOSITORY / "requirements.txt").read_text(), re.M)
)
LEFT_OUT = re.findall(r"^([a-z0-9-]+);", (IMAGE / "left_out.txt").read_text(), re.M)


def stages():
    """Return stage -> its base and its instructions, one line each."""
    text = (REPOSITORY / "Dockerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    found, current = {}, []
    for line in filter(None, lines):
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            found[name] = (base, current := [])
        else:
            current.append(line)
    return found


def shipped(stage):
    """Return the instructions of a stage and of those that it is made from."""
    if stage not in stages():
        return []
    base, instructions = stages()[stage]
    return [*shipped(base), *instructions]


def test_the_base_is_pinned_by_digest():
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.M)
    assert re.fullmatch(r"docker\.io/library/debian:[a-z]+-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    assert {base for base, _ in stages().values()} == {"${BASE}", "base"}


@pytest.mark.parametrize("stage", ["components", "worker"])
def test_the_image_has_no_compiler_and_no_root(stage):
    instructions = shipped(stage)
    assert not re.search(r"g\+\+|gcc|build-essential|python3-dev|/opt/uv", " ".join(instructions))
    assert "g++" in " ".join(shipped("build"))
    users = [line.split()[1] for line in instructions if line.startswith("USER ")]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    copied = [line for line in instructions if line.startswith("COPY ")]
    assert copied == ["COPY --from=build /opt/terrapair /opt/terrapair"]


def test_each_form_has_its_program():
    programs = {name: stages()[name][1][-1] for name in ("components", "worker")}
    assert programs == {
        "components": 'ENTRYPOINT ["terrapair"]',
        "worker": 'ENTRYPOINT ["python", "-m", "beam_jobs.worker"]',
    }
    assert "terrapair" in PROJECT["project"]["scripts"]
    assert (REPOSITORY / "beam_jobs" / "worker.py").exists()


def test_what_is_left_out_is_in_the_lock_and_no_direct_dependency():
    assert set(LEFT_OUT) <= set(LOCKED)
    groups = PROJECT["project"]["optional-dependencies"]
    direct = [*PROJECT["project"]["dependencies"], *groups["pipeline"], *groups["earthengine"]]
    names = {re.split(r"[=\[]", one)[0] for one in direct}
    assert names & set(LEFT_OUT) == set()


@pytest.mark.parametrize(
    ("device", "package", "override"),
    [
        ("cpu", "tensorflow-cpu", 'tensorflow; sys_platform == "never"'),
        ("gpu", "tensorflow[and-cuda]", "tensorflow[and-cuda]=={}"),
    ],
)
def test_each_device_has_the_tensorflow_of_the_lock(device, package, override):
    version = LOCKED["tensorflow"]
    text = (IMAGE / device / "requirements.txt").read_text()
    assert f"\n{package}=={version} " in text
    found = re.findall(r"^([a-z0-9-]+)==(\S+) .*\\\n    --hash=sha256:", text, re.M)
    assert {name for name, locked in found if LOCKED.get(name, locked) != locked} == set()
    assert any(name.startswith("nvidia-") for name, _ in found) == (device == "gpu")
    lines = (IMAGE / device / "overrides.txt").read_text().splitlines()
    assert lines[1:] == [override.format(version)]


def test_the_builder_gets_the_packages_and_little_else():
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    included = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {one.rstrip("*") for one in included}
    files = {"pyproject.toml", "requirements.txt", "README.md", "LICENSE", ".ci/image"}
    assert let_through == packages | files


def test_the_check_of_the_image_finds_imports_at_any_depth():
    imports = runpy.run_path(str(IMAGE / "check.py"))["imports"]
    source = """
import os.path, re as regex
from . import here
def submit():
    from kfp.client import Client
    import cronsim
"""
    assert sorted(imports(source)) == ["cronsim", "kfp.client", "os.path", "re"]


def make_image(tmp_path, **environment):
    builder = tmp_path / "builder"
    builder.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    builder.chmod(0o755)
    return subprocess.run(
        [REPOSITORY / ".ci" / "make-image"],
        env={"PATH": os.environ["PATH"], "BUILDER": str(builder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("base", ["", "localhost/debian:12"])
def test_make_image_asks_the_builder(base, tmp_path):
    done = make_image(tmp_path, BASE=base, IMAGE="a:1", IMAGE_FLAGS="--network host")
    asked, inspected = map(shlex.split, done.stdout.splitlines())
    flags = ["--network", "host", *(["--build-arg", f"BASE={base}"] if base else [])]
    flags += ["--build-arg", "DEVICE=cpu", "--target", "components", "--tag", "a:1"]
    assert asked == ["build", *flags, "."]
    assert inspected[:2] == ["image", "inspect"]


def test_make_image_refuses_an_unknown_device(tmp_path):
    done = make_image(tmp_path, DEVICE="tpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "DEVICE must be cpu or gpu, got 'tpu'\n"


@pytest.mark.parametrize(
    ("environment", "missing"),
    [({"PATH": "/nowhere"}, "kubectl on PATH"), ({}, "KUBECONFIG")],
    ids=["no kubectl", "no cluster"],
)
def test_the_drill_says_in_one_line_what_is_missing(environment, missing, tmp_path):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    kubectl.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "tests.drills.cronjob", "--image", "terrapair:latest"],
        cwd=REPOSITORY,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the drill needs")
    assert missing in done.stderr
    assert done.stderr.count("\n") == 1
