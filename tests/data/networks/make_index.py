"""Make an index of neighbours without an encoder: its embeddings and its patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.neighbours.index import EmbeddingIndex, Embeddings, IndexedPatch, IndexInfo, IndexSource
from tests.data.networks.make_embeddings import unit

EMBEDDING_DIM = 8


def make_source(**changes: Any) -> IndexSource:
    values: dict[str, Any] = {
        "encoder": "/models/encoder/1",
        "encoder_config_sha256": "c" * 64,
        "pairs": "/data/pairs/span-1/version-1",
        "manifest_sha256": "d" * 64,
        "splits": ("eval",),
        "num_records": 40,
    }
    return IndexSource(**values | changes)


def make_patch(number: int, **changes: Any) -> IndexedPatch:
    values: dict[str, Any] = {
        "patch_id": f"patch-{number:03d}",
        "split": "eval",
        "block": f"block-{number // 4}",
        "lon": round(-71.5 + 0.25 * number, 6),
        "lat": round(12.0 - 0.5 * number, 6),
        "s1_scene_id": f'S1 "{number // 3}", ascending',
        "s2_scene_id": f"S2_{number // 2}",
        "s1_acquired_at": 1_600_000_000 + 3600 * number,
        "s2_acquired_at": 1_600_050_000 + 7200 * number,
        "shard": f"eval/part-0000{number % 2}-of-00002.tfrecord.gz",
        "record": number // 2,
    }
    return IndexedPatch(**values | changes)


def make_embeddings(num_patches: int, noise: float = 0.5, seed: int = 0) -> Embeddings:
    """Return random embeddings of pairs.

    `noise` sets the distance between the two embeddings of a pair; 0 = they are equal.
    """
    rng = np.random.default_rng(seed)
    s1 = unit(rng.normal(size=(num_patches, EMBEDDING_DIM)))
    return {"s1": s1, "s2": unit(s1 + noise * rng.normal(size=s1.shape)) if noise else s1.copy()}


def make_index(
    embeddings: Embeddings, patches: list[IndexedPatch] | None = None, **source: Any
) -> EmbeddingIndex:
    """Return an index that is only in memory."""
    num_patches, embedding_dim = embeddings["s1"].shape
    info = IndexInfo(
        source=make_source(**source),
        num_patches=num_patches,
        embedding_dim=embedding_dim,
        num_recall_patches=num_patches,
    )
    patches = [make_patch(number) for number in range(num_patches)] if patches is None else patches
    return EmbeddingIndex(info=info, embeddings=embeddings, patches=patches)
