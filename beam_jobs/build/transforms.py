"""PTransforms of a build: InspectScenes, MakePairs, CutPatches.

Input: STAC items with their catalog. Output: CutResults that point at encoded patches
on disk. Each transform has a good output and one of Rejections. Pixels never cross from
one stage to the next, so memory does not grow with the number of pairs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam
import threadpoolctl

from beam_jobs.build import label_checks, patches, spool
from beam_jobs.build.patches import PairTask, Rejection
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import locations
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.reasons import Reason, Refusal
from beam_jobs.engines.claims import Claim
from beam_jobs.errors import DataError
from beam_jobs.judging import baselines, holdouts, pairing
from beam_jobs.rasters import open_files
from beam_jobs.scenes import inspection
from beam_jobs.scenes.scene import Scene, absent_partner, from_item

ALONE = "alone"
"""Tag of the output with pairs of a labelled scene and an absent partner."""
REJECTED = "rejected"
"""Tag of the output with Rejections."""
PRODUCTS = "products"
"""Tag of the output with scenes that may have a newer product."""

SPOOL_FILE_BYTES = 64 << 20
"""Size of a bundle of small pairs.

It is large enough for object stores and file systems, and small enough that a kill
loses only seconds of work.
"""
MAX_PAIRS_PER_FILE = 1024
"""Bounds the scenes that a worker holds, and what a kill loses, if patches are tiny."""
ROWS_PER_TASK = 4096
"""Least rows of a large pair that one worker cuts one after another.

Archives store images in blocks of up to 1024 rows. If each strip were a task, workers
would decode each block once per strip, 16 times for patches of 64 px. Where one task
ends within a row of blocks and the next begins, both decode it: with this number, that
is one row of blocks in four. A kill loses a minute or two per worker.

Source: ESA, Sentinel-2 Products Specification Document: JPEG 2000 tiles have 1024 rows
of 10 m.
"""
MIN_FILES = 64
"""Least number of bundles, so that 64 workers have something to do.

