"""Few labels: one line of advice where little of what is labelled reaches train.

Input: manifest and Contents of a labelled version. Output: a text for the terminal and
the data card; "" where train has enough. Pure.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator

from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.reasons import PatchReason
from beam_jobs.data_card.contents import Contents

FEW_PATCHES = 100
"""Train patches below which the advice is given.

A training takes 32 patches a step by default. It has seen 100 of them after three
steps, and soon knows them by heart.
"""

FEW_BLOCKS = 12
"""Train blocks below which the advice is given.

By the default shares, 12 blocks of train go with 2 or 3 of eval and as many of test.
With fewer, a score is that of one or two places.
"""

_BLOCK_PATCHES = 2
"""Side of the advised blocks, in patches.

Of one scene of 8 x 8 patches, these leave patches to all three splits for 17 of 20
seeds, and nearly half of them to train. Larger blocks leave one of the splits empty
more often. Of smaller ones, more patches reach into another split.
`test_few_labels.py` counts it.
"""

_NOT_LABELLED = ("unlabeled", "duplicate_patch")
"""Reasons of patches that are no loss: a better one, or none, has their labels."""


def advice(found: Manifest, contents: Contents) -> str:
    """Return what reaches train, what is left out and why, and what to do, in one line.

    Args:
        found: manifest of the version.
        contents: counts over its patches.

    Returns:
        "" for pairs, and for labels of which enough patches and blocks reach train.
    """
    num_train = found.num_examples.get("train", 0)
    num_blocks = len(contents.blocks.get("train", ()))
    if found.kind != "labels" or (num_train >= FEW_PATCHES and num_blocks >= FEW_BLOCKS):
        return ""
    left_out = {
        reason: found.num_rejected[reason]
        for reason in typing.get_args(PatchReason)
        if found.num_rejected.get(reason) and reason not in _NOT_LABELLED
    }
    num_patches = sum(found.num_examples.values()) + sum(left_out.values())
    most_first = sorted(left_out.items(), key=lambda entry: (-entry[1], entry[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in most_first) or "none"
    return (
        f"only {num_train} of {num_patches} labelled patches, in "
        f"{num_blocks} block{'' if num_blocks == 1 else 's'}, reach train "
        f"(eval {found.num_examples.get('eval', 0)}, test {found.num_examples.get('test', 0)}; "
        f"left out: {reasons}): try {', '.join(_cures(found, left_out))}"
    )


def _cures(found: Manifest, left_out: dict[str, int]) -> Iterator[str]:
    """Yield what can bring more patches or blocks to train, with the present values."""
    split = found.config.get("split") or {}
    block_km = split.get("block_size_km", 0.0)
    advised_km = _BLOCK_PATCHES * found.patch_size_px * found.pixel_size_m / 1000.0
    if block_km > advised_km:
        yield f"split.block_size_km {advised_km:g} (two patches wide; now {block_km:g})"
    if left_out.get("in_buffer"):
        yield f"a smaller split.buffer_m (now {split.get('buffer_m', 0.0):g})"
    # With folds, every block is in train for most of them, and the fractions are idle.
    if not split.get("folds"):
        shares = [split.get(f"{name}_fraction", 0.0) for name in ("eval", "test")]
        if max(shares) > 0.1:
            yield (
                "a smaller split.eval_fraction and split.test_fraction "
                f"(now {shares[0]:g} and {shares[1]:g})"
            )
        yield "split.folds with `terrapair cross-validate`, which trains on each block in turn"
    yield "more labels, also weak ones (terrapair:label_kind)"
