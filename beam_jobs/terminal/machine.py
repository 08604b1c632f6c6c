"""Errors of the machine: a full disk, too little memory, a missing right.

The input of the user is good and the code is right. The line says which file or device
it was, and what to do. The same command goes on when that is done.

TensorFlow raises one class, ResourceExhaustedError, for a full disk, for a GPU that is
out of memory and for too many open files. Only the text tells them apart. It comes from
`strerror`, so it is the same on all systems with English messages.
Source: tensorflow/core/platform/errors.cc, errno_to_code.
"""

from __future__ import annotations

import errno
import os
import re

_AGAIN = "then run the same command again: what was finished before is kept"
_ERRNO = re.compile(r"\[Errno (?P<number>\d+)\]")
# The last path is the one that was written: "'source' -> 'target'".
_QUOTED = re.compile(r"'(?P<path>[^']*)'\s*$")
# "{{function_node ...}} /path; No space left on device [Op:SaveV2]"
_OF_TENSORFLOW = re.compile(r"(?:^|\s)(?P<path>[^\s;]+); (?P<text>[A-Z][a-z][^;\[]*?)\s*(?:\[Op|$)")
_TEMPORARY = re.compile(r"\.tempstate\d+$")

_CURES: dict[int, str] = {
    errno.ENOSPC: f"no space left on the disk: free some space, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up: free some space or raise the quota, {_AGAIN}",
    errno.EFBIG: f"the file would be larger than this system allows: check `ulimit -f`, {_AGAIN}",
    errno.EROFS: "the file system is read-only: name another folder, or mount it for writing",
    errno.EACCES: "permission denied: give this user the right to read and write it",
    errno.EPERM: "permission denied: give this user the right to read and write it",
    errno.EMFILE: f"too many open files: raise the limit by `ulimit -n 65536`, {_AGAIN}",
    errno.EIO: "the disk or network drive reports a read or write error: check the device",
    errno.ECONNREFUSED: "the connection was refused: check that the server runs and its address",
}
"""Number of an operating system's error -> what it means and what to do."""

_MEMORY_SIGNS = ("OOM when allocating", "out of memory", "failed to allocate", "memory exhausted")
_MEMORY_CURE = (
    "out of memory: lower global_batch_size, set micro_batch_size in pretraining, or use a "
    "smaller backbone or patch; the training goes on from its last checkpoint"
)
_FULL_CLASSES = ("ResourceExhaustedError", "OutOfRangeError", "PermissionDeniedError")
"""Classes of TensorFlow for errors of the operating system."""


def describe(error: BaseException) -> str:
    """Return one line about an error of the machine; "" when it is another error."""
    if isinstance(error, OSError) and error.errno in _CURES:
        path = error.filename2 or error.filename
        return _line(path, error.errno, str(error))
    return describe_text(type(error).__name__, str(error))


def describe_text(name: str, message: str) -> str:
    """Return the same of an error whose class and message alone are known.

    Args:
        name: of the class, without its module.
        message: of the error, as Beam or a worker reports it.
    """
    if name == "MemoryError":
        return f"{message}: {_MEMORY_CURE}" if message else _MEMORY_CURE
    if found := _ERRNO.search(message):
        quoted = _QUOTED.search(message)
        return _line(quoted["path"] if quoted else None, int(found["number"]), message)
    if name in _FULL_CLASSES:
        for number in _CURES:
            if os.strerror(number) in message:
                told = _OF_TENSORFLOW.search(message)
                path = _TEMPORARY.sub("", told["path"]) if told else None
                return _line(path, number, message)
        if any(sign.lower() in message.lower() for sign in _MEMORY_SIGNS):
            return f"{_device(message)}{_MEMORY_CURE}"
    return ""


def _line(path: object, number: int | None, message: str) -> str:
    if number not in _CURES:
        return ""
    # Writing to an open file gives no name: the number then stands for the error.
    return f"{path}: {_CURES[number]}" if path else f"{_CURES[number]} ({message.strip()})"


def _device(message: str) -> str:
    """Return "GPU:0 is " for the device that a message of TensorFlow names, or ""."""
    found = re.search(r"device:(?P<device>[A-Z]+:\d+)", message)
    return f"{found['device']} is " if found else ""