It is not the number of workers: a job that is started again with another number of
workers must find the bundles of the first.
"""


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """Names a task of the spool.

    Attributes:
        name: of the task; the same pairs give the same name, so that a job which is
            started again finds what an earlier one finished.
        is_bundle: the task holds several small pairs, not one strip of a large pair.
    """

    name: str
    is_bundle: bool


@dataclass(frozen=True, kw_only=True)
class FinishedTask:
    """A task whose result lies in the spool: its name, and how many pairs it holds."""

    name: str
    num_pairs: int


class Inspected(NamedTuple):
    """The outputs of InspectScenes.

    Attributes:
        scenes: for the build.
        rejected: Rejections.
    """

    scenes: beam.PCollection
    rejected: beam.PCollection


@dataclass
class InspectScenes(beam.PTransform):
    """(catalog path, STAC item) -> Inspected: Scenes for the build, and Rejections."""

    config: BuildConfig

    def expand(self, items: beam.PCollection) -> Inspected:
        """Group items by id, so that a scene that is listed twice is used once.

        The products of one datatake and tile are grouped too, and the newest is used.
        """
        found = (
            items
            | "KeyById" >> beam.Map(lambda item: (str(item[1].get("id", "")), item))
            | "GroupById" >> beam.GroupByKey()
            | "Inspect"
            >> beam.FlatMap(_inspect, self.config).with_outputs(REJECTED, PRODUCTS, main="scenes")
        )
        products = (
            found[PRODUCTS]
            | "KeyByProduct" >> beam.Map(lambda scene: (baselines.key(scene), scene))
            | "GroupByProduct" >> beam.GroupByKey()
            | "Newest" >> beam.FlatMap(_newest).with_outputs(REJECTED, main="scenes")
        )
        return Inspected(
            scenes=(found.scenes, products.scenes) | "FlattenScenes" >> beam.Flatten(),
            rejected=(found[REJECTED], products[REJECTED]) | "FlattenOlder" >> beam.Flatten(),
        )


def _inspect(
    keyed: tuple[str, Iterable[tuple[str, dict[str, Any]]]], config: BuildConfig
) -> Iterator[Any]:
    item_id, listed = keyed
    first, *repeated = sorted(listed, key=lambda item: item[0])
    for catalog, _ in repeated:
        yield _rejected(
            item_id,
            "duplicate_scene_id",
            f"{catalog}: item {item_id} is listed before",
            is_error=True,
        )
    catalog, values = first
    try:
        scene = from_item(values, locations.parse(catalog), allow_http=config.allow_http)
        scene = replace(
            scene, holdouts=holdouts.of_item(values.get("properties") or {}, config.split)
        )
        if config.label is not None and scene.sensor == config.label.label_from:
            scene = replace(scene, label=label_checks.label_of(scene, config.label))
        refusal = _unwanted(scene, config) or label_checks.check_scene(scene, config.label)
        if refusal is not None:
            yield _rejected(item_id, *refusal)
            return
        bands = {"s1": config.patch.s1_bands, "s2": config.patch.s2_bands}
        scene = inspection.inspect(scene, bands[scene.sensor])
        yield beam.pvalue.TaggedOutput(PRODUCTS, scene) if baselines.key(scene) else scene
    except DataError as error:
        # A file without a place is sound but cannot be used here. A folder of such
        # files must not stop the build.
        yield _rejected(item_id, error.reason, str(error), is_error=error.reason != "unlocated")


def _newest(keyed: tuple[str, Iterable[Scene]]) -> Iterator[Any]:
    """Yield the scenes of one datatake and tile to use, and Rejections of the rest."""
    kept, replaced = baselines.newest(keyed[1])
    yield from kept
    for one in replaced:
        detail = (
            f"baseline {one.older.processing_baseline}; {one.newer.scene_id} of baseline "
            f"{one.newer.processing_baseline} shows the same datatake and tile"
        )
        yield _rejected(one.older.scene_id, "older_baseline", detail)


def _unwanted(scene: Scene, config: BuildConfig) -> Refusal | None:
    """Return (reason, detail) if a sound scene is not for this build, else None."""
    wanted = config.patch.s2_processing_level
    if scene.sensor == "s2" and scene.processing_level != wanted:
        return "other_processing_level", f"is {scene.processing_level}, wanted is {wanted}"
    if config.label is None or scene.sensor != config.label.label_from:
        return None
    if scene.label is None:
        return "no_label", "has no label asset"
    if scene.label.kind == "weak" and config.label.weak_weight == 0:
        return "weak_label", "its label is weak, and label.weak_weight is 0"
    why = config.label.target.why_not(scene.label.schema)
    return ("other_label_schema", why) if why else None


def _rejected(
    item_id: str, reason: Reason, detail: str, is_error: bool = False
) -> beam.pvalue.TaggedOutput:
    rejection = Rejection(
        kind="scenes", id=item_id, reason=reason, detail=detail, is_error=is_error
    )
    return beam.pvalue.TaggedOutput(REJECTED, rejection)


@dataclass
class MakePairs(beam.PTransform):
    """Scenes -> (s1, s2) pairs, nearest in time; scenes without a pair in REJECTED.

    Attributes:
        config: of the build.
        alone: sensors whose scenes are paired with `absent_partner` if they have no
            partner.
    """

    config: BuildConfig
    alone: tuple[Sensor, ...] = ()

    def expand(self, found: beam.PCollection) -> dict[str, beam.PCollection]:
        """Join outlines by cell and time bucket, then the chosen ids with the scenes.

        A scene itself is shuffled only twice, instead of once per cell.
        """
        pairing_config = self.config.pairing
        chosen = (
            found
            | "Outline" >> beam.Map(pairing.outline)
            | "KeyByCellAndTime"
            >> beam.FlatMap(lambda one: [(key, one) for key in pairing.keys(one, pairing_config)])
            | "GroupByCellAndTime" >> beam.GroupByKey()
            | "Join" >> beam.FlatMap(lambda group: pairing.join(group[0], group[1], pairing_config))
            | "Best" >> beam.combiners.Top.PerKey(pairing_config.max_s2_per_s1, reverse=True)
        )
        by_s1 = {"scenes": _keyed(found, "s1"), "chosen": chosen} | "JoinS1" >> beam.CoGroupByKey()
        asked = by_s1 | "Choose" >> beam.FlatMap(_choose, self.config, self.alone).with_outputs(
            REJECTED, ALONE, main="s1_by_s2_id"
        )
        by_s2 = {
            "scenes": _keyed(found, "s2"),
            "s1": asked.s1_by_s2_id,
        } | "JoinS2" >> beam.CoGroupByKey()
        made = by_s2 | "Pair" >> beam.FlatMap(_pair, self.config, self.alone).with_outputs(
            REJECTED, main="pairs"
        )
        return {
            "pairs": (made.pairs, asked[ALONE]) | "FlattenPairs" >> beam.Flatten(),
            REJECTED: (asked[REJECTED], made[REJECTED]) | "FlattenRejected" >> beam.Flatten(),
        }


def _keyed(found: beam.PCollection, sensor: Sensor) -> beam.PCollection:
    return (
        found
        | f"Only {sensor}" >> beam.Filter(lambda scene: scene.sensor == sensor)
        | f"KeyById {sensor}" >> beam.Map(lambda scene: (scene.scene_id, scene))
    )


def _choose(
    joined: tuple[str, dict[str, Iterable[Any]]], config: BuildConfig, alone: tuple[Sensor, ...]
) -> Iterator[Any]:
    """Yield (id of a chosen Sentinel-2 scene, the Sentinel-1 scene).

    A Sentinel-1 scene that chooses none gives a pair in ALONE or a Rejection.
    """
    scene_id, values = joined
    chosen, why = pairing.choose(itertools.chain.from_iterable(values["chosen"]), config.pairing)
    if not chosen and "s1" in alone:
        for s1 in values["scenes"]:
            yield beam.pvalue.TaggedOutput(ALONE, (s1, absent_partner(s1)))
    elif not chosen:
        yield _rejected(scene_id, "no_s2_partner", why)
    for s1, candidate in itertools.product(values["scenes"], chosen):
        yield candidate.s2_id, s1


def labelled_alone(config: BuildConfig) -> tuple[Sensor, ...]:
    """Return the sensor whose scenes a build of labels uses without a partner too.

    All of them then have a label.
    """
    label = config.label
    return (label.label_from,) if label is not None and label.partner == "optional" else ()


def _pair(
    joined: tuple[str, dict[str, Iterable[Scene]]], config: BuildConfig, alone: tuple[Sensor, ...]
) -> Iterator[Any]:
    """Yield the pairs of a Sentinel-2 scene.

    If no Sentinel-1 scene chose it, it gives a pair with an absent partner, or a
    Rejection.
    """
    scene_id, values = joined
    (s2,) = values["scenes"]
    kept, left_out = pairing.nearest_passes(s2, values["s1"], config.pairing)
    if not kept and "s2" in alone:
        yield absent_partner(s2), s2
    elif not kept:
        yield _rejected(scene_id, "no_s1_partner", "no Sentinel-1 scene chose it")
    for s1 in kept:
        yield s1, s2
    for s1 in left_out:
        if "s1" in alone:
            yield s1, absent_partner(s1)
            continue
        detail = (
            f"{scene_id} goes with nearer passes; max_s1_per_s2 is {config.pairing.max_s1_per_s2}"
        )
        yield _rejected(s1.scene_id, "s2_taken", detail)


@dataclass
class CutPatches(beam.PTransform):
    """(s1, s2) pairs -> one CutResult per task; the patches are encoded in `spool_dir`.

    A large pair is cut strip by strip. Strips that lie one below the other, of at least
    ROWS_PER_TASK rows together, are a task with its own spool file.
    Small pairs are bundled, so that a million tiny scenes do not become a million
    files. If one strip of a pair cannot be read, the whole pair is rejected. Only names
    of tasks cross the stages. The results are read from the spool at the end, since
    their histograms are large.

    Attributes:
        config: of the build.
        spool_dir: where finished tasks are kept until the shards are written; a task
            that is found there is not cut again.
        min_files: if there are fewer small pairs than this, they are not bundled; see
            MIN_FILES.
        claim: of the run; a worker of an older run stops. None = nobody looks.
    """

    config: BuildConfig
    spool_dir: str = field(default="")
    min_files: int = MIN_FILES
    claim: Claim | None = None

    def expand(self, pairs: beam.PCollection) -> beam.PCollection:
        """Group by task, cut, then group by pair.

        Grouping by task also spreads the tasks evenly over workers.
        """
        strips = pairs | "ToStrips" >> beam.Map(_strips, self.config)
        sizes = (
            strips
            | "Sizes" >> beam.Map(_num_bytes, self.config)
            | "Small" >> beam.Filter(_is_small)
        )
        num_small = sizes | beam.combiners.Count.Globally()
        small_bytes = sizes | "SmallBytes" >> beam.CombineGlobally(sum)
        return (
            strips
            | "KeyByTask"
            >> beam.FlatMap(
                _keyed_by_task,
                self.config,
                beam.pvalue.AsSingleton(num_small),
                beam.pvalue.AsSingleton(small_bytes),
                self.min_files,
            )
            | "GroupByTask" >> beam.GroupByKey()
            | "Cut" >> beam.Map(_cut, self.config, self.spool_dir, self.claim)
            | "GroupByPair" >> beam.GroupByKey()
            | "WholePairs" >> beam.FlatMap(_whole_pair, self.spool_dir)
        )


def _strips(pair: tuple[Scene, Scene], config: BuildConfig) -> list[PairTask | Rejection]:
    tasks = patches.tasks(*pair, config)
    if tasks:
        return list(tasks)
    first, *others = [scene.scene_id for scene in pair if not scene.is_absent]
    of_what = f"shares less than one patch of {config.patch.size_px} px with {others[0]}"
    detail = of_what if others else f"is smaller than one patch of {config.patch.size_px} px"
    return [Rejection(kind="scenes", id=first, reason="too_small", detail=detail)]


def _num_bytes(strips: list[PairTask | Rejection], config: BuildConfig) -> int:
    """Return about what a pair takes in the spool.

    That is two bytes per pixel and band, and one byte per pixel of the label.
    """
    pixels = sum(
        task.strip.height * task.strip.width for task in strips if isinstance(task, PairTask)
    )
    return pixels * (
        2 * len(config.patch.s1_bands) + 2 * len(config.patch.s2_bands) + (config.label is not None)
    )


def _is_small(num_bytes: int) -> bool:
    # One worker cuts a bundle from start to end. A pair that fills a fourth of it gains
    # nothing from being bundled.
    return num_bytes <= SPOOL_FILE_BYTES // 4


def _keyed_by_task(
    strips: list[PairTask | Rejection],
    config: BuildConfig,
    num_small: int,
    small_bytes: int,
    min_files: int,
) -> Iterator[tuple[TaskKey, list[PairTask | Rejection]]]:
    """Yield (task, strips); the same pairs always give the same tasks.

    So a job that was killed and is started again finds its finished tasks.
    """
    num_files = max(
        min_files, -(-small_bytes // SPOOL_FILE_BYTES), -(-num_small // MAX_PAIRS_PER_FILE)
    )
    if not _is_small(_num_bytes(strips, config)) or num_small <= num_files:
        for run in _runs(strips):
            name = _name(run[0]) if len(run) == 1 else f"{_name(run[0])}|{len(run)} strips"
            yield TaskKey(name=name, is_bundle=False), run
        return
    digest = hashlib.sha256(_name(strips[0]).encode()).digest()
    number = int.from_bytes(digest[:8], "big") % num_files
    yield TaskKey(name=f"bundle {number} of {num_files}", is_bundle=True), strips


def _runs(strips: list[PairTask | Rejection]) -> Iterator[list[PairTask | Rejection]]:
    """Yield the strips of a pair from north to south, so many that they make a task."""
    run: list[PairTask | Rejection] = []
    rows = 0
    for strip in strips:
        run.append(strip)
        rows += strip.strip.height if isinstance(strip, PairTask) else 0
        if rows >= ROWS_PER_TASK:
            yield run
            run, rows = [], 0
    if run:
        yield run


def _name(strip: PairTask | Rejection) -> str:
    return strip.task_id if isinstance(strip, PairTask) else f"{strip.id}|{strip.detail}"


def _cut(
    keyed: tuple[TaskKey, Iterable[list[PairTask | Rejection]]],
    config: BuildConfig,
    spool_dir: str,
    claim: Claim | None,
) -> tuple[str, FinishedTask | Rejection]:
    """Return (id of the pair or name of the bundle, the finished task or a Rejection).

    Everything under one id is used as a whole or not at all.
    """
    if claim is not None:
        claim.check()
    task, units = keyed
    pairs = sorted(units, key=lambda strips: _name(strips[0]))
    first = pairs[0][0]
    if not task.is_bundle and isinstance(first, Rejection):
        return first.id, first
    found = spool.load(spool_dir, task.name, len(pairs))
    # A file that could not be read by an earlier job may be readable now.
    if found is None or any(rejection.is_error for rejection in found.rejections):
        writer = spool.Writer(spool_dir, task.name, config, len(pairs))
        for strips in pairs:
            # Runners use one process per core. More BLAS threads would only spin, for
            # half of the CPU time at 64-px patches.
            # All strips read the same files, and none reads them after that.
            with threadpoolctl.threadpool_limits(1, user_api="blas"), open_files.keep_open():
                rejection = _cut_pair(strips, writer, config)
            if rejection is not None and not task.is_bundle:
                writer.abandon()
                return _pair_id(first), rejection
            if rejection is not None:
                writer.drop()
                writer.add(rejection)
            writer.commit()
        writer.finish()
    finished = FinishedTask(name=task.name, num_pairs=len(pairs))
    return task.name if task.is_bundle else _pair_id(first), finished


def _cut_pair(
    strips: list[PairTask | Rejection], writer: spool.Writer, config: BuildConfig
) -> Rejection | None:
    """Add the patches of the strips; return a Rejection if a file cannot be read."""
    for strip in strips:
        if isinstance(strip, Rejection):
            return strip
        try:
            for outcome in patches.cut(strip, config):
                writer.add(outcome)
        except DataError as error:
            return _blame(error, strip)
    return None


def _pair_id(strip: PairTask | Rejection) -> str:
    return f"{strip.s1.scene_id}|{strip.s2.scene_id}" if isinstance(strip, PairTask) else strip.id


def _blame(error: DataError, task: PairTask) -> Rejection:
    """Return the Rejection of the scene whose file the error names."""
    owner = next(
        (s for s in (task.s1, task.s2) if any(path in str(error) for path in s.paths)), task.s1
    )
    return Rejection(
        kind="scenes", id=owner.scene_id, reason=error.reason, detail=str(error), is_error=True
    )


def _whole_pair(
    tasks: tuple[str, Iterable[FinishedTask | Rejection]], spool_dir: str
) -> Iterator[spool.CutResult]:
    outcomes = list(tasks[1])
    # Strips of one scene often fail at the same place of the same file.
    rejections = sorted(
        {one for one in outcomes if isinstance(one, Rejection)}, key=lambda one: one.detail
    )
    if rejections:
        yield spool.CutResult(rejections=rejections)
        return
    for outcome in outcomes:
        if isinstance(outcome, Rejection):
            continue
        result = spool.load(spool_dir, outcome.name, outcome.num_pairs)
        if result is None:
            raise ValueError(f"{spool_dir}: the task {outcome.name} is gone from the spool")
        yield result
