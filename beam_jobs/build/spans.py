"""Spans: which scenes earlier spans used, so that a new span takes only what is new.

Version directories -> ids of their scenes, from the `scenes.txt` beside each manifest;
a PTransform that turns away scenes that are among them. `build.py` writes the file and
applies the transform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_jobs.build.patches import Rejection
from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError
from beam_jobs.scenes.scene import Scene
from beam_jobs.storage import files as storage

SCENES_NAME = "scenes.txt"
"""Ids of the scenes whose pairs a version was cut from, one a line, sorted."""
KNOWN_REASON: Reason = "in_earlier_span"


def next_span(output_root: Location) -> int:
    """One more than the newest span; 1 when there is none."""
    return max((span for span, _ in layout.list_versions(output_root)), default=0) + 1


def earlier_scene_files(output_root: Location) -> list[Location]:
    """`scenes.txt` of the newest version of each span.

    Raises:
        DataError: a version has none, as it was built before there were such files.
    """
    files = [
        layout.version_dir(output_root, *numbers) / SCENES_NAME
        for numbers in newest_versions(output_root)
    ]
    for path in files:
        if not path.exists():
            raise DataError(
                f"{path}: is missing; build that span again, or name a span instead of a new one",
                "no_scenes",
            )
    return files


def newest_versions(output_root: Location) -> list[tuple[int, int]]:
    """(span, its newest version) of each span."""
    return sorted(dict(layout.list_versions(output_root)).items())


def scene_files_sha256(files: Sequence[Location]) -> str:
    """Hash over the files: part of what a build with earlier spans is made from."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)
    ).hexdigest()


@dataclass
class LeaveOutKnown(beam.PTransform):
    """(catalog path, STAC item) -> those whose id is in none of the files; a Rejection of each other one in `tag`.

    A join, not a set in every worker: earlier spans may hold millions of scenes.

    Attributes:
        files: `scenes.txt` of earlier spans.
        tag: of the output that holds Rejections.
    """

    files: tuple[str, ...]
    tag: str

    def expand(self, items: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Joins by id."""
        known = (
            items.pipeline
            | "Files" >> beam.Create(list(self.files))
            | "Lines" >> beam.FlatMap(_lines)
        )
        keyed = items | "KeyById" >> beam.Map(lambda item: (str(item[1].get("id", "")), item))
        return (
            {"items": keyed, "known": known}
            | "JoinById" >> beam.CoGroupByKey()
            | "Part" >> beam.FlatMap(_part, self.tag).with_outputs(self.tag, main="new")
        )


def _lines(path: str) -> Iterator[tuple[str, int]]:
    with storage.open_text(path) as lines:
        for line in lines:
            yield line.rstrip("\n"), 0


def _part(joined: tuple[str, dict[str, Iterable[Any]]], tag: str) -> Iterator[Any]:
    scene_id, groups = joined
    is_known = bool(list(groups["known"]))
    for item in groups["items"]:
        if not is_known:
            yield item
            continue
        detail = "an earlier span was cut from it"
        rejection = Rejection(kind="scenes", id=scene_id, reason=KNOWN_REASON, detail=detail)
        yield beam.pvalue.TaggedOutput(tag, rejection)


@dataclass
class WriteScenes(beam.PTransform):
    """(s1, s2) pairs -> `scenes.txt` in `building_dir`; yields nothing that is needed."""

    building_dir: str

    def expand(self, pairs: beam.PCollection[tuple[Scene, Scene]]) -> beam.PCollection:
        """One file for all."""
        return (
            pairs
            | "Ids"
            >> beam.FlatMap(lambda pair: [scene.scene_id for scene in pair if not scene.is_absent])
            | beam.Distinct()
            | "OneFile" >> beam.Map(lambda scene_id: (None, scene_id))
            | beam.GroupByKey()
            | "Write" >> beam.Map(_write, self.building_dir)
        )


def _write(group: tuple[None, Iterable[str]], building_dir: str) -> None:
    text = "".join(f"{scene_id}\n" for scene_id in sorted(group[1]))
    storage.write_bytes(f"{building_dir}/{SCENES_NAME}", text.encode())
