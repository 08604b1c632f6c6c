"""Windows: the versions of several spans that a training reads as one data set.

The newest spans of a window give all their splits. Older spans give eval and test only:
a block has the same split in every span, so what they judge was never trained on.
Versions that a check refused are left out (`set_aside.py`). `resolve` chooses the
versions, and `merge` makes one manifest of theirs.
"""

from __future__ import annotations

import heapq
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import IO, Any

from beam_jobs.contracts import layout, manifest, set_aside, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.manifest import BandStatistics, Manifest, SourceEntry, WindowEntry
from beam_jobs.contracts.reasons import Reason

JUDGED: tuple[layout.Split, ...] = ("eval", "test")
"""Splits that a window takes of all spans."""
_KNOWN: Reason = "in_earlier_span"
_NORMAL = NormalDist()
_BISECTIONS = 60
"""Halvings of the range between the spans' percentiles; more change no digit."""

Counts = dict[str, dict[str, int]]


class WindowError(TerrapairError, ValueError):
    """Spans that cannot be read as one data set; one line."""

    exit_code = ExitCode.BAD_DATA


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How many spans a training reads.

    Attributes:
        last: number of the newest spans whose train patches are used; None = all.
    """

    last: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise ValueError(f"last must be at least 1, got {self.last}")


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """The entries of a window as one JSON document."""

    window: tuple[WindowEntry, ...]


def resolve(root: str | os.PathLike[str], config: WindowConfig) -> tuple[WindowEntry, ...]:
    """Return the newest version of each span, the oldest span first.

    Versions that are set aside do not count.

    Args:
        root: folder that holds the spans.
        config: the spans before its `last` give only the splits `JUDGED`.

    Raises:
        WindowError: there is no version.
        ManifestError: a manifest cannot be read.
        DamagedFileError: a record of what is set aside is not what was written.
    """
    there = layout.list_versions(root)
    if not there:
        raise WindowError(f"{root}: holds no version of any span: build one first")
    left_out = set_aside.left_out(root)
    newest = sorted(dict(one for one in there if one not in left_out).items())
    if not newest:
        spans = sorted({span for span, _ in there})
        raise WindowError(
            f"{root}: every span is set aside, because its data were refused: repair the scenes "
            f"and remove the spans, or accept them by drift.accept_spans={spans}"
        )
    trained = newest if config.last is None else newest[-config.last :]
    return tuple(
        WindowEntry(
            span=span,
            version=version,
            sha256=manifest.read(layout.version_dir(root, span, version)).sha256,
            splits=layout.SPLITS if (span, version) in trained else JUDGED,
        )
        for span, version in newest
    )


def version_dir(root: str | os.PathLike[str], entry: WindowEntry) -> Location:
    """Return the directory of one version of a window."""
    return layout.version_dir(root, entry.span, entry.version)


def read(root: str | os.PathLike[str], window: Sequence[WindowEntry]) -> Manifest:
    """Return the manifest of a window; see `merge`.

    Raises:
        FileNotFoundError: a version is gone.
        ManifestError: a manifest cannot be read.
        WindowError: a version is not the one that the window names, or see `merge`.
    """
    manifests = []
    for entry in window:
        folder = version_dir(root, entry)
        found = manifest.read(folder)
        if found.sha256 != entry.sha256:
            raise WindowError(
                f"{folder}: was built anew while it was in use: its manifest has the hash "
                f"{found.sha256}, not {entry.sha256}; run again"
            )
        manifests.append(found)
    return merge(window, manifests)


def merge(window: Sequence[WindowEntry], manifests: Sequence[Manifest]) -> Manifest:
    """Return one manifest for all versions of a window.

    Counts are added. Mean and standard deviation are those of all train pixels of the
    window, as exact as the rounded numbers of the versions. Percentiles are estimated;
    see `merged_statistics`. A window of one version has the manifest of that version.

    Args:
        window: the versions, the oldest span first.
        manifests: their manifests, in the same order.

    Raises:
        WindowError: two versions were built with different settings.
    """
    if len(window) != len(manifests) or not window:
        raise ValueError(f"got {len(window)} entries and {len(manifests)} manifests")
    newest = manifests[-1]
    if len(window) == 1:
        return newest
    for found in manifests:
        if difference := _difference(_comparable(found), _comparable(newest)):
            raise WindowError(
                f"span {found.span}, version {found.version} and span {newest.span}, version "
                f"{newest.version} cannot be read together: they were built with different "
                f"settings, {difference}: use a new root for other settings, or remove `spans` to "
                "train on the newest span alone"
            )
    trained = [
        found for entry, found in zip(window, manifests, strict=True) if "train" in entry.splits
    ]
    taken = [(found, entry.splits) for entry, found in zip(window, manifests, strict=True)]
    return replace(
        newest,
        num_examples=_sum(
            {split: found.num_examples.get(split, 0) for split in splits} for found, splits in taken
        ),
        num_pixels_per_class=_sum_nested(
            {split: found.num_pixels_per_class.get(split, {}) for split in splits}
            for found, splits in taken
        ),
        # Scenes of earlier spans are a part of the window.
        num_rejected=_sum({**found.num_rejected, _KNOWN: 0} for found in trained),
        num_held_out=_sum_nested(_of_splits(found.num_held_out, splits) for found, splits in taken),
        num_absent=_sum_nested(_of_splits(found.num_absent, splits) for found, splits in taken),
        num_out_of_range=_sum_nested(found.num_out_of_range for found in trained),
        sources=_merged_sources(trained),
        shards={
            f"{layout.version_dir('', found.span, found.version)}/{name}": entry
            for found, splits in taken
            for name, entry in found.shards.items()
            if name.split("/")[0] in splits
        },
        s1_statistics=_merged_bands(trained, "s1"),
        s2_statistics=_merged_bands(trained, "s2"),
        source_sha256=settings.sha256([found.source_sha256 for found in manifests]),
        code_sha256=settings.sha256(sorted({found.code_sha256 for found in manifests})),
        window=tuple(window),
    )


def check_disjoint(root: str | os.PathLike[str], window: Sequence[WindowEntry]) -> None:
    """Check that no scene is in two versions of a window.

    The lists of scenes are sorted, so they are merged without being held in memory.

    Args:
        root: folder that holds the spans.
        window: the versions.

    Raises:
        WindowError: a scene is in two versions, or a version has no list of its scenes,
            because an older terrapair built it.
    """
    if len(window) < 2:
        return
    files = [version_dir(root, entry) / layout.SCENES_NAME for entry in window]
    for path in files:
        if not path.exists():
            raise WindowError(f"{path}: the file is missing: build that span again")
    with ExitStack() as stack:
        listed = [
            _numbered(stack.enter_context(path.open("rb")), number)
            for number, path in enumerate(files)
        ]
        for (scene, one), (other, two) in itertools.pairwise(heapq.merge(*listed)):
            if scene == other:
                raise WindowError(
                    f"{files[two]}: the scene {scene} is in {files[one]} too, so its patches would "
                    "be counted twice: build the later span with --new-span"
                )


def merged_statistics(parts: Sequence[BandStatistics]) -> BandStatistics:
    """Return the statistics of one band over the pixels of several versions.

    With n pixels, mean m and standard deviation s of each part, the mean is
    sum(n m) / sum(n), and the variance is sum(n (s^2 + (m - mean)^2)) / sum(n).

    A percentile of all pixels does not follow from those of the parts. Each part is
    taken as a normal distribution with another width on each side of its median, which
    has the three known percentiles. The result is the percentile of their mixture. It
    is exact when all parts are alike or normal, and always between those of the parts.

    Args:
        parts: statistics of one band. Those without pixels do not count.
    """
    filled = [part for part in parts if part.num_pixels]
    if len(filled) < 2:
        return (filled or list(parts))[0]
    total = sum(part.num_pixels for part in filled)
    mean = sum(part.num_pixels * part.mean for part in filled) / total
    variance = (
        sum(part.num_pixels * (part.std**2 + (part.mean - mean) ** 2) for part in filled) / total
    )
    # Rounded as the build rounds them.
    return replace(
        filled[-1],
        num_pixels=total,
        mean=round(mean, 6),
        std=round(variance**0.5, 6),
        p02=round(_percentile(filled, 0.02, [part.p02 for part in filled]), 4),
        p50=round(_percentile(filled, 0.50, [part.p50 for part in filled]), 4),
        p98=round(_percentile(filled, 0.98, [part.p98 for part in filled]), 4),
    )


def of_card(card: Mapping[str, Any]) -> tuple[WindowEntry, ...]:
    """Return the versions that a model was trained on, according to its card.

    The result is empty when the card does not say it, as for public weights.
    """
    if card.get("data_window"):
        return from_json(json.dumps({"window": card["data_window"]}))
    span, version = card.get("data_span"), card.get("data_version")
    sha256 = card.get("data_manifest_sha256")
    if not isinstance(span, int) or not isinstance(version, int) or not isinstance(sha256, str):
        return ()
    return (WindowEntry(span=span, version=version, sha256=sha256, splits=layout.SPLITS),)


def entries_of(found: Manifest) -> tuple[WindowEntry, ...]:
    """Return the versions that a manifest describes; one, if it is of no window."""
    return found.window or (
        WindowEntry(
            span=found.span, version=found.version, sha256=found.sha256, splits=layout.SPLITS
        ),
    )


def shard_paths(
    root: str | os.PathLike[str], window: Sequence[WindowEntry], split: layout.Split
) -> list[Location]:
    """Return the shards of one split of a window, the oldest span first."""
    return [
        path
        for entry in window
        if split in entry.splits
        for path in layout.shard_paths(version_dir(root, entry), split)
    ]


def describe(window: Sequence[WindowEntry], mark: str = "/") -> str:
    """Return a window in a few words: "2/1, 3/1; eval and test of 1/2"."""
    trained = [entry for entry in window if "train" in entry.splits]
    judged = [entry for entry in window if "train" not in entry.splits]
    parts = [
        ", ".join(f"{entry.span}{mark}{entry.version}" for entry in entries)
        for entries in (trained, judged)
    ]
    return f"{parts[0]}; eval and test of {parts[1]}" if judged else parts[0]


def to_json(window: Sequence[WindowEntry]) -> str:
    """Return a window as canonical JSON."""
    return settings.canonical_json(_Entries(window=tuple(window)))


def from_json(text: str) -> tuple[WindowEntry, ...]:
    """Return the window that `to_json` wrote."""
    return settings.from_dict(_Entries, json.loads(text), "window").window


def _numbered(file: IO[bytes], number: int) -> Iterator[tuple[str, int]]:
    for line in io.TextIOWrapper(file, encoding="utf-8"):
        yield line.rstrip("\n"), number


def _percentile(parts: Sequence[BandStatistics], share: float, known: Sequence[float]) -> float:
    """Return where a share of the pixels of all parts is below, by bisection.

    The place is between the percentiles `known` of the parts.
    """
    low, high = min(known), max(known)
    total = sum(part.num_pixels for part in parts)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = sum(part.num_pixels * _share_below(part, middle) for part in parts) / total
        low, high = (middle, high) if below < share else (low, middle)
    return (low + high) / 2


def _share_below(part: BandStatistics, value: float) -> float:
    """Return the share of a part's pixels below a value."""
    if value == part.p50:
        return 0.5
    width = part.p50 - part.p02 if value < part.p50 else part.p98 - part.p50
    if width <= 0.0:
        return float(value > part.p50)
    return _NORMAL.cdf((value - part.p50) / width * _NORMAL.inv_cdf(0.98))


