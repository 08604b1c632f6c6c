"""Progress of a command by stages: a live display on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape

OnProgress = Callable[[int, int], None]
"""Told (done, total) while a stage runs."""

_LOG_LINE_EVERY_SECONDS = 10.0
"""Without a terminal, a stage prints at most this often: logs must stay readable."""


class Progress:
    """Shows which stage runs and how far it is. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        """Show nothing until the first stage starts.

        Args:
            console: where to print; a quiet console prints nothing.
        """
        self._console = console
        self._is_live = console.is_terminal and not console.quiet
        self._bars = rich_progress.Progress(
            rich_progress.SpinnerColumn(finished_text="[green]✓"),
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[text]}"),
            rich_progress.TimeElapsedColumn(),
            console=console,
            disable=not self._is_live,
        )
        self._task: rich_progress.TaskID | None = None
        self._name = ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.finish(failed=kind is not None)
        self._bars.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a named stage while the body runs; mark it failed if the body raises."""
        self.start(name)
        try:
            yield
        except BaseException:
            self.finish(failed=True)
            raise
        self.finish()

    def start(self, name: str) -> None:
        """End the stage before and start the next."""
        self.finish()
        # A name may hold a path, and a path may hold brackets.
        self._name, self._started = escape(name), time.monotonic()
        self._last_line = self._started
        self._task = self._bars.add_task(self._name, total=None, text="")

    def update(self, done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        """Show how far the current stage is, with values such as the newest loss."""
        if self._task is None:
            return
        text = " ".join(f"{name} {value:.3f}" for name, value in (values or {}).items())
        self._bars.update(self._task, completed=done, total=total, text=text)
        if not self._is_live and time.monotonic() - self._last_line > _LOG_LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"  … {self._name} {done}/{total} {text}", highlight=False)

    def note(self, text: str, is_warning: bool = False) -> None:
        """Print a line about the current stage that stays on the screen."""
        mark = "[yellow]![/yellow]" if is_warning else " "
        # Not folded: a log reader takes one line for one message.
        self._console.print(f"{mark} {self._name}: {escape(text)}", highlight=False, soft_wrap=True)

    def finish(self, failed: bool = False) -> None:
        """End the current stage, if there is one."""
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        total = task.total if task.total is not None else 1
        if failed:
            self._bars.update(self._task, description=f"[red]{self._name}")
            self._bars.stop_task(self._task)
        else:
            self._bars.update(self._task, total=total, completed=total)
        if not self._is_live:
            mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
            seconds = time.monotonic() - self._started
            self._console.print(f"{mark} {self._name} ({seconds:.1f} s)", highlight=False)
        self._task = None
