"""PTransforms of the builds: InspectScenes, MakePairs, CutPatches. Each has a good output and a rejected one.

Input: STAC item dicts with their catalog. Output: CutResults that point at encoded patches on disk; pixels never cross
from one stage to the next, so memory does not grow with the number of pairs. `build.py` joins the transforms.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam

from beam_jobs import pairing, patches, readers, scenes, spool
from beam_jobs.config import BuildConfig
from beam_jobs.contracts.bands import Sensor
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
        scene = scenes.from_item(values, Path(catalog))
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
        """Joins outlines by cell and time bucket, then ids with scenes: a scene itself is shuffled twice, not per cell."""
        pairing_config = self.config.pairing
        chosen = (
            found
            | "Outline" >> beam.Map(pairing.outline)
            | "KeyByCellAndTime" >> beam.FlatMap(lambda one: [(key, one) for key in pairing.keys(one, pairing_config)])
            | "GroupByCellAndTime" >> beam.GroupByKey()
            | "Join" >> beam.FlatMap(lambda group: pairing.join(*group, pairing_config))
            | "Best" >> beam.combiners.Top.PerKey(pairing_config.max_s2_per_s1, reverse=True)
        )
        by_s1 = {"scenes": _keyed(found, "s1"), "chosen": chosen} | "JoinS1" >> beam.CoGroupByKey()
        asked = by_s1 | "Choose" >> beam.FlatMap(_choose, self.config).with_outputs(REJECTED, main="s1_by_s2_id")
        by_s2 = {"scenes": _keyed(found, "s2"), "s1": asked.s1_by_s2_id} | "JoinS2" >> beam.CoGroupByKey()
        made = by_s2 | "Pair" >> beam.FlatMap(_pair, self.config).with_outputs(REJECTED, main="pairs")
        return {
            "pairs": made.pairs,
            REJECTED: (asked[REJECTED], made[REJECTED]) | "FlattenRejected" >> beam.Flatten(),
        }


def _keyed(found: beam.PCollection, sensor: Sensor) -> beam.PCollection:
    return (
        found
        | f"Only {sensor}" >> beam.Filter(lambda scene: scene.sensor == sensor)
        | f"KeyById {sensor}" >> beam.Map(lambda scene: (scene.scene_id, scene))
    )


def _choose(joined: tuple[str, dict[str, Iterable[Any]]], config: BuildConfig) -> Iterator[Any]:
    """(id of a chosen Sentinel-2 scene, the Sentinel-1 scene), or the Rejection of the Sentinel-1 scene."""
    scene_id, values = joined
    chosen, why = pairing.choose(itertools.chain.from_iterable(values["chosen"]), config.pairing)
    if not chosen:
        yield _rejected(scene_id, "no_s2_partner", why)
    for s1, candidate in itertools.product(values["scenes"], chosen):
        yield candidate.s2_id, s1


def _pair(joined: tuple[str, dict[str, Iterable[Scene]]], config: BuildConfig) -> Iterator[Any]:
    """The pairs of a Sentinel-2 scene, or its Rejection when no Sentinel-1 scene chose it."""
    scene_id, values = joined
    (s2,) = values["scenes"]
    kept, left_out = pairing.nearest_passes(s2, values["s1"], config.pairing)
    if not kept:
        yield _rejected(scene_id, "no_s1_partner", "no Sentinel-1 scene chose it")
    for s1 in kept:
        yield s1, s2
    for s1 in left_out:
        detail = f"{scene_id} goes with nearer passes; max_s1_per_s2 is {config.pairing.max_s1_per_s2}"
        yield _rejected(s1.scene_id, "s2_taken", detail)


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
