"""Settings of `predict`: windows, outputs, workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyproj

from beam_jobs.config import PairingConfig
from beam_jobs.predict.windows import Lattice


@dataclass(frozen=True, kw_only=True)
class PolygonConfig:
    """Polygons of the map, as a vector file.

    Attributes:
        classes: names of the classes whose areas become polygons; empty = no polygons.
        min_area_m2: smaller areas are left out. Default: four pixels of 10 m.
        simplify_px: how far an outline may be moved to make it simpler, in pixels, at
            most 1. 0 keeps every corner of a pixel.
        crs: coordinate system of the file, such as "EPSG:4326"; "" = that of the map.
        format: kind of the file.
    """

    classes: tuple[str, ...] = ()
    min_area_m2: float = 400.0
    simplify_px: float = 0.0
    crs: str = ""
    format: Literal["GPKG", "FlatGeobuf"] = "GPKG"

    def __post_init__(self) -> None:
        if self.min_area_m2 < 0:
            raise ValueError(f"min_area_m2 must be at least 0, got {self.min_area_m2:g}")
        if not 0 <= self.simplify_px <= 1:
            raise ValueError(f"simplify_px must be within 0-1, got {self.simplify_px:g}")
        if self.crs:
            try:
                pyproj.CRS.from_user_input(self.crs)
            except pyproj.exceptions.CRSError as error:
                raise ValueError(
                    f"crs must be a coordinate system such as EPSG:4326, got {self.crs!r}"
                ) from error


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How maps of scenes are made.

    Attributes:
        window: what the model sees at once. Default: 1024 px, of which the outer 96 px
            on each side only give surroundings, and 32 px are shared with the next
            window; docs/maps.md says how these were chosen.
        max_batch_px: most pixels that the model gets at once. It bounds the memory of a
            worker.
        part_height_px: about the height of the parts of a scene, which workers predict
            one by one. A killed job repeats the parts that it had begun.
        part_width_px: about their width. The memory of a worker grows with it, and not
            with their height.
        probabilities: "all" = one band per class; "highest" = that of the map's class
            only; "none" = no such file.
        probability_dtype: "uint8" = steps of 0.004; "float16" = half precision, in
            files that are about three times as large.
        uncertainty: "entropy" of the probabilities; "disagreement" = that, and how much
            the members of an ensemble differ; "none" = no such file.
        test_time_augmentation: average the model's answers over the eight rotations and
            reflections of a window. It takes eight times as long.
        polygons: see PolygonConfig.
        pairing: for a model of both sensors: which scenes belong together.
        allow_http: take scenes from web servers.
        num_workers: processes of the local runner.
    """

    window: Lattice = field(
        default_factory=lambda: Lattice(size_px=1024, margin_px=96, blend_px=32)
    )
    max_batch_px: int = 1 << 20
    part_height_px: int = 8192
    part_width_px: int = 2048
    probabilities: Literal["all", "highest", "none"] = "all"
    probability_dtype: Literal["uint8", "float16"] = "uint8"
    uncertainty: Literal["entropy", "disagreement", "none"] = "entropy"
    test_time_augmentation: bool = False
    polygons: PolygonConfig = field(default_factory=PolygonConfig)
    pairing: PairingConfig = field(default_factory=PairingConfig)
    allow_http: bool = False
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name in ("max_batch_px", "part_height_px", "part_width_px", "num_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
