"""Make the embeddings of a split without encoders.

The embeddings of a pair are close to each other. The ground is known, and nuisances
such as orbit and latitude are independent of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from models.health.embedded_split import EmbeddedSplit

EMBEDDING_DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_split(
    num_patches: int = 160, num_blocks: int = 16, noise: float = 0.3, seed: int = 0
) -> EmbeddedSplit:
    """Return a split; `noise` sets the distance between the two embeddings of a pair."""
    rng = np.random.default_rng(seed)
    ground = rng.normal(size=(num_patches, 8))
    lifted = ground @ rng.normal(size=(8, EMBEDDING_DIM))
    embeddings = {s: unit(lifted + noise * rng.normal(size=lifted.shape)) for s in ("s1", "s2")}
    block = np.arange(num_patches) * num_blocks // num_patches
    # Each block has its own latitude and is seen from one orbit.
    latitude_of_block = rng.permutation(np.linspace(30.0, 60.0, num_blocks))
    reflectance = np.abs(0.2 + 0.05 * ground @ rng.normal(size=(8, 12)))
    return EmbeddedSplit(
        features={
            s: np.concatenate([e, lifted], axis=1).astype(np.float32) for s, e in embeddings.items()
        },
        embeddings=embeddings,
        lon=(10.0 + 0.01 * np.arange(num_patches)).astype(np.float32),
        lat=(latitude_of_block[block] + 0.01 * rng.normal(size=num_patches)).astype(np.float32),
        block=np.array([f"b{i}" for i in block]),
        orbit_state=np.where(block % 2 == 0, "ascending", "descending"),
        valid_fraction={
            s: rng.uniform(0.6, 1.0, num_patches).astype(np.float32) for s in ("s1", "s2")
        },
        band_means={
            "s1": (-12.0 + 3.0 * ground[:, :2]).astype(np.float32),
            "s2": reflectance.astype(np.float32),
        },
        label=None,
    )


def plant(
    split: EmbeddedSplit, sensor: str, values: np.ndarray, strength: float = 3.0
) -> EmbeddedSplit:
    """Return `split` with `values` [N] added to one dimension of a sensor's embedding."""
    standardized = (values - values.mean()) / values.std()
    embedding = split.embeddings[sensor].copy()
    embedding[:, 0] += strength * standardized / np.sqrt(EMBEDDING_DIM)
    return replace(split, embeddings={**split.embeddings, sensor: unit(embedding)})


def replace(split: EmbeddedSplit, **changes: Any) -> EmbeddedSplit:
    return dataclasses.replace(split, **changes)
