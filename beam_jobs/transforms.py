"""PTransforms of the builds: InspectScenes, MakePairs, CutPatches. Each has a good output and a rejected one.

Input: STAC item dicts with their catalog. Output: CutResults that point at encoded patches on disk; pixels never cross
from one stage to the next, so memory does not grow with the number of pairs. `build.py` joins the transforms.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from beam_jobs import pairing, patches, readers, scenes, spool
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import locations
from beam_jobs.errors import DataError
from beam_jobs.patches import PairTask, Rejection
from beam_jobs.scenes import Scene

REJECTED = "rejected"
"""Tag of the output that holds Rejections."""

_LOGGER = logging.getLogger(__name__)


@dataclass
class InspectScenes(beam.PTransform):
    """(catalog path, STAC item) -> checked Scenes that the config can use; the rest in REJECTED."""

    config: BuildConfig

    def expand(self, items: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Groups by id first: a scene listed twice would otherwise become two pairs with the same patches."""
        return (
            items
            | "KeyById" >> beam.Map(lambda item: (str(item[1].get("id", "")), item))
            | "GroupById" >> beam.GroupByKey()
            | "Inspect" >> beam.FlatMap(_inspect, self.config).with_outputs(REJECTED, main="scenes")
        )


def _inspect(keyed: tuple[str, Iterable[tuple[str, dict[str, Any]]]], config: BuildConfig) -> Iterator[Any]:
    item_id, listed = keyed
    first, *repeated = sorted(listed, key=lambda item: item[0])
    for catalog, _ in repeated:
        yield _rejected(item_id, "duplicate_scene_id", f"{catalog}: item {item_id} is listed before", is_error=True)
    catalog, values = first
    try:
        scene = scenes.from_item(values, locations.parse(catalog))
        refusal = _unwanted(scene, config)
        if refusal is not None:
            yield _rejected(item_id, *refusal)
            return
        yield readers.inspect(scene, config.patch.s1_bands if scene.sensor == "s1" else config.patch.s2_bands)
    except DataError as error:
        yield _rejected(item_id, error.reason, str(error), is_error=True)


def _unwanted(scene: Scene, config: BuildConfig) -> tuple[str, str] | None:
    """(reason, detail) when a sound scene is not what this build is about."""
    wanted = config.patch.s2_processing_level
    if scene.sensor == "s2" and scene.processing_level != wanted:
        return "other_processing_level", f"is {scene.processing_level}, the build takes {wanted}"
    if config.label is not None and scene.sensor == config.label.label_from and scene.label is None:
        return "no_label", "has no label asset"
    return None


def _rejected(item_id: str, reason: str, detail: str, is_error: bool = False) -> beam.pvalue.TaggedOutput:
    rejection = Rejection(kind="scenes", id=item_id, reason=reason, detail=detail, is_error=is_error)
    return beam.pvalue.TaggedOutput(REJECTED, rejection)


@dataclass
class MakePairs(beam.PTransform):
    """Scenes -> (s1, s2) pairs, nearest in time; scenes of either sensor that found no partner in REJECTED."""

    config: BuildConfig

    def expand(self, found: beam.PCollection) -> dict[str, beam.PCollection]:
        """Joins by 1-degree cell, then keeps the best candidate of each Sentinel-1 scene over its cells."""
        choices = (
            found
            | "KeyByCell" >> beam.FlatMap(lambda scene: [(cell, scene) for cell in pairing.cells(scene)])
            | "GroupByCell" >> beam.GroupByKey()
            | "Candidates" >> beam.FlatMap(_candidates, self.config)
            | "GroupByS1" >> beam.GroupByKey()
            | "Choose" >> beam.FlatMap(_choose).with_outputs(REJECTED, main="pairs")
        )
        s2_ids = found | "S2" >> beam.Filter(lambda scene: scene.sensor == "s2") | beam.Map(lambda s2: (s2.scene_id, 0))
        used = choices.pairs | "UsedS2" >> beam.Map(lambda pair: (pair[1].scene_id, 0))
        unused = {"all": s2_ids, "used": used} | "JoinS2" >> beam.CoGroupByKey() | beam.FlatMap(_unused)
        rejected = (choices[REJECTED], unused) | "FlattenRejected" >> beam.Flatten()
        return {"pairs": choices.pairs, REJECTED: rejected}


