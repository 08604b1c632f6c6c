"""The program: its verbs, its help, its completion, its exit codes and what it imports."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from beam_jobs.contracts.manifest import CODE_VERSION
from beam_jobs.errors import DataError
from beam_jobs.terminal import options, program
from tests.data.runs.repository import REPOSITORY

NEED_TFX = ("run", "report", "compile")
HEAVY = ("tensorflow", "apache_beam", "tfx", "keras", "rasterio", "ee")

DRIVER = f"""
import json, sys
from beam_jobs.__main__ import run
for arguments in json.loads(sys.argv[1]):
    code = run(arguments)
    heavy = sorted(set({HEAVY!r}) & set(sys.modules))
    sys.stderr.write(json.dumps([code, heavy]) + "\\n")
"""


def run_light(tmp_path, *commands):
    """Return (exit code, heavy modules, message) of commands, run in one new process."""
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stderr.splitlines()
    return [(*json.loads(lines[i + 1]), lines[i]) for i in range(0, len(lines), 2)]


@pytest.mark.parametrize("name", program.VERBS)
def test_help_of_each_verb_has_an_example_and_the_common_flags(name):
    shown = CliRunner().invoke(program.group, [name, "-h"], prog_name="terrapair")
    assert shown.exit_code == 0, shown.output
    assert f"Usage: terrapair {name} " in shown.output
    example = shown.output[shown.output.index("Example") :]
    assert f"terrapair {name} " in example or f"terrapair {name}\n" in example
    for flag in ("--verbose", "--quiet", "--json", "--debug"):
        assert f"\n  {flag} " in shown.output, flag


@pytest.mark.parametrize(("name", "verb"), program.VERBS.items())
def test_list_of_verbs_says_what_the_help_of_the_verb_says(name, verb):
    command = program.group.get_command(click.Context(program.group), name)
    assert command.name == name
    assert command.help.startswith(verb.help.rstrip("."))


@pytest.mark.parametrize("module", ["pipeline", "beam_jobs"])
def test_both_modules_are_the_same_program(module):
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Usage: terrapair ")
    for name, verb in program.VERBS.items():
        assert f"  {name} " in shown.stdout
        assert verb.help in shown.stdout


def test_version_imports_nothing_heavy():
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--version"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"terrapair {CODE_VERSION}\n"
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert not imported & set(HEAVY)


def test_missing_inputs_are_found_before_anything_heavy_is_imported(tmp_path):
    here = {name: str(tmp_path / name) for name in ("out", "none", "none.yaml", "none.json")}
    smoke = ["--config", "pipeline/configs/smoke.yaml", "--set", f"root={here['out']}"]
    none, version = here["none"], str(tmp_path)
    commands = {
        ("run", "--config", here["none.yaml"]): (2, "cannot read the config"),
        ("run", *smoke, "--set", "pretrain.num_step=3"): (2, "pretrain.num_step: unknown key"),
        ("run", *smoke, "--data", none): (3, "cannot read the data: no such folder"),
        ("run", *smoke, "--set", f"catalogs=[{{layout: stac, path: {none}}}]"): (
            3,
            "cannot read the catalog: no such file",
        ),
        ("run", *smoke, "--set", f"catalogs=[{{layout: sen12ms, path: {none}}}]"): (
            3,
            "cannot read the scenes: no such folder",
        ),
        ("report", *smoke): (3, "cannot read the metadata of the last run: no such file"),
        ("serve-check", *smoke): (3, "cannot read the published models: no such folder"),
        ("claim-check", *smoke): (2, "claim: required by claim-check"),
        ("build-pairs", "--catalog", none, "--output", here["out"]): (3, "cannot read the catalog"),
        ("build-labels", "--catalog", none, "--output", here["out"]): (3, "no such file"),
        ("verify", version): (3, "no manifest, so this is no finished version"),
        ("card", none): (3, "cannot read the version: no such folder"),
        ("audit", "--pairs", none, "--labels", version): (3, "cannot read the version"),
        ("catalog", none, "--layout", "sen12ms", "--output", here["out"]): (3, "no such folder"),
        ("emulate-ee", "--scenes", none, "--output", here["out"]): (3, "cannot read the scenes"),
        ("fetch", "--places", here["none.json"], "--output", here["out"]): (3, "cannot read the"),
        ("plan", "--places", here["none.json"]): (3, "cannot read the places: no such file"),
        ("embed", "--encoder", version, "--pairs", none, "--output", here["out"]): (
            3,
            "model_card.json: no model card, so this is no finished model",
        ),
        ("submit", "--file", here["none.yaml"], "--wait"): (3, "cannot read the pipeline: No such"),
        ("schedule", "--file", here["none.yaml"], "--cron", "0 4 * * *"): (3, "No such file"),
        ("schedule", "--pipeline", "x", "--cron", "0 0 30 2 *"): (2, "cron: bad day-of-month"),
        ("search", "--index", none, "--random", "1", "--output", here["out"]): (3, "the index"),
        ("import-weights", "--file", none, "--weights", "decur-s1-resnet50", "--output", none): (
            3,
            "cannot read the weights: no such file",
        ),
    }
    if importlib.util.find_spec("tfx") is None:
        # Without the pipeline group, these verbs say so before they look at their inputs.
        commands = {words: told for words, told in commands.items() if words[0] not in NEED_TFX}
    found = run_light(tmp_path, *commands)
    assert len(found) == len(commands)
    for (code, heavy, line), arguments, (expected, message) in zip(
        found, commands, commands.values(), strict=True
    ):
        assert (code, heavy) == (expected, []), (arguments, line)
        assert line.startswith("error: "), arguments
        assert message in line, arguments
    assert not Path(here["out"]).exists()


def test_verb_without_its_optional_group_says_how_to_install_it(tmp_path):
    hidden = ["tfx", "ml_metadata", "kfp", "cronsim", "ee"]
    hide = f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
    places = tmp_path / "places.geojson"
    places.write_text("{}")
    commands = [
        ["run", "--config", "pipeline/configs/smoke.yaml"],
        ["report", "--config", "pipeline/configs/smoke.yaml"],
        ["compile", "--config", "pipeline/configs/smoke.yaml", "--output", str(tmp_path / "x")],
        ["fetch", "--places", str(places), "--output", str(tmp_path / "ee")],
        ["export", "--places", str(places), "--output", str(tmp_path / "ee")],
        ["plan", "--places", str(places), "--pilot", "3", "--output", str(tmp_path / "ee")],
        ["submit", "--pipeline", "monthly"],
        ["schedule", "--pipeline", "monthly", "--cron", "0 4 * * *"],
    ]
    ended = subprocess.run(
        [sys.executable, "-c", hide + DRIVER, json.dumps(commands)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stderr.splitlines()
    assert [json.loads(line)[0] for line in lines[1::2]] == [2] * len(commands)
    assert lines[0] == (
        "error: terrapair run needs the pipeline group: uv pip install 'terrapair[pipeline]' "
        "(uv, because pip refuses tfx on Python 3.11)"
    )
    assert lines[2].startswith("error: terrapair report needs the pipeline group: ")
    assert lines[4].startswith("error: terrapair compile needs the pipeline group: ")
    for position, name in ((6, "fetch"), (8, "export"), (10, "plan")):
        assert lines[position] == (
            f"error: terrapair {name} needs the earthengine group: "
            "pip install 'terrapair[earthengine]'"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'. Known: simulate, catalog, "),
        (["build-pairs"], "Missing option '--catalog'"),
        (["card", "x", "--verbose", "--quiet"], "--verbose and --quiet exclude each other"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert program.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert line.endswith("--help)")


@pytest.mark.parametrize("shell", program.SHELLS)
def test_completion_prints_the_script_of_the_shell(shell, capsys):
    assert program.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_TERRAPAIR_COMPLETE={shell}_complete" in script
    assert "terrapair" in script


def test_shell_asks_for_verbs_and_gets_them():
    answer = subprocess.run(
        [sys.executable, "-m", "pipeline"],
        cwd=REPOSITORY,
        env={
            "PATH": "",
            "_TERRAPAIR_COMPLETE": "bash_complete",
            "COMP_WORDS": "terrapair build",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert answer.stdout.split() == ["plain,build-pairs", "plain,build-labels"]


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `terrapair card` raise an error."""

    def fail_with(error):
        @options.verb("card")
        def card(session):
            session.note("a note")
            raise error

        monkeypatch.setattr("beam_jobs.commands.card", card)

    return fail_with


