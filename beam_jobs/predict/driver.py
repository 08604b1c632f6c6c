"""Predict: one run from start to end.

Input: a published segmenter, and catalogs of scenes. Output: a folder with one map per
scene, `collection.json`, and `rejected/scenes.ndjson`. A run that was killed goes on
where it stopped: finished maps and finished parts are found again. The folder may lie
on an object store.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems

from beam_jobs import runner
from beam_jobs.catalogs import catalog
from beam_jobs.contracts import layout, locations, settings
from beam_jobs.contracts.locations import Location, content_of
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.engines import checks, running
from beam_jobs.errors import DataError
from beam_jobs.predict import (
    graph,
    map_folders,
    pictures,
    rejections,
    segmenters,
    stac,
)
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.remote_models import remote
from beam_jobs.predict.remote_models.endpoints import Endpoint
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.repeating import repeating
from beam_jobs.storage import files, locks

OnProgress = Callable[[int, int], None]
_RUN_FILE = "run.json"
_WORK_DIR = ".predicting"
_LOCK_FILE = ".predicting.lock"
_REJECTED_FILE = f"{layout.REJECTED_DIR}/scenes.ndjson"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is done. The maps are the same whatever it says.

    Attributes:
        endpoint: server of the model; None = each worker loads it.
        beam_options: options of Beam itself; empty = the local runner.
        retry_rejected: try maps again that an earlier run could not make, although
            neither their files nor the settings have changed.
        on_progress: called with (parts that are predicted, all parts).
    """

    endpoint: Endpoint | None = None
    beam_options: Sequence[str] = ()
    retry_rejected: bool = False
    on_progress: OnProgress | None = None


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The result of a run.

    Attributes:
        maps: folders of the maps.
        rejected: why scenes gave no map, one row per scene, as in
            `rejected/scenes.ndjson`.
        collection: the STAC collection.
        page: HTML page with the pictures of all maps.
    """

    maps: tuple[Location, ...]
    rejected: tuple[dict[str, Any], ...]
    collection: Location
    page: Location

    @property
    def num_rejected(self) -> dict[str, int]:
        """Reason -> number of scenes that gave no map."""
        return dict(Counter(row["reason"] for row in self.rejected))


def predict(
    config: PredictConfig,
    segmenter: Segmenter,
    catalog_paths: Sequence[str],
    output: str,
    execution: Execution | None = None,
) -> Predicted:
    """Make maps of all scenes of catalogs.

    Args:
        config: settings.
        segmenter: the model; see `segmenters.find`.
        catalog_paths: catalogs of scenes.
        output: folder of the maps, path or URI.
        execution: how the run is done; None = on this machine.

    Raises:
        SettingsError: the windows do not fit the model, or a setting needs what the
            model lacks.
        DataError: the folder holds maps of another model or of other settings, or
            something else that a map would replace; no scene fits the model, no scene
            gave a map, or the model cannot be read or asked.
        OSError: the folder cannot be written.
    """
    execution = execution or Execution()
    endpoint = execution.endpoint
    try:
        config.window.check(segmenter.stride)
    except ValueError as error:
        raise settings.SettingsError(f"window.{error}") from error
    names = [one.name for one in segmenter.classes]
    for name in config.polygons.classes:
        if name not in names:
            raise settings.SettingsError(
                f"polygons.classes: the model {segmenter.name} has no class {name!r}; it has "
                f"{', '.join(names)}"
            )
    if (
        config.uncertainty == "disagreement"
        and len(segmenter.models) < 2
        and not config.test_time_augmentation
    ):
        raise settings.SettingsError(
            "uncertainty 'disagreement' needs several answers: name several models or versions, "
            "or set test_time_augmentation=true"
        )
    # Before any scene is read: a model that cannot be used is no fault of a scene.
    if endpoint is not None:
        remote.check(endpoint, segmenter)
    else:
        for one in segmenter.models:
            segmenters.load(one)
    _check_scenes(segmenter, catalog_paths)
    options = runner.pipeline_options(config.num_workers, execution.beam_options)
    # Beam sets these options too, but only when it makes the pipeline.
    FileSystems.set_options(options)
    checks.check(options)
    root = os.fspath(output).rstrip("/")
    work_dir = f"{root}/{_WORK_DIR}"
    make_folder(root)
    with locks.hold(f"{root}/{_LOCK_FILE}", root):
        _claim(root, segmenter, config)
        if execution.retry_rejected:
            rejections.forget_all(root)
        files.delete_tree(f"{work_dir}/{layout.REJECTED_DIR}")
        running.stop_last(work_dir)
        claim = running.take(work_dir, options)
        job = graph.job_of(config, segmenter, root, claim, endpoint)
        with (
            _reported(work_dir, execution.on_progress),
            running.pipeline(options, claim) as pipeline,
        ):
            graph.expand(pipeline, job, list(map(str, catalog_paths)))
        try:
            return _collect(root, segmenter)
        finally:
            files.delete_tree(work_dir)


def make_folder(root: str) -> None:
    """Make the folder of the maps.

    Raises:
        SettingsError: a file is in its way.
        OSError: the folder cannot be made.
    """
    # An object store has no folders.
    if is_remote(root):
        return
    try:
        os.makedirs(root, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise settings.SettingsError(
            f"{root}: must be a folder of maps, but it cannot be made "
            f"({(error.strerror or '').lower()}): name another one"
        ) from error


def _check_scenes(segmenter: Segmenter, catalog_paths: Sequence[str]) -> None:
    """Refuse catalogs without a scene for the model.

    Raises:
        DataError: there is none, or all scenes are refused.
    """
    catalog.check_usable(catalog_paths)
    counts: Counter[str] = Counter(
        graph.sensor_of(item) or "others"
        for path in catalog_paths
        for item in catalog.read_items(path)
    )
    missing = [sensor for sensor in segmenter.sensors if not counts[sensor]]
    if missing and not (segmenter.takes_one_of_two and len(missing) < 2):
        found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        raise DataError(
            f"{', '.join(map(str, catalog_paths))}: the model {segmenter.name} needs scenes of "
            f"{' and '.join(segmenter.sensors)}; scenes listed: {found}",
            "no_scene",
        )


def _claim(root: str, segmenter: Segmenter, config: PredictConfig) -> None:
    """Note in the folder what its maps are made with.

    Raises:
        DataError: its maps were made by another model, or with other settings.
    """
    settings_of_maps = settings.to_dict(config)
    settings_of_maps.pop("num_workers")
    wanted = {
        "model": segmenter.name,
        "model_version": segmenter.version,
        "model_sha256": segmenter.sha256,
        "config_sha256": settings.sha256(settings_of_maps),
        "config": settings_of_maps,
    }
    path = f"{root}/{_RUN_FILE}"
    if files.exists(path) and map_folders.items(root):
        with content_of(path, f"remove {root}, or choose another folder"):
            kept = {key: str(value) for key, value in json.loads(files.read_bytes(path)).items()}
        for key, what in (("model_sha256", "another model"), ("config_sha256", "other settings")):
            if kept.get(key) != wanted[key]:
                raise DataError(
                    f"{root}: holds maps of {what} ({kept.get('model')} "
                    f"{kept.get('model_version')}): choose another folder",
                    "other_config",
                )
        return
    _write_json(path, wanted)


def _write_json(path: str, document: object) -> None:
    files.write_bytes(path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())


def _collect(root: str, segmenter: Segmenter) -> Predicted:
    """Write the collection over all maps of the folder, and the rejected scenes.

    Raises:
        DataError: there is no map. The message tells why and the first scene's detail.
    """
    noted = f"{root}/{_WORK_DIR}/{_REJECTED_FILE}"
    text = files.read_bytes(noted) if files.exists(noted) else b""
    rejected = tuple(json.loads(line) for line in text.splitlines())
    if rejected:
        files.write_bytes(f"{root}/{_REJECTED_FILE}", text)
    else:
        files.delete_tree(f"{root}/{layout.REJECTED_DIR}")
    items = map_folders.items(root)
    if not items:
        reasons = Counter(row["reason"] for row in rejected)
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        first = rejected[0]["detail"] if rejected else ""
        raise DataError(f"{root}: no scene gave a map ({counts}); the first: {first}", "no_map")
    _write_json(f"{root}/{stac.COLLECTION_FILE}", stac.make_collection(items, segmenter))
    model_item = stac.make_model_item(segmenter, list(items.values()), root)
    _write_json(f"{root}/{stac.MODEL_FILE}", model_item)
    folders = [name.rpartition("/")[0] for name in items]
    title = f"Maps of {segmenter.name} {segmenter.version}".strip()
    shown = pictures.shown(items)
    files.write_bytes(f"{root}/{pictures.PAGE_FILE}", pictures.page(title, shown).encode())
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        picture = Path(scratch) / pictures.OVERVIEW_FILE
        pictures.draw_overview(root, shown, segmenter.classes, picture)
        files.write_bytes(f"{root}/{pictures.OVERVIEW_FILE}", picture.read_bytes())
    at = locations.parse(root)
    return Predicted(
        maps=tuple(at / name for name in folders),
        rejected=rejected,
        collection=at / stac.COLLECTION_FILE,
        page=at / pictures.PAGE_FILE,
    )


@contextmanager
def _reported(work_dir: str, on_progress: OnProgress | None) -> Iterator[None]:
    """Call `on_progress` at intervals with the number of finished parts."""
    if on_progress is None:
        yield
        return

    def look() -> None:
        on_progress(*_progress(files.list_files(work_dir)))

    # An object store is asked less often, because each look lists the folder.
    with repeating(look, 10.0 if is_remote(work_dir) else 0.5):
        yield


def _progress(paths: Sequence[str]) -> tuple[int, int]:
    """Return (finished parts, all parts) by the files of all maps.

    A map whose files are written has no parts any more.
    """
    names: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, set()).add(name)
    num_done = num_parts = 0
    for folder, found in names.items():
        if graph.PLAN_FILE not in found:
            continue
        number = int(json.loads(files.read_bytes(f"{folder}/{graph.PLAN_FILE}"))["num_parts"])
        is_written = graph.WRITTEN_FILE in found
        num_parts += number
        num_done += number if is_written else sum(map(graph.is_part, found))
    return num_done, num_parts