def _candidates(
    cell: tuple[tuple[int, int], Iterable[Scene]], config: BuildConfig
) -> Iterator[tuple[str, tuple[Scene, Scene | None, str]]]:
    """For each Sentinel-1 scene of a cell the best Sentinel-2 scene of that cell."""
    in_cell = sorted(cell[1], key=lambda scene: scene.scene_id)
    s2_scenes = [scene for scene in in_cell if scene.sensor == "s2"]
    for s1 in in_cell:
        if s1.sensor == "s1":
            yield s1.scene_id, (s1, *pairing.nearest(s1, s2_scenes, config.pairing))


def _choose(candidates: tuple[str, Iterable[tuple[Scene, Scene | None, str]]]) -> Iterator[Any]:
    """The nearest candidate over all cells, or the Rejection of the Sentinel-1 scene."""
    listed = list(candidates[1])
    found = [(s1, s2) for s1, s2, _ in listed if s2 is not None]
    if found:
        yield min(found, key=lambda pair: pairing.rank(*pair))
        return
    # The longest reason is the one that names the nearest scene; a cell without any Sentinel-2 scene says less.
    why = max((why for _, _, why in listed), key=lambda text: ("nearest" in text, text))
    yield _rejected(candidates[0], "no_s2_partner", why)


def _unused(joined: tuple[str, dict[str, Iterable[int]]]) -> Iterator[Rejection]:
    if not list(joined[1]["used"]):
        detail = "no Sentinel-1 scene chose it"
        yield Rejection(kind="scenes", id=joined[0], reason="no_s1_partner", detail=detail)


@dataclass
class CutPatches(beam.PTransform):
    """(s1, s2) pairs -> one CutResult per strip, whose patches lie encoded in `spool_dir`.

    A pair of which one strip cannot be read is rejected whole: its other strips are not used either. Only names of strips
    cross the stages; the results are read from the spool at the end, since their histograms are large.

    Attributes:
        config: of the build.
        spool_dir: where finished strips are kept until the shards are written; a strip found there is not cut again.
    """

    config: BuildConfig
    spool_dir: str = field(default="")

    def expand(self, pairs: beam.PCollection) -> beam.PCollection:
        """Reshuffles so that workers share strips evenly, then groups by pair."""
        return (
            pairs
            | "ToStrips" >> beam.FlatMap(_strips, self.config)
            | "Spread" >> beam.Reshuffle()
            | "Cut" >> beam.Map(_cut, self.config, self.spool_dir)
            | "GroupByPair" >> beam.GroupByKey()
            | "WholePairs" >> beam.FlatMap(_whole_pair, self.spool_dir)
        )


def _strips(pair: tuple[Scene, Scene], config: BuildConfig) -> list[PairTask | Rejection]:
    tasks = patches.tasks(*pair, config)
    if tasks:
        return list(tasks)
    detail = f"shares less than one patch of {config.patch.size_px} px with {pair[1].scene_id}"
    return [Rejection(kind="scenes", id=pair[0].scene_id, reason="too_small", detail=detail)]


def _cut(task: PairTask | Rejection, config: BuildConfig, spool_dir: str) -> tuple[str, str | Rejection]:
    """(id of the Sentinel-1 scene, which names the pair; id of the strip that is in the spool, or why it is not)."""
    if isinstance(task, Rejection):
        return task.id, task
    if spool.load(spool_dir, task.task_id) is None:
        writer = spool.Writer(spool_dir, task.task_id, config)
        try:
            for outcome in patches.cut(task, config):
                writer.add(outcome)
        except DataError as error:
            writer.abandon()
            return task.s1.scene_id, _blame(error, task)
        writer.finish()
    return task.s1.scene_id, task.task_id


def _blame(error: DataError, task: PairTask) -> Rejection:
    """The Rejection of the scene whose file the error names."""
    owner = next((s for s in (task.s1, task.s2) if any(path in str(error) for path in s.paths)), task.s1)
    return Rejection(kind="scenes", id=owner.scene_id, reason=error.reason, detail=str(error), is_error=True)


def _whole_pair(strips: tuple[str, Iterable[str | Rejection]], spool_dir: str) -> Iterator[spool.CutResult]:
    outcomes = list(strips[1])
    # Strips of one scene often break off at the same spot of the same file.
    rejections = sorted({one for one in outcomes if isinstance(one, Rejection)}, key=lambda one: one.detail)
    if rejections:
        yield spool.CutResult(rejections=rejections)
        return
    for task_id in outcomes:
        result = spool.load(spool_dir, str(task_id))
        if result is None:
            raise ValueError(f"{spool_dir}: the strip {task_id} is gone from the spool")
        yield result
