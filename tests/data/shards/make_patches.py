"""Make paired patches of noise, for tests that do not look at the pixels."""

from __future__ import annotations

import numpy as np

from beam_jobs.contracts.records import PairedPatch


def make_patch(
    patch_id: str, size_px: int, rng: np.random.Generator, s2_max: float = 0.5
) -> PairedPatch:
    """Return a patch with 2 Sentinel-1 bands and 12 Sentinel-2 bands.

    Reflectances are at most `s2_max`. A lower maximum makes a smaller shard.
    """
    return PairedPatch(
        patch_id=patch_id,
        s1=rng.normal(-12, 3, (size_px, size_px, 2)).astype(np.float32),
        s2=rng.uniform(0.1, s2_max, (size_px, size_px, 12)).astype(np.float32),
        lon=1.0,
        lat=2.0,
        block="b",
        s1_scene_id="one",
        s2_scene_id="two",
        s1_acquired_at=0,
        s2_acquired_at=3600,
        orbit_state="ascending",
        cloud_fraction=0.0,
        offset_px=0.0,
        quality=1.0,
    )
