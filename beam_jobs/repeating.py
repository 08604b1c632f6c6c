"""Repeating: a look at something now and then while a long piece of work runs. The progress of the jobs comes from it.

Workers may be other processes, so the driver looks at what they leave behind: a spool,
a ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def repeating(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls `look` every `seconds` in a thread of its own until the body ends; an OSError of one look is passed over."""
    finished = threading.Event()

    def look_until_finished() -> None:
        while not finished.wait(seconds):
            # A store that is down for a moment is no reason to lose the bar.
            with suppress(OSError):
                look()

    thread = threading.Thread(target=look_until_finished, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
