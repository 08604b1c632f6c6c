"""The Beam graph of `predict`: catalogs -> maps, and scenes that gave none.

Scenes are inspected and paired as in a build. Each map is parted, and the parts are
predicted one by one. Then its files are written from the parts, in groups, and moved to
their place together. It is the same for every runner.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from beam_jobs.build import input_files, writers
from beam_jobs.build.patches import Rejection
from beam_jobs.build.transforms import REJECTED, InspectScenes, MakePairs
from beam_jobs.catalogs import catalog
from beam_jobs.config import BuildConfig, PatchConfig
from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.contracts.records import FloatArray
from beam_jobs.engines.claims import Claim
from beam_jobs.errors import DataError
from beam_jobs.predict import (
    ensembles,
    map_folders,
    parts,
    products,
    rejections,
    segmenters,
    stac,
)
from beam_jobs.predict.blending import Area, Pixels
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.parts import MapTask
from beam_jobs.predict.remote_models import remote
from beam_jobs.predict.remote_models.endpoints import Endpoint
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.scenes.products import constellation_of
from beam_jobs.scenes.scene import SENSOR_OF_CONSTELLATION, Scene
from beam_jobs.storage import files

SOURCES = (
    "beam_jobs/contracts",
    "beam_jobs/predict",
    "beam_jobs/rasters",
    "beam_jobs/scenes",
)
"""Code that decides the pixels of a map."""
PLAN_FILE = "plan.json"
WRITTEN_FILE = "written"
"""Marks the folder of parts whose files are all written; then the parts go."""
_FILES_DIR = "files"
"""Files of a map that are written, in the folder of its parts."""
_MAX_NAME = 200
_OF_MODEL: tuple[Reason, ...] = ("bad_model", "no_answer")
"""Reasons that are no fault of a scene: they end the run."""
_MapKey = tuple[str, str]
"""Id of a map, and the hash of what it is made from."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings and folders that all steps of one run share.

    Attributes:
        config: of the run.
        segmenter: the model.
        output: folder of the maps, path or URI.
        claim: of the run on the folder of the parts, which all workers must see.
        code_sha256: fingerprint of SOURCES.
        num_threads: of the model in each worker process; 0 = one for each core.
        endpoint: server of the model; None = each worker loads it.
    """

    config: PredictConfig
    segmenter: Segmenter
    output: str
    claim: Claim
    code_sha256: str
    num_threads: int
    endpoint: Endpoint | None

    @property
    def work_dir(self) -> str:
        """Folder of the parts, path or URI."""
        return self.claim.folder

    def model(self) -> Callable[[Pixels], FloatArray]:
        """Return the model as this process uses it; see `parts.predict`."""
        if self.endpoint is not None:
            models = [remote.connect(self.endpoint, self.segmenter)]
        else:
            models = [
                segmenters.load(one, num_threads=self.num_threads) for one in self.segmenter.models
            ]
        return ensembles.joined(
            models,
            has_views=self.config.test_time_augmentation,
            has_moments=self.config.uncertainty == "disagreement",
        )

    @property
    def build_config(self) -> BuildConfig:
        """The settings by which a build would read the scenes that the model needs."""
        bands, usual = self.segmenter.bands, PatchConfig()
        return BuildConfig(
            patch=PatchConfig(
                pixel_size_m=self.segmenter.pixel_size_m,
                s1_bands=bands.get("s1", usual.s1_bands),
                s2_bands=bands.get("s2", usual.s2_bands),
                s2_processing_level=self.segmenter.s2_processing_level,
            ),
            pairing=self.config.pairing,
            allow_http=self.config.allow_http,
        )


def job_of(
    config: PredictConfig,
    segmenter: Segmenter,
    output: str,
    claim: Claim,
    endpoint: Endpoint | None = None,
) -> Job:
    """Return the job of a run."""
    num_workers = config.num_workers
    return Job(
        config=config,
        segmenter=segmenter,
        output=output,
        claim=claim,
        code_sha256=source_fingerprint(SOURCES),
        # Workers of one machine must not take each other's cores.
        num_threads=max(1, (os.cpu_count() or 1) // num_workers) if num_workers > 1 else 0,
        endpoint=endpoint,
    )


def expand(pipeline: beam.Pipeline, job: Job, catalog_paths: Sequence[str]) -> None:
    """Add the graph to `pipeline`."""
    config = job.build_config
    items = (
        pipeline
        | "Catalogs" >> beam.Create(list(catalog_paths))
        | "ReadItems"
        >> beam.FlatMap(lambda path: [(path, item) for item in catalog.read_items(path)])
        | "OfModel" >> beam.Filter(lambda read: sensor_of(read[1]) in job.segmenter.bands)
    )
    inspected = items | "InspectScenes" >> InspectScenes(config)
    rejected = [inspected.rejected]
    if len(job.segmenter.bands) == 2:
        paired = inspected.scenes | "MakePairs" >> MakePairs(
            config, alone=job.segmenter.sensors if job.segmenter.takes_one_of_two else ()
        )
        groups = paired["pairs"] | "OfPair" >> beam.Map(lambda pair: {"s1": pair[0], "s2": pair[1]})
        rejected.append(paired[REJECTED])
    else:
        groups = inspected.scenes | "OfScene" >> beam.Map(lambda scene: {scene.sensor: scene})
    planned = groups | "Plan" >> beam.FlatMap(_plan, job).with_outputs(REJECTED, main="parts")
    made = (
        planned.parts
        # Grouping also spreads the parts evenly over workers.
        | "GroupByPart" >> beam.GroupByKey()
        | "Predict" >> beam.Map(_predict, job)
        | "GroupByMap" >> beam.GroupByKey()
        | "Files" >> beam.FlatMap(_file_groups, job)
        # Two workers write the files of one map.
        | "GroupByFiles" >> beam.GroupByKey()
        | "Write" >> beam.Map(_write, job)
        | "GroupByFolder" >> beam.GroupByKey()
        | "Publish" >> beam.FlatMap(_publish, job)
    )
    (
        (*rejected, planned[REJECTED], made)
        | "Rejections" >> beam.Flatten()
        | "WriteRejected" >> writers.WriteRejected(job.work_dir)
    )


def sensor_of(item: dict[str, Any]) -> Sensor | None:
    """Return the sensor of a STAC item, None if it is neither."""
    return SENSOR_OF_CONSTELLATION.get(constellation_of(item.get("properties") or {}))


def folder_name(map_id: str) -> str:
    """Return the name of a map's folder, which any file system takes."""
    name = urllib.parse.quote(map_id, safe="+ ()=,@")
    if len(name) > _MAX_NAME or name.startswith("."):
        name = f"{name[:_MAX_NAME].lstrip('.')}-{hashlib.sha256(map_id.encode()).hexdigest()[:16]}"
    return name


