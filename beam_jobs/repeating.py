"""Call a function again and again while a long piece of work runs, to report progress.

The work may run in other processes. The function looks at what they leave behind, such
as files in a spool or lines of a ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def repeating(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `look` every `seconds` in a thread until the body ends.

    An OSError of one call is ignored.
    """
    finished = threading.Event()

    def look_until_finished() -> None:
        while not finished.wait(seconds):
            # A store that is down for a moment must not end the progress bar.
            with suppress(OSError):
                look()

    thread = threading.Thread(target=look_until_finished, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
