"""Measure how well a segmenter finds water, by the distance from the patch's border.

Run it with `python -m tests.benchmarks patch_borders`. It trains six segmenters, so
`make bench` does not. The data are the demo's flood patches of 64 px. The segmenters
start from new weights: a pretraining would take most of the time. They are scored on
the eval and test splits together, which their training does not see.
TERRAPAIR_BORDERS_ROOT names a folder that keeps the data; a second run does not build
them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIG = Path(__file__).parents[3] / "pipeline/configs/demo.yaml"
BORDERS = ("zeros", "mirror")
NUM_SEEDS = 3
# First and last distance from the border, in pixels; the outermost pixel has 0.
RINGS = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31))


def measure() -> dict[str, object]:
    """Return the scores of water by border and ring: the means over the seeds.

    The recall of the outermost pixel and of the innermost ring is given by seed, too.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
    root = os.environ.get("TERRAPAIR_BORDERS_ROOT")
    found: dict[str, object] = {}
    with contextlib.nullcontext(root) if root else tempfile.TemporaryDirectory() as folder:
        task, version = _build_labels(Path(folder))
        for border in BORDERS:
            scores = [
                scores_by_ring(
                    *_predict(dataclasses.replace(task, border=border, seed=seed), version, folder)
                )
                for seed in range(NUM_SEEDS)
            ]
            found[border] = {
                name: {
                    _ring_name(first, last): round(
                        statistics.mean(score[name][ring] for score in scores), 3
                    )
                    for ring, (first, last) in enumerate(RINGS)
                }
                for name in scores[0]
            } | {
                f"recall of {place} by seed": [round(score["recall"][ring], 3) for score in scores]
                for place, ring in (("0 px", 0), ("the middle", -1))
            }
    return found


def _ring_name(first: int, last: int) -> str:
    return f"{first} px" if first == last else f"{first}-{last} px"


def scores_by_ring(
    label: npt.NDArray[Any], probabilities: npt.NDArray[np.float32]
) -> dict[str, list[float]]:
    """Return recall, IoU and average precision of water in each of `RINGS`.

    The pixels of all patches are pooled. Recall and IoU are those at the threshold that
    gives all pixels together the best IoU, as publishing chooses it.

    Args:
        label: class ids [B, H, W], 255 = ignore.
        probabilities: float32 [B, H, W, 2].
    """
    from models import metrics
    from models.scores.calibration import best_threshold, threshold_confusion
    from models.scores.counting import count_pixels
    from models.scores.ranking import average_precision

    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in label.shape[1:])
    distance = np.minimum(rows[:, np.newaxis], columns)
    rings = [(distance >= first) & (distance <= last) for first, last in RINGS]
    counts = np.stack(
        [
            count_pixels(label[:, ring], np.zeros_like(label[:, ring]), probabilities[:, ring])[
                "probability_counts"
            ][0]
            for ring in rings
        ]
    )
    confusion = threshold_confusion(counts, best_threshold(counts))
    return {
        "recall": list(metrics.recall_per_class(confusion)[:, 1]),
        "iou": list(metrics.iou_per_class(confusion)[:, 1]),
        "average_precision": list(average_precision(counts)),
    }


def _build_labels(root: Path) -> tuple[Any, Path]:
    """Return the flood task's training and its labelled version below `root`."""
    from beam_jobs.build.driver import Execution, build_labels
    from pipeline.config import load_run_config
    from pipeline.data_build import resolve_catalogs

    run = load_run_config(CONFIG, [f"root={root}"], {})
    catalogs = resolve_catalogs(
        run.catalogs, run.catalogs_dir, lambda name: contextlib.nullcontext(), lambda *_: None
    )
    task = next(task for task in run.tasks if task.name == "flood")
    version = build_labels(
        task.build_config(run.pairs), catalogs, run.task_dir(task), execution=Execution()
    )
    return dataclasses.replace(task.segment, regime="scratch"), Path(str(version))


def _predict(
    config: Any, version: Path, folder: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Train a segmenter; return labels and probabilities of the other splits."""
    import tensorflow as tf

    from beam_jobs.contracts import layout, manifest
    from models import segment
    from models.input_pipeline import parse_examples
    from models.training.scaffold import Folders, Shards

    files = {split: tuple(map(str, layout.shard_paths(version, split))) for split in layout.SPLITS}
    shards = Shards(manifest=manifest.read(version), train=files["train"], eval=files["eval"])
    with tempfile.TemporaryDirectory(dir=folder) as output:
        folders = Folders(output=f"{output}/model", logs=f"{output}/logs")
        model = segment.train_segmenter(config, shards, folders).model
    dataset = tf.data.TFRecordDataset([*files["eval"], *files["test"]], compression_type="GZIP")
    labels, probabilities = [], []
    for serialized in dataset.batch(config.global_batch_size):
        batch = parse_examples(serialized, {"s1": 2}, with_label=True)
        labels.append(batch["label"].numpy())
        probabilities.append(model({"s1": batch["s1"]}, training=False)["probabilities"].numpy())
    return np.concatenate(labels), np.concatenate(probabilities)
