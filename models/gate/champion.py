"""The champion: the model in service, scored on the patches that judge the candidate.

Input: the folders of both models, and the test splits of the data that each was
trained on. Output: the counts of both on the same patches, or why they cannot be
compared. The champion's numbers always come from running it again here, never from its
card: data, code and threshold may have changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.contracts import layout, manifest, windows
from beam_jobs.contracts.errors import TerrapairError
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.manifest import Manifest, WindowEntry
from beam_jobs.contracts.published import read_card
from models.gate.judgement import Scored, join
from models.published.export import load_segmenter
from models.scores.patch_scores import PatchScores
from models.scores.scoring import SplitScorer


class IncomparableError(TerrapairError, ValueError):
    """A champion that cannot be compared with the candidate; one line says why."""


@dataclass(frozen=True, kw_only=True)
class TestSplit:
    """Labelled patches that no model was trained on.

    Attributes:
        manifest: of the version, or the window of spans, that the candidate was trained
            on.
        files: its shards of the split `test`.
        data_root: folder of all versions of the task's data.
    """

    manifest: Manifest
    files: Sequence[str]
    data_root: str


def score_both(
    candidate_dir: str, own: PatchScores, champion_dir: str, test: TestSplit, batch_size: int
) -> tuple[Scored, tuple[str, ...]]:
    """Return the counts of both models, and notes about what is missing.

    Both are scored on the candidate's test split. If the champion was trained on
    other versions of the data, both are also scored on the test splits of those.

    Args:
        candidate_dir: SavedModel of the new model.
        own: its counts on `test`.
        champion_dir: SavedModel of the model in service.
        test: test split of the candidate's data.
        batch_size: patches at a time.

    Raises:
        IncomparableError: the champion has other inputs or classes, or cannot be
            loaded.
    """
    card = _read(champion_dir)
    class_names = own.class_names
    _check_same(champion_dir, card, test.manifest, class_names)
    files, notes = champions_test(card, test)
    try:
        model = load_segmenter(champion_dir)
        champion = SplitScorer(model, class_names, batch_size=batch_size)
        scored = Scored(candidate=own, champion=champion.score(test.files))
        if files:
            candidate = SplitScorer(
                load_segmenter(candidate_dir), class_names, batch_size=batch_size
            )
            other = Scored(candidate=candidate.score(files), champion=champion.score(files))
            scored = join(scored, other)
    except TerrapairError as error:
        raise IncomparableError(f"{champion_dir}: cannot be scored: {error}") from error
    except (ValueError, OSError) as error:
        why = " ".join(str(error).split())[:300]
        raise IncomparableError(f"{champion_dir}: cannot be scored: {why}") from error
    return scored, notes


def _read(champion_dir: str) -> dict[str, Any]:
    try:
        return read_card(champion_dir)
    except (OSError, TerrapairError) as error:
        raise IncomparableError(f"{champion_dir}: {error}") from error


def _check_same(
    champion_dir: str, card: dict[str, Any], data: Manifest, class_names: Sequence[str]
) -> None:
    """Raise IncomparableError if the champion has other inputs or classes."""
    theirs = {sensor: list(entry["bands"]) for sensor, entry in card["inputs"].items()}
    ours = {sensor: list(data.bands(sensor)) for sensor in theirs}
    for what, old, new in (
        ("bands", theirs, ours),
        ("classes", card.get("class_names"), list(class_names)),
        ("pixel size in metres", card.get("pixel_size_m"), data.pixel_size_m),
    ):
        if old != new:
            gone = ""
            if what == "classes" and isinstance(old, list):
                missing = [name for name in old if name not in class_names]
                gone = f"; gone: {', '.join(missing)}" if missing else ""
            raise IncomparableError(
                f"{champion_dir}: has the {what} {old}, the new model {new}{gone}"
            )
    level = card.get("s2_processing_level")
    if level is not None and level != data.s2_processing_level:
        raise IncomparableError(
            f"{champion_dir}: takes Sentinel-2 {level}, the new model {data.s2_processing_level}"
        )


def champions_test(card: dict[str, Any], test: TestSplit) -> tuple[list[str], tuple[str, ...]]:
    """Return the shards of the champion's own test split, and notes.

    Versions that the candidate's test split has too are left out.
    """
    window = windows.of_card(card)
    if not window:
        return [], ("the champion's card does not say what data it was trained on",)
    ours = {entry.sha256 for entry in windows.entries_of(test.manifest) if "test" in entry.splits}
    files: list[str] = []
    notes: list[str] = []
    for entry in window:
        if "test" not in entry.splits or entry.sha256 in ours:
            continue
        folder = windows.version_dir(test.data_root, entry)
        if why := _why_not(folder, entry, test.manifest):
            notes.append(f"not compared on the champion's own test split: {why}")
        else:
            files += map(str, layout.shard_paths(folder, "test"))
    return files, tuple(notes)


def _why_not(folder: Location, entry: WindowEntry, ours: Manifest) -> str:
    """Return why a version of the champion's data cannot judge; "" = it can."""
    try:
        theirs = manifest.read(folder)
    except (OSError, manifest.ManifestError) as error:
        return str(error)
    if theirs.sha256 != entry.sha256:
        return f"{folder} was built anew"
    if theirs.config.get("split") != ours.config.get("split"):
        # A place may have moved from train to test, or back.
        return (
            "the settings of the split have changed, so the new model may have been trained on it"
        )
    return ""
