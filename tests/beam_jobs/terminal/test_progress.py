"""Progress: what a log without a terminal says of each stage."""

import io

import pytest
from rich.console import Console

from beam_jobs.terminal.progress import Progress


def test_notice_and_warning_are_told_as_they_are():
    console = Console(file=io.StringIO(), width=80)
    with Progress(console) as progress, progress.stage("Trainer"):
        progress.note("resumed after [step] 3")
        progress.note("nothing [is] learned", is_warning=True)
    assert console.file.getvalue().splitlines()[:2] == [
        "  Trainer: resumed after [step] 3",
        "! Trainer: nothing [is] learned",
    ]


def test_progress_without_a_terminal_names_finished_and_failed_stages():
    console = Console(file=io.StringIO(), width=80)

    def fail():
        with Progress(console) as progress:
            with progress.stage("verify runs [v1]/pairs"):
                progress.update(1, 2)
            progress.start("Trainer")
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    lines = console.file.getvalue().splitlines()
    assert any("✓ verify runs [v1]/pairs (" in line for line in lines)
    assert any("✗ Trainer" in line for line in lines)
