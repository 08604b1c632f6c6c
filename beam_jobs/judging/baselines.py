"""Baselines: use the newest product of a datatake and tile.

Input: inspected Sentinel-2 scenes of one acquisition. Output: those to use, and those
that a newer processing replaces. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from beam_jobs.scenes import footprints
from beam_jobs.scenes.scene import Scene

MIN_OVERLAP_FRACTION = 0.5
"""Least share of the smaller footprint that a newer product must cover.

A datatake that reached two ground stations gives two products of one tile, each with a
part of it. These overlap little and do not replace each other. Two processings of one
product cover the same ground.

Source: ESA, Sentinel-2 Products Specification Document, datastrips.
"""


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A scene, and the one of a newer baseline that is used in its place."""

    older: Scene
    newer: Scene


def key(scene: Scene) -> str:
    """Return what products share that may replace each other; "" when nothing is known.

    The levels of one acquisition do not replace each other. Processors outside of ESA's
    ground segment write the baseline 99.99, which is neither newer nor older.
    """
    baseline = scene.processing_baseline
    if not scene.acquisition or baseline is None or baseline.startswith("99."):
        return ""
    return f"{scene.acquisition} {scene.processing_level}"


def newest(scenes: Iterable[Scene]) -> tuple[list[Scene], list[Replaced]]:
    """Return (scenes to use, scenes that are replaced) of one `key`.

    A scene is replaced if a kept scene of a newer baseline covers the same ground. Two
    products of one baseline are both kept: the build uses each patch of ground once.
    """
    # "05.09" and "04.00" compare as text. The id makes the order the same in each run.
    ordered = sorted(scenes, key=lambda scene: scene.scene_id)
    ordered.sort(key=lambda scene: str(scene.processing_baseline), reverse=True)
    kept: list[Scene] = []
    replaced: list[Replaced] = []
    for scene in ordered:
        newer = next((other for other in kept if _replaces(other, scene)), None)
        if newer is None:
            kept.append(scene)
        else:
            replaced.append(Replaced(older=scene, newer=newer))
    return kept, replaced


def _replaces(newer: Scene, older: Scene) -> bool:
    if newer.processing_baseline == older.processing_baseline:
        return False
    ones, others = footprints.on_globe(newer.footprint), footprints.on_globe(older.footprint)
    return bool(footprints.overlap_fractions([ones], [others])[0] >= MIN_OVERLAP_FRACTION)
