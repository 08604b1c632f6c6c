"""Make the summaries of simulated spans, without shards: some scenes of some patches.

All spans show one world of six classes. Scenes differ by moisture, haze, season and
date, patches by their mix of classes, pixels by speckle. So two spans of a seed each
are equally distributed, and their figures differ as those of real spans do: mostly from
scene to scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import S2_L2A_BANDS
from beam_jobs.contracts.manifest import Manifest
from models.drift.patch_columns import PatchColumns
from models.drift.summary import DataSummary, summarize
from tests.data.shards.make_poison import FAULTS
from tests.data.shards.make_shards import band_statistics

S1_BANDS = ("VV", "VH")
_DB = np.array([[-20.0, -27.0], [-9, -14.5], [-12.5, -19.5], [-13, -21], [-5.5, -12.5], [-14, -22]])
"""Mean backscatter of water, trees, grass, crops, built and bare ground, as in
`beam_jobs/simulation/radar.py`."""
_REFLECTANCE = np.array(
    [
        [0.05, 0.05, 0.06, 0.04, 0.04, 0.03, 0.03, 0.03, 0.02, 0.02, 0.01, 0.01],
        [0.03, 0.04, 0.06, 0.04, 0.09, 0.22, 0.27, 0.29, 0.31, 0.31, 0.17, 0.09],
        [0.05, 0.06, 0.09, 0.08, 0.14, 0.24, 0.28, 0.30, 0.32, 0.32, 0.25, 0.15],
        [0.05, 0.06, 0.10, 0.09, 0.15, 0.28, 0.33, 0.35, 0.37, 0.37, 0.24, 0.14],
        [0.12, 0.13, 0.15, 0.17, 0.19, 0.21, 0.23, 0.24, 0.26, 0.26, 0.28, 0.24],
        [0.09, 0.11, 0.15, 0.20, 0.23, 0.25, 0.28, 0.29, 0.32, 0.32, 0.40, 0.34],
    ]
)
_SHARES = np.array([0.12, 0.2, 0.2, 0.25, 0.08, 0.15])
_IDS = (0, 1, 2, 4, 6, 7)
"""The same classes in Dynamic World."""
_GAPS_HOURS = (-28.5, -16.5, -4.5, 7.5, 19.5, 31.5)


@dataclass(frozen=True, kw_only=True)
class World:
    """How the scenes of a span are drawn.

    Attributes:
        num_scenes: scenes of each sensor.
        num_patches: patches of each scene.
        size_px: height and width of a patch.
        missing: share of scenes at the edge of a swath, which lack a part.
        wetter_db: gain of open ground in VV; VH gets twice that, as crops give it.
        greener: change of the near infrared of plants, as a share.
    """

    num_scenes: int = 24
    num_patches: int = 6
    size_px: int = 8
    missing: float = 0.35
    wetter_db: float = 0.0
    greener: float = 0.0


def make_span(
    seed: int, world: World | None = None, fault: str = "", kind: str = "labels", span: int = 1
) -> DataSummary:
    """Return the summary of a span that is drawn with `seed`; `fault` is one of FAULTS."""
    world = world or World()
    rng = np.random.default_rng(seed)
    labels, pixels = _draw(rng, world)
    if fault:
        pixels = FAULTS[fault](pixels, rng)
    pixels = {"s1": _in_range(pixels["s1"], -70, 40), "s2": _in_range(pixels["s2"], 0, 6.55)}
    return summarize(
        _manifest(labels, pixels, world, kind, span), _columns(pixels, rng, world, seed)
    )


def _draw(rng: np.random.Generator, world: World) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels [S, P, H, W] and pixels [S, P, H, W, C] by sensor."""
    shape = (world.num_scenes, world.num_patches, world.size_px, world.size_px)
    place = rng.dirichlet(_SHARES * 4, world.num_scenes)
    mixes = np.stack([rng.dirichlet(p * 4 + 0.05, world.num_patches) for p in place])
    below = mixes.cumsum(axis=-1)[:, :, None, None, :]
    labels = np.minimum((rng.random(shape)[..., None] > below).sum(axis=-1), len(_SHARES) - 1)
    per_scene = (world.num_scenes, 1, 1, 1)
    db = _DB + np.where(np.arange(6) >= 2, world.wetter_db, 0.0)[:, None] * [1.0, 2.0]
    s1 = db[labels] + rng.normal(0, 1.2, (*per_scene, 1)) + rng.normal(0, 0.6, (*per_scene, 2))
    s1 += rng.normal(0, 2.3, s1.shape)
    spectra = _REFLECTANCE * (1 + np.isin(np.arange(6), (1, 2, 3))[:, None] * world.greener)
    s2 = (
        spectra[labels]
        * rng.lognormal(0, 0.12, (*per_scene, 1))
        * rng.lognormal(0, 0.1, shape)[..., None]
    )
    s2 += rng.gamma(1.0, 0.01, (*per_scene, 1))
    edge = rng.random(world.num_scenes) < world.missing
    s1[edge, : max(1, world.num_patches // 3), :, : world.size_px // 3] = np.nan
    edge = rng.random(world.num_scenes) < world.missing
    s2[edge, : max(1, world.num_patches // 3), : world.size_px // 3] = np.nan
    return labels, {"s1": s1.astype(np.float32), "s2": s2.astype(np.float32)}


def _in_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where((values >= low) & (values <= high), values, np.nan)


def _manifest(
    labels: np.ndarray, pixels: dict[str, np.ndarray], world: World, kind: str, span: int
) -> Manifest:
    ids, counts = np.unique(labels, return_counts=True)
    config = {"seed": int(labels.sum())}
    return Manifest(
        kind=kind,
        span=span,
        version=1,
        patch_size_px=world.size_px,
        pixel_size_m=10.0,
        s1_bands=S1_BANDS,
        s2_bands=S2_L2A_BANDS,
        s2_processing_level="L2A",
        label_schema="dynamic_world" if kind == "labels" else None,
        num_examples={"train": world.num_scenes * world.num_patches},
        num_pixels_per_class={
            "train": {str(_IDS[i]): int(n) for i, n in zip(ids, counts, strict=True)}
        },
        num_rejected={},
        shards={},
        s1_statistics=band_statistics("s1", S1_BANDS, pixels["s1"]),
        s2_statistics=band_statistics("s2", S2_L2A_BANDS, pixels["s2"]),
        config=config,
        config_sha256=settings.sha256(config),
        source_sha256="0" * 64,
        code_sha256="0" * 64,
        code_version="test",
    )


def _columns(
    pixels: dict[str, np.ndarray], rng: np.random.Generator, world: World, seed: int
) -> PatchColumns:
    scene = np.repeat([f"{seed}-{i}" for i in range(world.num_scenes)], world.num_patches)
    gap = np.repeat(rng.choice(_GAPS_HOURS, world.num_scenes), world.num_patches)
    flat = {s: one.reshape(len(scene), -1, one.shape[-1]) for s, one in pixels.items()}
    valid = {s: np.isfinite(one).all(axis=-1) for s, one in flat.items()}
    return PatchColumns(
        mean={s: np.nan_to_num(np.nanmean(one, axis=1)) for s, one in flat.items()},
        std={s: np.nan_to_num(np.nanstd(one, axis=1)) for s, one in flat.items()},
        valid_fraction={s: one.mean(axis=1) for s, one in valid.items()},
        scene={"s1": scene, "s2": scene},
        block=scene,
        time_gap_hours=gap + rng.uniform(-0.4, 0.4, len(scene)),
    )
