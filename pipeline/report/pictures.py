"""The picture of a task: radar, optical image, label and prediction of six patches.

SavedModel and shards of the eval split -> PNG. The prediction comes from the
SavedModel's `serve_examples`, so the picture shows what a server would answer.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from beam_jobs.contracts import locations, records
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage
from pipeline.report.patch_images import (
    NODATA_COLOR,
    color_name,
    label_image,
    optical_image,
    radar_image,
)
from pipeline.report.results import DataResult

NUM_PATCHES = 6
IGNORE_COLOR = "#d0d0d0"
_MODEL_KEY = "Source"
"""PNG text field that names the model and the data of the picture.

If both are unchanged, the picture is not drawn again.
"""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    serialized: bytes
    patch_id: str
    scene_id: str
    entropy: float


def draw_task(name: str, saved_model: Location, data: DataResult, output: Location) -> None:
    """Write the picture of one task, unless it already shows this model on this data.

    Args:
        name: the task's name, for the title.
        saved_model: the segmenter; need not be published.
        data: labelled data; the eval split is drawn.
        output: the PNG.
    """
    shown = f"{saved_model} on {data.manifest.sha256}"
    if output.exists():
        with output.open("rb") as file, Image.open(file) as existing:
            if existing.info.get(_MODEL_KEY) == shown:
                return
    serialized = choose_patches(data.shard_paths("eval"))
    patches = [decode_labeled(item) for item in serialized]
    signature = tf.saved_model.load(str(saved_model)).signatures["serve_examples"]
    prediction = signature(examples=tf.constant(serialized))["label"].numpy()
    figure = draw(
        f"{name}: {len(patches)} patches of the eval split", patches, prediction, data.manifest
    )
    with locations.staged(output) as partial:
        figure.savefig(partial, format="png", dpi=130, metadata={_MODEL_KEY: shown})


def decode_labeled(serialized: bytes) -> records.LabeledPatch:
    """Return the record of a labelled tf.Example.

    Raises:
        ValueError: the example has no label.
    """
    patch = records.decode(serialized)
    if not isinstance(patch, records.LabeledPatch):
        raise ValueError(f"{patch.patch_id}: a labelled patch is needed, this one has no label")
    return patch


def choose_patches(shards: Sequence[Location]) -> list[bytes]:
    """Return the serialized patches to draw, of the shards of an eval split.

    Patches with the most mixed labels come first, from different scenes as long as
    there are enough scenes.
    """
    paths = [str(path) for path in shards]
    candidates = []
    with named_damage(paths):
        for serialized in tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator():
            patch = decode_labeled(serialized)
            candidates.append(
                _Candidate(
                    serialized=serialized,
                    patch_id=patch.patch_id,
                    scene_id=patch.s1_scene_id,
                    entropy=label_entropy(patch.label),
                )
            )
    candidates.sort(key=_mixed_first)
    # Each scene's best patch comes before any scene's second best.
    num_before: Counter[str] = Counter()
    places = {}
    for candidate in candidates:
        places[candidate.patch_id] = num_before[candidate.scene_id]
        num_before[candidate.scene_id] += 1
    candidates.sort(key=lambda candidate: (places[candidate.patch_id], *_mixed_first(candidate)))
    return [candidate.serialized for candidate in candidates[:NUM_PATCHES]]


def _mixed_first(candidate: _Candidate) -> tuple[float, str]:
    # The id decides between equal labels, so the same data give the same picture.
    return -candidate.entropy, candidate.patch_id


def label_entropy(label: npt.NDArray[np.uint8]) -> float:
    """Return the class entropy of `label` uint8 [H, W] in nats, 255 left out.

    It is 0 when there is only one class or none.
    """
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=1).astype(np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1.0)
    return float(-(shares * np.log(shares)).sum())


def draw(
    title: str,
    patches: list[records.LabeledPatch],
    prediction: npt.NDArray[np.int64],
    manifest: Manifest,
) -> Figure:
    """Return the figure: one column for each patch, rows S1, S2, label, prediction.

    Args:
        title: title of the figure.
        patches: labelled patches of one size.
        prediction: class ids [B, H, W], 255 = no data.
        manifest: manifest of the data; gives bands, stretch and label schema.

    Raises:
        ValueError: the manifest names no label schema.
    """
    schema = manifest.schema
    if schema is None:
        raise ValueError(
            "the manifest names no label schema, so there is nothing to draw: build the shards "
            "with build-labels"
        )
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(1.9 * len(patches) + 0.9, 9.1), layout="constrained")
    axes = figure.subplots(4, len(patches), squeeze=False)
    band = manifest.bands("s1")[0]
    rows = (
        f"Sentinel-1\n{band}, dB",
        "Sentinel-2\n" + color_name("s2", manifest),
        "label",
        "prediction",
    )
    for row, text in enumerate(rows):
        axes[row][0].set_ylabel(text, fontsize=10)
    for column, patch in enumerate(patches):
        predicted = prediction[column]
        images = (
            radar_image(patch.s1, manifest),
            optical_image(patch.s2, manifest),
            label_image(patch.label, schema, IGNORE_COLOR),
            label_image(predicted, schema, NODATA_COLOR),
        )
        for row, image in enumerate(images):
            axes[row][column].imshow(image, interpolation="nearest")
            axes[row][column].set(xticks=[], yticks=[])
        day = datetime.datetime.fromtimestamp(patch.s1_acquired_at, datetime.timezone.utc).date()
        axes[0][column].set_title(
            f"{day} {patch.orbit_state}\n{patch.lat:.3f}°, {patch.lon:.3f}°", fontsize=8
        )
        counted = (patch.label != IGNORE) & (predicted != IGNORE)
        share = float((patch.label == predicted)[counted].mean()) if counted.any() else float("nan")
        axes[3][column].set_xlabel(
            f"{share:.0%} of pixels right" if counted.any() else "nothing to compare", fontsize=8
        )
    shown = sorted(set(np.unique([patch.label for patch in patches])) | set(np.unique(prediction)))
    handles = [
        Patch(color=schema.colors[i], label=schema.classes[i].replace("_", " "))
        for i in shown
        if i != IGNORE
    ]
    handles += [
        Patch(color=NODATA_COLOR, label="no data"),
        Patch(color=IGNORE_COLOR, label="no label"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False
    )
    figure.suptitle(title, fontsize=12)
    return figure