def _merged_bands(trained: Sequence[Manifest], sensor: Sensor) -> tuple[BandStatistics, ...]:
    bands = zip(*(found.statistics(sensor) for found in trained), strict=True)
    return tuple(merged_statistics(parts) for parts in bands)


def _merged_sources(trained: Sequence[Manifest]) -> tuple[SourceEntry, ...]:
    num_pairs: dict[tuple[str, str, str], SourceEntry] = {}
    for source in (source for found in trained for source in found.sources):
        key = source.sensor, source.source, source.license
        before = num_pairs[key].num_pairs if key in num_pairs else 0
        num_pairs[key] = replace(source, num_pairs=before + source.num_pairs)
    return tuple(num_pairs[key] for key in sorted(num_pairs))


def _comparable(found: Manifest) -> dict[str, Any]:
    """Return the settings of a version that must be the same in all spans."""
    config = dict(found.config)
    # The size of shards changes no patch.
    config.pop("shards", None)
    label = config.get("label")
    if isinstance(label, Mapping) and isinstance(label.get("vector"), Mapping):
        # One file with the polygons of all scenes grows with the scenes.
        vector = {name: value for name, value in label["vector"].items() if name != "sha256"}
        config["label"] = {**label, "vector": vector}
    return config


def _difference(one: Any, two: Any, path: str = "") -> str:
    """Return where two trees of settings differ first; "" = nowhere."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for name in sorted({*one, *two}):
            where = f"{path}.{name}" if path else str(name)
            if found := _difference(one.get(name), two.get(name), where):
                return found
        return ""
    return "" if one == two else f"{path} {one!r} and {two!r}"


def _of_splits(counts: Counts, splits: Sequence[str]) -> Counts:
    """Return what -> split -> number, of some splits."""
    return {
        name: {split: number for split, number in of.items() if split in splits}
        for name, of in counts.items()
    }


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return {name: number for name, number in sorted(total.items()) if number}


def _sum_nested(parts: Iterable[Counts]) -> Counts:
    total: Counts = {}
    for part in parts:
        for name, counts in part.items():
            if counts:
                total[name] = _sum([total.get(name, {}), counts])
    return dict(sorted(total.items()))
