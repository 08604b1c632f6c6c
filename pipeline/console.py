"""What a person sees while a command runs: quiet libraries, one progress line a stage, one line for an error.

The commands call `prepare_libraries` before they import TensorFlow, and hand a
RunProgress to the stages.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from beam_jobs.contracts import object_store

# Without a terminal rich assumes 80 columns, which folds the tables.
CONSOLE = Console(width=None if sys.stdout.isatty() else 120)

_LOG_LINE_EVERY_SECONDS = 10.0
"""Without a terminal, a stage says at most this often how far it is: logs must stay readable."""


def prepare_libraries(environment: MutableMapping[str, str], verbose: bool) -> None:
    """Settles what TensorFlow and TFX read when they are imported, here and in child processes; to be called before that."""
    # tensorflow-transform, which TFX imports, chooses Keras 2 for everybody unless the
    # variable is set.
    environment.setdefault("TF_USE_LEGACY_KERAS", "0")
    object_store.complete_environment(environment)
    if not verbose:
        _silence_libraries(environment)


def guarded(debug: bool, work: Callable[[], int]) -> None:
    """Runs `work`, ends the process with its code; an error is one line, unless `debug`."""
    try:
        code = work()
    # ValueError holds SettingsError and DataError; RuntimeError what Beam and
    # TensorFlow raise for the user's input.
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        click.echo(
            f"error: {lines[0]}" + ("" if len(lines) == 1 else "  (--debug shows all)"), err=True
        )
        code = 1
    sys.exit(code)


def _silence_libraries(environment: MutableMapping[str, str]) -> None:
    """Turns off start-up messages of TensorFlow and warnings of libraries."""
    # TensorFlow's C++ side reads these when it is loaded; setting them later has no
    # effect.
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    environment.setdefault("AUTOGRAPH_VERBOSITY", "0")
    environment.setdefault("PYTHONWARNINGS", "ignore")
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")


def silence_absl() -> None:
    """Keeps absl, through which TFX logs, off the terminal, and other libraries below ERROR; a caller's handlers see all."""
    from absl import logging as absl_logging

    absl_logging.use_absl_handler()
    # Records of absl also travel to the root logger; its handlers decide there.
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)
    # One of those handlers is absl's own. TFX logs a failed execution as ERROR and then
    # raises: the one-line error is enough.
    absl_logging.get_absl_handler().setLevel(logging.CRITICAL)


class RunProgress:
    """Progress lines: a live display on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        """Starts nothing yet; use as a context manager."""
        self._console = console
        self._is_live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._is_live,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.finish(failed=kind is not None)
        self._progress.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One named stage; ends it, also when it fails."""
        self.start(name)
        try:
            yield
        except BaseException:
            self.finish(failed=True)
            raise
        self.finish()

    def start(self, name: str) -> None:
        """Ends the stage before and starts the next."""
        self.finish()
        self._name, self._started = name, time.monotonic()
        self._last_line = self._started
        self._task = self._progress.add_task(name, total=None, text="")

    def update(self, done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        """Says how far the current stage is."""
        if self._task is None:
            return
        text = " ".join(f"{name} {value:.3f}" for name, value in (values or {}).items())
        self._progress.update(self._task, completed=done, total=total, text=text)
        if not self._is_live and time.monotonic() - self._last_line > _LOG_LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"  … {self._name} {done}/{total} {text}", highlight=False)

    def note(self, text: str, is_warning: bool = False) -> None:
        """Says something about the current stage, in a line that stays."""
        mark = "[yellow]![/yellow]" if is_warning else " "
        self._console.print(f"{mark} {self._name}: {escape(text)}", highlight=False)

    def finish(self, failed: bool = False) -> None:
        """Ends the current stage, if there is one."""
        if self._task is None:
            return
        task = self._progress.tasks[self._progress.task_ids.index(self._task)]
        total = task.total if task.total is not None else 1
        if failed:
            self._progress.update(self._task, description=f"[red]{self._name}")
            self._progress.stop_task(self._task)
        else:
            self._progress.update(self._task, total=total, completed=total)
        if not self._is_live:
            mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
            self._console.print(
                f"{mark} {self._name} ({time.monotonic() - self._started:.1f} s)", highlight=False
            )
        self._task = None
