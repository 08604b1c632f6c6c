"""Predict: one run from start to end.

Input: a published segmenter, and catalogs of scenes. Output: a folder with one map per
scene, `collection.json`, and `rejected/scenes.ndjson`. A run that was killed goes on
where it stopped: finished maps and finished parts are found again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam

from beam_jobs import runner
from beam_jobs.catalogs import catalog
from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.locations import staged
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError
from beam_jobs.predict import graph, pictures, remote, segmenters, stac
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.endpoints import Endpoint
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.repeating import repeating
from beam_jobs.storage import locks

OnProgress = Callable[[int, int], None]
_RUN_FILE = "run.json"
_WORK_DIR = ".predicting"
_LOCK_FILE = ".predicting.lock"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is done. The maps are the same whatever it says.

    Attributes:
        endpoint: server of the model; None = each worker loads it.
        beam_options: options of Beam itself; empty = the local runner.
        on_progress: called with (parts that are predicted, all parts).
    """

    endpoint: Endpoint | None = None
    beam_options: Sequence[str] = ()
    on_progress: OnProgress | None = None


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The result of a run.

    Attributes:
        maps: folders of the maps.
        num_rejected: reason -> number of scenes that gave no map.
        collection: the STAC collection.
        page: HTML page with the pictures of all maps.
    """

    maps: tuple[Path, ...]
    num_rejected: dict[str, int]
    collection: Path
    page: Path


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
        output: folder of the maps on this machine.
        execution: how the run is done; None = on this machine.

    Raises:
        SettingsError: the windows do not fit the model, the output is no local folder,
            or a setting needs what the model lacks.
        DataError: the folder holds maps of another model or of other settings, no scene
            fits the model, no scene gave a map, or the model cannot be read or asked.
    """
    execution = execution or Execution()
    endpoint = execution.endpoint
    if is_remote(output):
        raise settings.SettingsError(f"output must be a folder of this machine, got {output}")
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
    root = Path(output)
    with locks.hold(root / _LOCK_FILE, output):
        _claim(root, segmenter, config)
        shutil.rmtree(root / layout.REJECTED_DIR, ignore_errors=True)
        job = graph.job_of(
            config, segmenter, os.fspath(root), os.fspath(root / _WORK_DIR), endpoint
        )
        with (
            _reported(root / _WORK_DIR, execution.on_progress),
            beam.Pipeline(options=options) as pipeline,
        ):
            graph.expand(pipeline, job, list(map(str, catalog_paths)))
        found = _collect(root, segmenter)
        shutil.rmtree(root / _WORK_DIR, ignore_errors=True)
    return found


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


def _claim(root: Path, segmenter: Segmenter, config: PredictConfig) -> None:
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
    path = root / _RUN_FILE
    if path.exists() and any(root.glob(f"*/{stac.ITEM_FILE}")):
        kept = json.loads(path.read_text())
        for key, what in (("model_sha256", "another model"), ("config_sha256", "other settings")):
            if kept.get(key) != wanted[key]:
                raise DataError(
                    f"{root}: holds maps of {what} ({kept.get('model')} "
                    f"{kept.get('model_version')}): choose another folder",
                    "other_config",
                )
        return
    with staged(path) as file:
        file.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def _collect(root: Path, segmenter: Segmenter) -> Predicted:
    """Write the collection over all maps of the folder.

    Raises:
        DataError: there is no map. The message tells why and the first scene's detail.
    """
    reasons: Counter[str] = Counter()
    first = ""
    path = root / layout.REJECTED_DIR / "scenes.ndjson"
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        reasons[row["reason"]] += 1
        first = first or row["detail"]
    items = {
        f"{item.parent.name}/{item.name}": json.loads(item.read_text())
        for item in sorted(root.glob(f"*/{stac.ITEM_FILE}"))
    }
    if not items:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise DataError(f"{root}: no scene gave a map ({counts}); the first: {first}", "no_map")
    with staged(root / stac.COLLECTION_FILE) as file:
        document = stac.make_collection(items, segmenter)
        file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    with staged(root / stac.MODEL_FILE) as file:
        document = stac.make_model_item(segmenter, list(items.values()), os.fspath(root))
        file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    shown = pictures.shown(items)
    with staged(root / pictures.PAGE_FILE) as file:
        title = f"Maps of {segmenter.name} {segmenter.version}".strip()
        file.write_text(pictures.page(title, shown))
    with staged(root / pictures.OVERVIEW_FILE) as file:
        pictures.draw_overview(root, shown, segmenter.classes, file)
    return Predicted(
        maps=tuple((root / name).parent for name in items),
        num_rejected=dict(reasons),
        collection=root / stac.COLLECTION_FILE,
        page=root / pictures.PAGE_FILE,
    )


@contextmanager
def _reported(work_dir: Path, on_progress: OnProgress | None) -> Iterator[None]:
    """Call `on_progress` at intervals with the number of parts on disk."""
    if on_progress is None:
        yield
        return

    def look() -> None:
        done = total = 0
        for plan in work_dir.glob(f"*/{graph.PLAN_FILE}"):
            num_parts = int(json.loads(plan.read_text())["num_parts"])
            total += num_parts
            is_joined = (plan.parent / graph.JOINED_FILE).exists()
            done += num_parts if is_joined else len(list(plan.parent.glob("part-*.tif")))
        on_progress(done, total)

    with repeating(look, 0.5):
        yield
