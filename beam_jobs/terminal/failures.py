"""Turn any exception into a failure: an exit code and one line for the user.

Errors of this project know their exit code. Of other errors this module knows which
ones mean missing or damaged input, and `machine` knows those of a full disk and the
like. Beam reports what a step raised as text: "Name: message" from this process, a
traceback from a worker. The type of that error is read from the last such line.
"""

from __future__ import annotations

import errno
import gzip
import json
import re
import sys
import zipfile
import zlib
from dataclasses import dataclass

import click

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.terminal import machine, prerequisites

PACKAGES = ("beam_jobs", "models", "components", "pipeline")

_BAD_INPUT = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    EOFError,
    gzip.BadGzipFile,
    json.JSONDecodeError,
    UnicodeDecodeError,
    zipfile.BadZipFile,
    zlib.error,
)
_BAD_INPUT_NAMES = (
    "tensorflow.python.framework.errors_impl.DataLossError",
    "tensorflow.python.framework.errors_impl.NotFoundError",
    "rasterio.errors.RasterioIOError",
)
"""The same of libraries that must not be imported for their error classes alone."""

_TRACEBACK = "Traceback (most recent call last):"
# The end of a traceback: "beam_jobs.errors.DataError: message [while running 'step']".
_RAISED = re.compile(r"^(?P<name>[A-Za-z_][\w.]*): (?P<message>.*)$")
_STEP = re.compile(r"\s*\[while running '[^']*'\]")
# TensorFlow puts the name of its operation before and after the message.
_OPERATION = re.compile(r"^\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\](\s*name:\s*)?$")
_SEE_ALL = "  (--debug shows all)"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a command that raised ends.

    Attributes:
        exit_code: of the process.
        message: one line, without "error: ".
    """

    exit_code: int
    message: str


def failure_of(error: BaseException, verb: str = "<verb>") -> Failure:
    """Return exit code and message of an error that ended a command.

    Args:
        error: what the command raised.
        verb: name of the command, for the line about a missing dependency.
    """
    if isinstance(error, TerrapairError):
        return Failure(exit_code=error.exit_code, message=_one_line(str(error)))
    if isinstance(error, click.ClickException):
        message = _one_line(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message = f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
        return Failure(exit_code=error.exit_code, message=message)
    if isinstance(error, ModuleNotFoundError):
        group = prerequisites.GROUP_OF_MODULE.get((error.name or "").partition(".")[0])
        if group is not None:
            line = prerequisites.install_line(verb, group)
            return Failure(exit_code=ExitCode.USAGE, message=line)
    if _TRACEBACK in str(error) or _is_of_step(error):
        return _of_worker(str(error))
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        message = (
            f"{error.filename}: a name in this path is longer than the file system allows "
            "(255 bytes on most): use a shorter one"
        )
        return Failure(exit_code=ExitCode.USAGE, message=_one_line(message))
    if line := machine.describe(error):
        return Failure(exit_code=ExitCode.CRASH, message=_one_line(line))
    if isinstance(error, FileExistsError):
        return Failure(exit_code=ExitCode.USAGE, message=_first_line(error))
    if isinstance(error, (FileNotFoundError, IsADirectoryError)) and error.filename:
        what = "is a folder, not a file" if isinstance(error, IsADirectoryError) else "no such file"
        return Failure(exit_code=ExitCode.BAD_DATA, message=f"{error.filename}: {what}")
    if isinstance(error, _BAD_INPUT) or _qualified_name(type(error)) in _BAD_INPUT_NAMES:
        return Failure(exit_code=ExitCode.BAD_DATA, message=_first_line(error))
    # Our own code raises ValueError for data and arguments that break a rule. From a
    # library it means that nobody foresaw the case.
    if isinstance(error, ValueError) and _is_raised_here(error):
        return Failure(exit_code=ExitCode.BAD_DATA, message=_one_line(str(error)))
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return Failure(exit_code=ExitCode.CRASH, message=_first_line(error))
    message = f"unexpected {type(error).__name__}: {_first_line(error)}"
    return Failure(
        exit_code=ExitCode.CRASH,
        message=message if message.endswith(_SEE_ALL) else message + _SEE_ALL,
    )


def _is_of_step(error: BaseException) -> bool:
    """Whether Beam made a RuntimeError of what a step raised, as `Name: message`."""
    text = str(error)
    return type(error) is RuntimeError and bool(_STEP.search(text) and _RAISED.match(text))


def _of_worker(text: str) -> Failure:
    """Return the failure that the traceback of another process ends with."""
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [match for line in lines if (match := _RAISED.match(line))]
    if not raised:
        return Failure(exit_code=ExitCode.CRASH, message=lines[-1].strip() + _SEE_ALL)
    name, message = raised[-1]["name"], _STEP.sub("", raised[-1]["message"])
    # Beam cannot make a second OSError: a RuntimeError names the first.
    while name == "RuntimeError" and (inner := _RAISED.match(message)):
        name, message = inner["name"], inner["message"]
    found = _find_class(name)
    if found is not None and issubclass(found, TerrapairError):
        return Failure(exit_code=found.exit_code, message=_one_line(message))
    if line := machine.describe_text(name.rpartition(".")[2], message):
        return Failure(exit_code=ExitCode.CRASH, message=_one_line(line))
    if name in _BAD_INPUT_NAMES or (found is not None and issubclass(found, _BAD_INPUT)):
        return Failure(exit_code=ExitCode.BAD_DATA, message=message + _SEE_ALL)
    return Failure(
        exit_code=ExitCode.CRASH,
        message=f"unexpected {name.rpartition('.')[2]}: {message}{_SEE_ALL}",
    )


def _find_class(name: str) -> type[BaseException] | None:
    """Return the exception class of a dotted name, if its module is imported here."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module or "builtins"), attribute, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _is_raised_here(error: BaseException) -> bool:
    """Whether a function of this project raised the error, not a library below it."""
    trace = error.__traceback__
    module = ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return module.partition(".")[0] in PACKAGES


def _qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _one_line(text: str) -> str:
    return " ".join(_STEP.sub("", text).split())


def _first_line(error: BaseException) -> str:
    text = _OPERATION.sub("", _STEP.sub("", str(error)).strip())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines) == 1 else lines[0] + _SEE_ALL
