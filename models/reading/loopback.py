"""Loopback: make a listening port answer this machine only.

Input: a port on which this process listens. Output: the port, shut to other machines.
TensorFlow's data service listens on every interface and cannot be told otherwise. It
has no password, and it runs whatever graph it gets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SO_ATTACH_FILTER = 26
_LISTENING = "0A"
# A classic BPF program: an instruction is its code, two jumps and a value. A packet is
# dropped when 0 is returned. SKF_NET_OFF is where its IP header begins.
# Source: https://www.kernel.org/doc/html/latest/networking/filter.html; RFC 791 and RFC
# 8200 (headers).
_NET_OFF = 0x1_0000_0000 - 0x100000
_LOAD_BYTE, _LOAD_WORD, _SHIFT, _IF_EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 0x06
_DROP, _KEEP = (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)
_ONLY_LOOPBACK = (
    (_LOAD_BYTE, 0, 0, _NET_OFF),
    (_SHIFT, 0, 0, 4),
    (_IF_EQUAL, 0, 2, 4),
    # IPv4: the destination begins with 127.
    (_LOAD_BYTE, 0, 0, _NET_OFF + 16),
    (_IF_EQUAL, 8, 9, 127),
    # IPv6: the destination is ::1.
    (_LOAD_WORD, 0, 0, _NET_OFF + 24),
    (_IF_EQUAL, 0, 7, 0),
    (_LOAD_WORD, 0, 0, _NET_OFF + 28),
    (_IF_EQUAL, 0, 5, 0),
    (_LOAD_WORD, 0, 0, _NET_OFF + 32),
    (_IF_EQUAL, 0, 3, 0),
    (_LOAD_WORD, 0, 0, _NET_OFF + 36),
    (_IF_EQUAL, 0, 1, 1),
    _KEEP,
    _DROP,
)


def shut_to_others(port: int) -> None:
    """Make a port of this process drop every packet that is not to a loopback address.

    Raises:
        OSError: the port is not found, or this system has no such filters (it is not
            Linux).
    """
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _ONLY_LOOPBACK)
    buffer = ctypes.create_string_buffer(program)
    filters = struct.pack("@HP", len(_ONLY_LOOPBACK), ctypes.addressof(buffer))
    found = list(_listening(port))
    if not found:
        raise OSError(f"this process has no port {port} that can be shut")
    for descriptor in found:
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)


def _listening(port: int) -> Iterator[int]:
    """Yield the descriptors of this process that listen on `port`."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/self/fd/{name}"))
            if match and match[1] in inodes:
                yield int(name)