def test_error_is_one_line_unless_debug_asks_for_more(failing, capsys):
    failing(DataError("scene.tif: no data\n  at all"))
    assert program.run(["card"]) == 3
    assert capsys.readouterr().err == "a note\nerror: scene.tif: no data at all\n"
    for arguments in (["card", "--debug"], ["--debug", "card"]):
        assert program.run(arguments) == 3
        shown = capsys.readouterr().err
        assert "Traceback (most recent call last):" in shown
        assert shown.endswith("error: scene.tif: no data at all\n")


def test_quiet_leaves_the_error_alone(failing, capsys):
    failing(DataError("bad"))
    for arguments in (["card", "--quiet"], ["--quiet", "card"]):
        assert program.run(arguments) == 3
        assert capsys.readouterr().err == "error: bad\n"


def test_file_that_ends_early_is_bad_data_and_an_interrupt_is_none(failing, capsys):
    failing(EOFError("content ends before byte 7"))
    assert program.run(["card"]) == 3
    assert capsys.readouterr().err.endswith("error: content ends before byte 7\n")
    failing(KeyboardInterrupt())
    assert program.run(["card"]) == 130
    assert "error" not in capsys.readouterr().err


def test_result_is_text_or_json(monkeypatch, capsys):
    @options.verb("card")
    def card(session):
        session.result({"card": Path("a[b]"), "iou": float("nan")}, "a[b]")

    monkeypatch.setattr("beam_jobs.commands.card", card)
    assert program.run(["card"]) == 0
    assert capsys.readouterr().out == "a[b]\n"
    assert program.run(["card", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"card": "a[b]", "iou": None}