def is_part(name: str) -> bool:
    """Return whether a file of the working folder is a finished part."""
    return name.startswith("part-") and name.endswith(".tif")


def made_from(scenes: Mapping[Sensor, Scene], job: Job) -> str:
    """Return the hash of everything that decides the files of a map.

    A scene's files count by size and time of change, as `make` has it. Its label and
    its split do not count.
    """
    seen = {
        sensor: replace(scene, label=None, split=None, holdouts=frozenset())
        for sensor, scene in sorted(scenes.items())
    }
    looks = []
    for path in sorted({path for scene in seen.values() for path in scene.paths}):
        for file in input_files.files_of(path):
            state = os.stat(file)
            looks.append([os.path.basename(file), state.st_size, state.st_mtime_ns])
    config = settings.to_dict(job.config)
    config.pop("num_workers")
    decides = {
        "scenes": {sensor: asdict(scene) for sensor, scene in seen.items()},
        "files": looks,
        "config": config,
        "model": job.segmenter.sha256,
        "code": job.code_sha256,
    }
    text = json.dumps(decides, sort_keys=True, default=sorted)
    return hashlib.sha256(text.encode()).hexdigest()


def _plan(scenes: dict[Sensor, Scene], job: Job) -> Iterator[Any]:
    """Yield (part, (map, area)) for each part of a map that is not there yet."""
    task = parts.task_of(scenes, job.segmenter.pixel_size_m, made_from(scenes, job))
    if task is None:
        one, other = (scene.scene_id for scene in scenes.values())
        detail = f"shares no pixel with {other}"
        yield beam.pvalue.TaggedOutput(REJECTED, _rejection(one, "too_small", detail))
        return
    name = folder_name(task.map_id)
    folder = f"{job.output}/{name}"
    if map_folders.made_from(folder) == task.made_from:
        return
    map_folders.check_replaceable(folder)
    if (known := rejections.recall(job.output, name, task.made_from)) is not None:
        yield beam.pvalue.TaggedOutput(REJECTED, known)
        return
    areas = parts.areas(task.grid, job.config)
    plan = json.dumps({"num_parts": len(areas)})
    files.write_bytes(f"{_work_dir(task, job)}/{PLAN_FILE}", plan.encode())
    for area in areas:
        yield f"{task.map_id}|{parts.part_name(area)}", (task, area)


def _work_dir(task: MapTask, job: Job) -> str:
    """Return the folder of a map's parts, which is named by what they are made from."""
    return f"{job.work_dir}/{folder_name(task.map_id)}-{task.made_from[:16]}"


