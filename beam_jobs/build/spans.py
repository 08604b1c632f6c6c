"""Spans: a new span takes only scenes that no earlier span used.

Each version has a file `scenes.txt` with the ids of its scenes beside the manifest.
`WriteScenes` writes this file, and `LeaveOutKnown` rejects the scenes that are named in
the files of earlier spans. So no scene, and no pair of scenes, is in two spans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apache_beam as beam

from beam_jobs.build.patches import Rejection
from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError
from beam_jobs.scenes.scene import Scene
from beam_jobs.storage import files as storage

KNOWN_REASON: Reason = "in_earlier_span"
"""Reason for which a scene of an earlier span is rejected."""

SpanWord = Literal["new", "newest"]
"""A span that is not named by its number.

"new" is the one after the newest, and "newest" the newest there is, or the first. Both
take only scenes that no span before them used.
"""


def number_of(output_root: Location, word: SpanWord) -> int:
    """Return the number that a word stands for; 1 when there is no span."""
    newest = max((span for span, _ in layout.list_versions(output_root)), default=0)
    return newest + 1 if word == "new" else max(newest, 1)


def earlier_scene_files(output_root: Location, before: int) -> list[Location]:
    """Return the `scenes.txt` of the newest version of each span before `before`.

    Raises:
        DataError: a version has no such file, because an older terrapair built it.
    """
    files = [
        layout.version_dir(output_root, *numbers) / layout.SCENES_NAME
        for numbers in newest_versions(output_root)
        if numbers[0] < before
    ]
    for path in files:
        if not path.exists():
            raise DataError(
                f"{path}: the file is missing; build that span again, or build a span that exists",
                "no_scenes",
            )
    return files


def newest_versions(output_root: Location) -> list[tuple[int, int]]:
    """Return (span, newest version) of each span."""
    return sorted(dict(layout.list_versions(output_root)).items())


def scene_files_sha256(files: Sequence[Location]) -> str:
    """Return a hash over the contents of `files`."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)
    ).hexdigest()


@dataclass
class LeaveOutKnown(beam.PTransform):
    """Separate new scenes from those that earlier spans used.

    Input: pairs of (catalog path, STAC item). Main output: the pairs whose item id is
    in none of the files. Output `tag`: one Rejection for each other pair. The ids are
    joined
    by Beam and not held in memory, since earlier spans may have millions of scenes.

    Attributes:
        files: `scenes.txt` of earlier spans.
        tag: name of the output with the Rejections.
    """

    files: tuple[str, ...]
    tag: str

    def expand(self, items: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Join items and known ids by id."""
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
    """Write the ids of the scenes of all (s1, s2) pairs to `scenes.txt`.

    Attributes:
        building_dir: folder of the file.
    """

    building_dir: str

    def expand(self, pairs: beam.PCollection[tuple[Scene, Scene]]) -> beam.PCollection:
        """Collect the ids of all pairs and write them to one file."""
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
    storage.write_bytes(f"{building_dir}/{layout.SCENES_NAME}", text.encode())
