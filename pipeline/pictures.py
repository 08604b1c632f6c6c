"""Patches as images, and the picture of a task: Sentinel-1, Sentinel-2, label and prediction of six eval patches.

SavedModel and shards -> PNG. Called by the report; the images also by `neighbours.py`. The prediction comes from the
SavedModel's own `serve_examples`, so the picture shows what a server would answer.
"""

from __future__ import annotations

import datetime

import matplotlib
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from beam_jobs.contracts import layout, locations, records
from beam_jobs.contracts.labels import IGNORE, LabelSchema, get_schema
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.manifest import Manifest
from pipeline.results import DataResult

NUM_PATCHES = 6
NODATA_COLOR = "#ff00ff"
"""Magenta: no land, no radar image and no class has it."""
IGNORE_COLOR = "#d0d0d0"
TRUE_COLOR = ("B4", "B3", "B2")
GAMMA = 0.8
"""Lifts the dark end a little, where land is."""
MAX_OVER_MEDIAN = 4.0
"""White of the optical image is at most this many times the brightest band's median reflectance."""
RATIO_REACH_DB = 6.0
"""How far the ratio of two polarizations is shown on either side of its middle."""
_MODEL_KEY = "Source"
"""PNG text field that names the model and the data drawn, so that what has not changed is not drawn again."""

RGB = npt.NDArray[np.float64]


def draw_task(name: str, saved_model: Location, data: DataResult, output: Location) -> None:
    """Writes the picture of one task, unless it already shows this model on this data.

    Args:
        name: the task's name, for the title.
        saved_model: the segmenter; need not be published.
        data: labelled data whose eval split is drawn.
        output: the PNG.
    """
    shown = f"{saved_model} on {data.manifest.sha256}"
    if output.exists():
        with output.open("rb") as file, Image.open(file) as existing:
            if existing.info.get(_MODEL_KEY) == shown:
                return
    serialized = choose_patches(data.version_dir)
    patches = [decode_labeled(item) for item in serialized]
    signature = tf.saved_model.load(str(saved_model)).signatures["serve_examples"]
    prediction = signature(examples=tf.constant(serialized))["label"].numpy()
    figure = draw(f"{name}: {len(patches)} patches of the eval split", patches, prediction, data.manifest)
    with locations.staged(output) as partial:
        figure.savefig(partial, format="png", dpi=130, metadata={_MODEL_KEY: shown})


def decode_labeled(serialized: bytes) -> records.LabeledPatch:
    """The record of a labelled tf.Example.

    Raises:
        ValueError: it has no label.
    """
    patch = records.decode(serialized)
    if not isinstance(patch, records.LabeledPatch):
        raise ValueError(f"{patch.patch_id}: a labelled patch is needed, this one has no label")
    return patch


def choose_patches(version_dir: Location) -> list[bytes]:
    """Serialized eval patches to draw: the most mixed labels first, from different scenes while there are enough."""
    paths = [str(path) for path in layout.shard_paths(version_dir, "eval")]
    ranked = []
    for serialized in tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator():
        patch = decode_labeled(serialized)
        # The id breaks ties, so that the same data give the same picture.
        ranked.append((-label_entropy(patch.label), patch.patch_id, patch.s1_scene_id, serialized))
    ranked.sort()
    scenes: dict[str, int] = {}
    order = []
    for entropy, patch_id, scene, serialized in ranked:
        scenes[scene] = scenes.get(scene, 0) + 1
        order.append((scenes[scene], entropy, patch_id, serialized))
    return [item[-1] for item in sorted(order)[:NUM_PATCHES]]


def label_entropy(label: npt.NDArray[np.uint8]) -> float:
    """Entropy in nats of the classes of `label` uint8 [H, W], 255 left out: 0 for one class alone or none."""
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=1).astype(np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1.0)
    return float(-(shares * np.log(shares)).sum())


