"""Archives: zip files are measured before anything in them is unpacked.

Input: an open zip file. Output: nothing, or an error of one line. A zip of a few
kilobytes can claim to unpack into more than any memory holds, and can hold millions of
members.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

MAX_RATIO = 1032
"""Largest ratio that deflate reaches.

Source: zlib technical details, https://zlib.net/zlib_tech.html ("Maximum Compression
Factor").
"""
_SLACK_BYTES = 1 << 20
"""Small archives may exceed MAX_RATIO by this much: no memory is too small for it."""


class ArchiveError(ValueError):
    """An archive is larger than its reader allows; one line."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the members of an archive may take.

    Attributes:
        max_members: largest number of members.
        max_bytes: largest size of all members after unpacking.
    """

    max_members: int
    max_bytes: int


def check_zip(archive: zipfile.ZipFile, bounds: Bounds) -> None:
    """Check the members of a zip file by what its directory says.

    `zipfile` never unpacks more of a member than the directory says.

    Raises:
        ArchiveError: there are too many members, they would take too many bytes, more
            than any compression explains, or they overlap: the file would then unpack
            into far more than its own size allows.
    """
    members = archive.infolist()
    if len(members) > bounds.max_members:
        raise ArchiveError(
            f"an archive may have {bounds.max_members} members here, got {len(members)}"
        )
    num_bytes = sum(member.file_size for member in members)
    if num_bytes > bounds.max_bytes:
        raise ArchiveError(
            f"an archive may unpack into {bounds.max_bytes} bytes here, got {num_bytes}"
        )
    num_packed = sum(member.compress_size for member in members)
    if num_bytes > MAX_RATIO * num_packed + _SLACK_BYTES:
        raise ArchiveError(
            f"an archive may unpack into {MAX_RATIO} times its bytes, "
            f"got {num_bytes} from {num_packed}"
        )
    position = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < position:
            raise ArchiveError(f"member {member.filename!r} shares bytes with another member")
        position = member.header_offset + member.compress_size
