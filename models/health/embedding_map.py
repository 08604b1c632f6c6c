"""The embedding map: a picture of both sensors' embeddings in two dimensions.

Input: an `EmbeddedSplit`. Output: a PNG, which TensorBoard and the report show.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.labels import IGNORE, LabelSchema
from models.health.embedded_split import EmbeddedSplit

WATER_NDWI = 0.0
"""Open water has a higher NDWI.

Source: McFeeters 1996, doi 10.1080/01431169608948714.
"""
SPARSE_NDVI, DENSE_NDVI = 0.2, 0.5
"""NDVI of sparse vegetation is 0.2 to 0.5; dense vegetation has more.

Source: USGS, "NDVI, the Foundation for Remote Sensing Phenology".
"""

_SURFACES = {
    "water": "#2166ac",
    "bare or built": "#b2182b",
    "sparse vegetation": "#dfc27d",
    "dense vegetation": "#1b7837",
}
_MARKERS = {"s1": "o", "s2": "^"}
_SENSOR_NAMES = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
_MAX_PATCHES = 400
"""More points would cover each other."""


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """Class of each patch [N], as a position in `names` and `colors`; -1 = none."""

    title: str
    index: npt.NDArray[np.int64]
    names: tuple[str, ...]
    colors: tuple[str, ...]


def project(
    embeddings: Sequence[npt.NDArray[np.float32]],
) -> tuple[list[npt.NDArray[np.float64]], float]:
    """Project embeddings onto the two axes of largest variance, by PCA.

    Both sensors share one plane. With a plane for each, sensors that are not aligned
    could look as if they were.

    Args:
        embeddings: embeddings [N, E] of each sensor.

    Returns:
        Points [N, 2] of each sensor, and the share of the variance that the two axes
        show, 0-1.
    """
    rows = np.concatenate(embeddings).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is arbitrary. Fix it, so that maps of two steps can be
    # compared.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, np.newaxis]
    total = float((values**2).sum())
    share = float((values[:2] ** 2).sum()) / total if total > 0 else 0.0
    points = centred @ axes.T
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return np.split(points, len(embeddings)), share


def surface_index(
    band_means: npt.NDArray[np.float32], bands: Sequence[str]
) -> npt.NDArray[np.int64] | None:
    """Return the kind of surface of each patch, from its Sentinel-2 band means.

    Args:
        band_means: mean reflectance of each patch [N, C].
        bands: names of the C bands.

    Returns:
        Position [N] in "water", "bare or built", "sparse vegetation", "dense
        vegetation", from NDWI and NDVI. None without B3, B4 and B8.
    """
    if not {"B3", "B4", "B8"} <= set(bands):
        return None
    green, red, infrared = (
        band_means[:, list(bands).index(name)].astype(np.float64) for name in ("B3", "B4", "B8")
    )
    ndwi = (green - infrared) / np.maximum(green + infrared, 1e-6)
    ndvi = (infrared - red) / np.maximum(infrared + red, 1e-6)
    return np.where(ndwi > WATER_NDWI, 0, 1 + np.digitize(ndvi, [SPARSE_NDVI, DENSE_NDVI]))


def draw_map(
    split: EmbeddedSplit, s2_bands: Sequence[str], schema: LabelSchema | None, title: str
) -> bytes:
    """Return the map as PNG.

    The left panel is coloured by land cover. The right panel is coloured by sensor and
    joins partners by lines. Land cover is the most frequent label of a patch. Without
    labels it is the surface that Sentinel-2 shows, and without its bands the latitude.

    Args:
        split: patches to draw, at most 400 of them.
        s2_bands: names of the bands in `split.band_means["s2"]`.
        schema: schema of `split.label`; None without labels.
        title: first part of the title.
    """
    # Take rows evenly over the split: its first patches often come from one place.
    rows = np.unique(np.linspace(0, len(split) - 1, _MAX_PATCHES).astype(int))
    points, share = project([split.embeddings[sensor] for sensor in SENSORS])
    points = [sensor_points[rows] for sensor_points in points]
    figure = Figure(figsize=(11.0, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    classes = _classes(split, s2_bands, schema)
    if classes is None:
        _scatter_latitude(left, points, split.lat[rows])
    else:
        _scatter_classes(left, points, classes, rows)
    _join_partners(right, points)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[], xlabel="first axis", aspect="equal")
    left.set_ylabel("second axis")
    figure.suptitle(f"{title}: {len(rows)} patches, {share:.0%} of the variance")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _classes(
    split: EmbeddedSplit, s2_bands: Sequence[str], schema: LabelSchema | None
) -> _Classes | None:
    if split.label is not None and schema is not None:
        ids = sorted(schema.classes)
        index = np.full(len(split), -1)
        for position, class_id in enumerate(ids):
            index[split.label == class_id] = position
        return _Classes(
            title="most frequent label",
            index=np.where(split.label == IGNORE, -1, index),
            names=schema.class_names,
            colors=tuple(schema.colors[i] for i in ids),
        )
    surface = surface_index(split.band_means["s2"], s2_bands)
    if surface is None:
        return None
    return _Classes(
        title="surface by mean NDWI and NDVI",
        index=surface,
        names=tuple(_SURFACES),
        colors=tuple(_SURFACES.values()),
    )


def _scatter_classes(
    axes: Axes,
    points: Sequence[npt.NDArray[np.float64]],
    classes: _Classes,
    rows: npt.NDArray[np.int64],
) -> None:
    index = classes.index[rows]
    for position in range(-1, len(classes.names)):
        chosen = index == position
        if not chosen.any():
            continue
        name, color = (
            ("no label", "#bbbbbb")
            if position < 0
            else (classes.names[position], classes.colors[position])
        )
        for sensor, sensor_points in zip(SENSORS, points, strict=True):
            axes.scatter(
                sensor_points[chosen, 0],
                sensor_points[chosen, 1],
                s=16,
                color=color,
                marker=_MARKERS[sensor],
                edgecolors="#444444",
                linewidths=0.3,
                label=name.replace("_", " ") if sensor == "s1" else None,
            )
    axes.set_title(f"{classes.title} (○ Sentinel-1, △ Sentinel-2)", fontsize=10)
    axes.legend(fontsize=8, loc="best")


def _scatter_latitude(
    axes: Axes, points: Sequence[npt.NDArray[np.float64]], latitude: npt.NDArray[np.float32]
) -> None:
    limits = Normalize(float(latitude.min()), float(latitude.max()))
    for sensor, sensor_points in zip(SENSORS, points, strict=True):
        drawn = axes.scatter(
            sensor_points[:, 0],
            sensor_points[:, 1],
            s=16,
            c=latitude,
            marker=_MARKERS[sensor],
            norm=limits,
        )
    axes.figure.colorbar(drawn, ax=axes, label="latitude, degrees")
    axes.set_title("latitude (○ Sentinel-1, △ Sentinel-2)", fontsize=10)


def _join_partners(axes: Axes, points: Sequence[npt.NDArray[np.float64]]) -> None:
    axes.add_collection(
        LineCollection(list(np.stack(points, axis=1)), colors="#999999", linewidths=0.3)
    )
    for sensor, color, sensor_points in zip(SENSORS, ("#762a83", "#e08214"), points, strict=True):
        axes.scatter(
            sensor_points[:, 0],
            sensor_points[:, 1],
            s=12,
            color=color,
            marker=_MARKERS[sensor],
            label=_SENSOR_NAMES[sensor],
        )
    axes.set_title("by sensor, partners joined: short lines are aligned pairs", fontsize=10)
    axes.legend(fontsize=8, loc="best")
