"""Session: what a verb gets from its command line besides its own options.

Progress and notes go to stderr. The result goes to stdout, as text or as one JSON
document, so that a script can read it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console, RenderableType

from beam_jobs.terminal.progress import OnProgress, Progress

_WIDTH_WITHOUT_TERMINAL = 120
"""Columns. Without a terminal rich assumes 80, which folds the tables."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """How one command talks to the user.

    Attributes:
        verbose: show the logs of the libraries.
        quiet: show results and errors only.
        as_json: print the result as JSON.
    """

    verbose: bool = False
    quiet: bool = False
    as_json: bool = False

    @cached_property
    def _notes(self) -> Console:
        width = None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL
        return Console(stderr=True, quiet=self.quiet, width=width)

    def progress(self) -> Progress:
        """Return progress on stderr, to be entered as a context manager."""
        return Progress(self._notes)

    @contextmanager
    def stage(self, name: str) -> Iterator[OnProgress]:
        """Show one stage of work; the body calls the yielded `update(done, total)`."""
        with self.progress() as progress, progress.stage(name):
            yield progress.update

    def note(self, *parts: RenderableType) -> None:
        """Print something for a person, on stderr."""
        for part in parts:
            self._notes.print(part, highlight=False, soft_wrap=True)

    def result(self, document: Any, *parts: RenderableType) -> None:
        """Print the result of the command on stdout.

        Args:
            document: plain values, printed with `--json`.
            parts: lines and tables, printed otherwise. Text is printed as it is.
        """
        if self.as_json:
            text = json.dumps(plain(document), indent=2, sort_keys=True)
            sys.stdout.write(text + "\n")
            # A server that goes on may be read through a pipe.
            sys.stdout.flush()
            return
        width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
        console = Console(width=width)
        for part in parts:
            # Tables mark up their own cells; text may hold brackets of its own.
            is_marked_up = not isinstance(part, str)
            console.print(part, highlight=False, soft_wrap=True, markup=is_marked_up)


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: a path as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