def draw(
    title: str, patches: list[records.LabeledPatch], prediction: npt.NDArray[np.int64], manifest: Manifest
) -> Figure:
    """The figure: one column a patch, rows S1, S2, label, prediction.

    Args:
        title: of the figure.
        patches: labelled patches of one size.
        prediction: class ids [B, H, W], 255 = no data.
        manifest: of the data; gives bands, stretch and label schema.

    Raises:
        ValueError: the manifest names no label schema.
    """
    if manifest.label_schema is None:
        raise ValueError("the manifest names no label schema, so there is nothing to draw")
    schema = get_schema(manifest.label_schema)
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(1.9 * len(patches) + 0.9, 9.1), layout="constrained")
    axes = figure.subplots(4, len(patches), squeeze=False)
    band = manifest.s1_bands[0]
    rows = (f"Sentinel-1\n{band}, dB", "Sentinel-2\n" + color_name(manifest), "label", "prediction")
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
        axes[0][column].set_title(f"{day} {patch.orbit_state}\n{patch.lat:.3f}°, {patch.lon:.3f}°", fontsize=8)
        counted = (patch.label != IGNORE) & (predicted != IGNORE)
        share = float((patch.label == predicted)[counted].mean()) if counted.any() else float("nan")
        axes[3][column].set_xlabel(
            f"{share:.0%} of pixels right" if counted.any() else "nothing to compare", fontsize=8
        )
    shown = sorted(set(np.unique([patch.label for patch in patches])) | set(np.unique(prediction)))
    handles = [Patch(color=schema.colors[i], label=schema.classes[i].replace("_", " ")) for i in shown if i != IGNORE]
    handles += [Patch(color=NODATA_COLOR, label="no data"), Patch(color=IGNORE_COLOR, label="no label")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def radar_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """First band of `s1` dB [H, W, C] in grey, from the train split's 2nd to 98th percentile; no data in magenta."""
    statistics = manifest.s1_statistics[0]
    grey = _stretch(s1[..., :1], statistics.p02, statistics.p98)
    return _with_nodata(np.repeat(grey, 3, axis=-1), np.isfinite(s1[..., 0]))


def radar_color_image(s1: records.FloatArray, manifest: Manifest) -> RGB:
    """Two polarizations of `s1` dB [H, W, C] in red and green, their ratio in blue, each stretched; one alone in grey.

    Source of the composite VV, VH, VV / VH: NASA ARSET, "SAR Part 1"; the stretch is by the statistics of the train split.
    """
    if len(manifest.s1_bands) < 2:
        return radar_image(s1, manifest)
    first, second = manifest.s1_statistics[:2]
    middle = first.p50 - second.p50
    image = np.stack(
        [
            _stretch(s1[..., 0], first.p02, first.p98),
            _stretch(s1[..., 1], second.p02, second.p98),
            # In dB a ratio is a difference.
            _stretch(s1[..., 0] - s1[..., 1], middle - RATIO_REACH_DB, middle + RATIO_REACH_DB),
        ],
        axis=-1,
    )
    return _with_nodata(image, np.isfinite(s1[..., :2]).all(axis=-1))


def optical_image(s2: records.FloatArray, manifest: Manifest) -> RGB:
    """True colour of `s2` reflectance [H, W, C], one stretch for all three bands so that colours keep their hue."""
    channels = _color_channels(manifest)
    low = min(manifest.s2_statistics[i].p02 for i in channels)
    # Clouds lift the 98th percentile far above land, which would leave land black: they may saturate instead.
    high = min(
        max(manifest.s2_statistics[i].p98 for i in channels),
        MAX_OVER_MEDIAN * max(manifest.s2_statistics[i].p50 for i in channels),
    )
    picked = s2[..., channels]
    return _with_nodata(_stretch(picked, low, high) ** GAMMA, np.isfinite(picked).all(axis=-1))


def label_image(label: npt.NDArray[np.integer], schema: LabelSchema, ignore_color: str) -> RGB:
    """Class ids [H, W] in the schema's colours, 255 in `ignore_color`."""
    table = np.tile(to_rgb(ignore_color), (256, 1))
    for class_id, color in schema.colors.items():
        table[class_id] = to_rgb(color)
    return table[np.asarray(label).astype(np.uint8)]


def _color_channels(manifest: Manifest) -> list[int]:
    # A run without the visible bands still gets a picture: of its first three bands.
    names = TRUE_COLOR if set(TRUE_COLOR) <= set(manifest.s2_bands) else manifest.s2_bands[:3]
    channels = [manifest.s2_bands.index(name) for name in names]
    return (channels * 3)[:3] if len(channels) < 3 else channels


def color_name(manifest: Manifest) -> str:
    """What `optical_image` shows: its bands, and whether they are true colour."""
    names = "/".join(manifest.s2_bands[i] for i in _color_channels(manifest))
    return f"true colour {names}" if names == "/".join(TRUE_COLOR) else names


def _stretch(pixels: records.FloatArray, low: float, high: float) -> RGB:
    # NaN becomes 0 here and magenta later.
    return np.clip(np.nan_to_num((pixels - low) / max(high - low, 1e-6)), 0.0, 1.0).astype(np.float64)


def _with_nodata(image: RGB, valid_mask: npt.NDArray[np.bool_]) -> RGB:
    return np.where(valid_mask[..., None], image, np.array(to_rgb(NODATA_COLOR)))