def _predict(
    keyed: tuple[str, Iterable[tuple[MapTask, Area]]], job: Job
) -> tuple[_MapKey, MapTask | Rejection]:
    job.claim.check()
    (task, area), *_ = keyed[1]
    key = task.map_id, task.made_from
    path = f"{_work_dir(task, job)}/{parts.part_name(area)}"
    try:
        if not _is_written(task, job) and not files.exists(path):
            with files.local_target(path) as local:
                parts.predict(task, area, job.segmenter, job.config, local, model=job.model())
    except DataError as error:
        if error.reason in _OF_MODEL:
            raise
        return key, _rejection(task.map_id, error.reason, str(error), is_error=True)
    return key, task


def _file_groups(
    keyed: tuple[_MapKey, Iterable[MapTask | Rejection]], job: Job
) -> Iterator[tuple[tuple[_MapKey, tuple[str, ...]], MapTask | Rejection]]:
    """Yield ((map, names of files), task) for each group of files of a map.

    A map that cannot be made has one group without files, and why it cannot.
    """
    key, found = keyed
    outcomes = list(found)
    refused = [one for one in outcomes if isinstance(one, Rejection)]
    if refused:
        # Parts of one scene often fail at the same place of the same file.
        yield (key, ()), min(refused, key=lambda one: one.detail)
        return
    task = next(one for one in outcomes if isinstance(one, MapTask))
    if made_from(task.scenes, job) != task.made_from:
        why = "a file of the scene has changed while it was read"
        yield (key, ()), _rejection(task.map_id, "input_changed", why, is_error=True)
        return
    for names in products.groups(job.segmenter, job.config):
        yield (key, names), task


def _write(
    keyed: tuple[tuple[_MapKey, tuple[str, ...]], Iterable[MapTask | Rejection]], job: Job
) -> tuple[_MapKey, MapTask | Rejection]:
    """Write a group of files of a map, of which all parts are there.

    The files are kept by a run that goes on after a kill.
    """
    job.claim.check()
    (key, names), (outcome, *_) = keyed
    if isinstance(outcome, Rejection) or _is_written(outcome, job):
        return key, outcome
    task, work_dir = outcome, _work_dir(outcome, job)
    staged = f"{work_dir}/{_FILES_DIR}"
    if all(files.exists(f"{staged}/{name}") for name in names):
        return key, task
    part_files = [parts.part_name(area) for area in parts.areas(task.grid, job.config)]
    with _parts_here(work_dir, part_files) as parts_dir:
        built = parts_dir / f"files-{uuid.uuid4().hex}"
        built.mkdir()
        try:
            products.write(
                task, job.segmenter, job.config, names, parts_dir=parts_dir, folder=built
            )
        except DataError as error:
            # Another attempt ended meanwhile, and removed the parts that this one read.
            if _is_written(task, job):
                return key, task
            return key, _rejection(task.map_id, error.reason, str(error), is_error=True)
        map_folders.stage(built, staged)
    if all(
        files.exists(f"{staged}/{name}") for name in products.files_of(job.segmenter, job.config)
    ):
        files.write_bytes(f"{work_dir}/{WRITTEN_FILE}", b"1")
        files.delete_files([f"{work_dir}/{name}" for name in part_files])
    return key, task


def _is_written(task: MapTask, job: Job) -> bool:
    return files.exists(f"{_work_dir(task, job)}/{WRITTEN_FILE}")


def _publish(keyed: tuple[_MapKey, Iterable[MapTask | Rejection]], job: Job) -> Iterator[Rejection]:
    """Move the files of a map to their place; yield why there is none."""
    job.claim.check()
    (map_id, wanted), found = keyed
    outcomes = list(found)
    name = folder_name(map_id)
    refused = [one for one in outcomes if isinstance(one, Rejection)]
    if refused:
        rejections.remember(job.output, name, wanted, refused[0])
        yield refused[0]
        return
    task = next(one for one in outcomes if isinstance(one, MapTask))
    folder = f"{job.output}/{name}"
    # A runner does it again if it loses the worker that did.
    if map_folders.made_from(folder) == wanted:
        return
    staged = f"{_work_dir(task, job)}/{_FILES_DIR}"
    file_layers = products.files_of(job.segmenter, job.config)
    item = stac.make_item(task, job.segmenter, file_layers)
    text = json.dumps(item.to_dict(include_self_link=False), indent=2, sort_keys=True) + "\n"
    files.write_bytes(f"{staged}/{stac.ITEM_FILE}", text.encode())
    map_folders.publish(staged, folder, list(file_layers))
    rejections.forget(job.output, name)


@contextmanager
def _parts_here(work_dir: str, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder of this machine that holds the parts of a map."""
    if not is_remote(work_dir):
        yield Path(work_dir)
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        for name in names:
            files.download(f"{work_dir}/{name}", os.path.join(scratch, name))
        yield Path(scratch)


def _rejection(scene_id: str, reason: Any, detail: str, is_error: bool = False) -> Rejection:
    return Rejection(kind="scenes", id=scene_id, reason=reason, detail=detail, is_error=is_error)
