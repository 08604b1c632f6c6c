"""The README fits one page, and the commands of README and docs are those of the program.

Whole jobs run in tests/e2e; of their commands only the targets and configs are checked here.
"""

import importlib.util
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from beam_jobs.terminal.program import group
from pipeline.config import load_run_config
from tests.benchmarks.__main__ import BENCHMARKS
from tests.data.runs.repository import REPOSITORY

README = REPOSITORY / "README.md"
PICTURE = REPOSITORY / "docs" / "images" / "flood.png"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
OTHER_PROGRAMS = {"podman", "source", "export", "eval", "pip", "curl", "docker", "earthengine"}
"""Commands of pages that are not ours, or that only set up the shell."""
MAX_LINES = 120
MAX_PICTURE_BYTES = 200_000


def _commands(page: Path) -> list[list[str]]:
    """The commands of the `sh` blocks of a page, as lists of arguments."""
    commands = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            # A placeholder such as <dir> would be a redirection.
            arguments = shlex.split(re.sub(r"<([^>]*)>", "x", line), comments=True)
            while arguments and re.fullmatch(r"\w+=.*", arguments[0]):
                arguments = arguments[1:]
            if arguments:
                commands.append(arguments)
    return commands


COMMANDS = [(page, command) for page in PAGES for command in _commands(page)]
"""Page and arguments of each command of README and docs."""
OURS = [(page, command[1:]) for page, command in COMMANDS if command[0] == "terrapair"]


def _name(value: object) -> str:
    return value.name if isinstance(value, Path) else " ".join(map(str, value))[:70]


def _parse(arguments: list[str]) -> click.Context:
    """The context of a command line that click accepts; the command does not run.

    Raises:
        click.UsageError: unknown verb or option, missing or wrong value.
    """
    with group.make_context("terrapair", list(arguments)) as context:
        rest = [*context.protected_args, *context.args]
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None
        return command.make_context(name, rest, parent=context)


def test_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= MAX_LINES


def test_the_picture_is_small():
    assert PICTURE.relative_to(REPOSITORY).as_posix() in README.read_text()
    assert 10_000 < PICTURE.stat().st_size < MAX_PICTURE_BYTES


def test_pages_have_commands():
    assert len(OURS) > 20
    assert {command[0] for _, command in COMMANDS} >= {"make", "terrapair", "source"}


@pytest.mark.parametrize(("page", "arguments"), OURS, ids=_name)
def test_click_accepts_every_command(page, arguments):
    try:
        context = _parse(arguments)
    except click.exceptions.Exit:
        # --help and --version print and leave.
        return
    config = context.params.get("config_path")
    if config and (REPOSITORY / config).is_file() and "configs" in config:
        # Settings that do not exist are refused here.
        load_run_config(REPOSITORY / config, tuple(context.params.get("overrides", ())), {})
    else:
        assert not config or not config.startswith("pipeline/"), f"{config} does not exist"


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page, command in COMMANDS if command[0] != "terrapair"],
    ids=_name,
)
def test_every_other_command_exists(page, command):
    if command[0] == "make":
        target = [argument for argument in command[1:] if "=" not in argument]
        assert _targets() >= set(target)
    elif command[0].endswith("python"):
        assert command[1] == "-m"
        assert importlib.util.find_spec(command[2]) is not None
        if command[2] == "tests.benchmarks":
            assert set(command[3:]) <= set(BENCHMARKS)
    else:
        assert command[0] in OTHER_PROGRAMS


def _targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([\w\-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_within_sentences_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        program, *arguments = code.split()
        if program == "make" and arguments:
            assert arguments[0] in _targets(), code
        if program != "terrapair" or not arguments or arguments[0].startswith(("-", "<")):
            continue
        command = group.get_command(click.Context(group), arguments[0])
        assert command is not None, code
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {"--help", "-h"}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, code


def test_the_page_of_commands_lists_every_verb():
    listed = re.findall(
        r"^\| `([a-z][\w\-]*)` \|", (REPOSITORY / "docs/commands.md").read_text(), re.M
    )
    assert set(listed) == set(group.list_commands(click.Context(group)))


def test_make_knows_how_to_run_the_jobs_of_the_readme():
    for command in (["make", "demo"], ["make", "real", "DATA=exports"], ["make", "test"]):
        dry = subprocess.run(
            [*command, "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        for config in re.findall(r"--config (\S+)", dry.stdout):
            assert (REPOSITORY / config).is_file()


def test_the_cheap_commands_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verbs = []
    for _, arguments in [item for item in OURS if item[0] == README]:
        if arguments[0] in ("simulate", "build-pairs", "--help"):
            result = CliRunner().invoke(group, arguments)
            assert result.exit_code == 0, result.output
            verbs.append(arguments[0])
    assert verbs == ["--help", "simulate", "build-pairs"]
    assert len(list(Path("runs/pairs/span-1/version-1").glob("*/*.tfrecord.gz"))) >= 3
    assert (tmp_path / "runs/pairs/span-1/version-1/manifest.json").is_file()
    assert os.listdir(tmp_path) == ["runs"]
