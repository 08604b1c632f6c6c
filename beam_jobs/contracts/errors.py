"""The exit codes of the program, and the base class of the errors that know theirs.

Every package raises subclasses of `TerrapairError`. The command line turns each into
one line and its exit code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, for scripts and schedulers."""

    DONE = 0
    """The work is done."""
    CRASH = 1
    """An error that nobody foresaw, or a service or machine that failed."""
    USAGE = 2
    """A wrong option, a wrong setting, or a missing dependency."""
    BAD_DATA = 3
    """An input that is missing, damaged or breaks a rule."""
    REFUSED = 4
    """A gate refused the result: an overlap, a weak model, a training that failed."""
    NOTHING_NEW = 5
    """There was nothing new to work on."""


class TerrapairError(Exception):
    """An error whose message tells the user in one line what to do.

    Attributes:
        exit_code: with which the program ends when nobody handles the error.
    """

    exit_code: ExitCode = ExitCode.CRASH
