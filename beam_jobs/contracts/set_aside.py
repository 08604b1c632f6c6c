"""Set aside: versions that a check refused, and that windows leave out.

The record of a version is `span-N/set-aside-M.json`, beside the version. So it lasts as
long as the span, and a version that is built again is judged anew.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.locations import Location, content_of, glob, parse, staged

Version = tuple[int, int]
"""(span, version) of a data set."""
_NAME = re.compile(r"set-aside-\d+\.json$")


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """The record of one version.

    Attributes:
        span: number of its span.
        version: number of the version within the span.
        at: UTC time, ISO 8601.
        reasons: why it was refused, one sentence each.
        put_back_at: UTC time from which windows take it again; "" = they leave it out.
    """

    span: int
    version: int
    at: str
    reasons: tuple[str, ...]
    put_back_at: str = ""

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError(f"reasons must hold at least one, got {self.reasons}")

    @property
    def name(self) -> str:
        """Span and version as "2.1"."""
        return f"{self.span}.{self.version}"


def add(root: str | os.PathLike[str], record: SetAside) -> None:
    """Write a record; it replaces an earlier one of the same version.

    Args:
        root: folder that holds the spans.
        record: of a version.
    """
    text = json.dumps(settings.to_dict(record), indent=1, sort_keys=True)
    with staged(_path(root, record)) as file:
        file.write_text(f"{text}\n")


def read(root: str | os.PathLike[str]) -> list[SetAside]:
    """Return the records of versions that exist, also of those that were put back.

    Raises:
        DamagedFileError: a record is not what was written.
    """
    found = []
    versions = set(layout.list_versions(root))
    for path in glob(root, "span-*/set-aside-*.json"):
        if not _NAME.search(path.name):
            continue
        with content_of(path, "remove the file: the version is judged again then"):
            found.append(settings.from_dict(SetAside, json.loads(path.read_text())))
    kept = [one for one in found if (one.span, one.version) in versions]
    return sorted(kept, key=lambda one: (one.span, one.version))


def left_out(root: str | os.PathLike[str]) -> set[Version]:
    """Return the versions that windows leave out."""
    return {(one.span, one.version) for one in read(root) if not one.put_back_at}


def put_back(root: str | os.PathLike[str], spans: Collection[int], at: str) -> None:
    """Let windows take all versions of some spans again.

    Args:
        root: folder that holds the spans.
        spans: their numbers; others stay as they are.
        at: UTC time, ISO 8601.
    """
    for record in read(root) if spans else ():
        if record.span in spans and not record.put_back_at:
            add(root, replace(record, put_back_at=at))


def of_same_scenes(version_dir: Location, root: str | os.PathLike[str]) -> list[Version]:
    """Return the versions below a folder that were cut from a scene of a version.

    Args:
        version_dir: directory of the version, of another data set.
        root: folder that holds the spans that are looked at.
    """
    scenes = version_dir / layout.SCENES_NAME
    return [
        numbers
        for numbers in layout.list_versions(root)
        if _share_a_line(scenes, layout.version_dir(root, *numbers) / layout.SCENES_NAME)
    ]


def _share_a_line(one: Location, two: Location) -> bool:
    """Return whether two sorted files share a line; False if one is missing."""
    if not (one.exists() and two.exists()):
        return False
    with one.open() as first, two.open() as second:
        # No file has a line twice, so equal neighbours are of both files. Memory holds
        # two lines.
        return any(a == b for a, b in itertools.pairwise(heapq.merge(first, second)))


def _path(root: str | os.PathLike[str], record: SetAside) -> Location:
    return parse(root) / f"span-{record.span}" / f"set-aside-{record.version}.json"
