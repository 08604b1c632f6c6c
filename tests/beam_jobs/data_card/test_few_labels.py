"""The advice on few labels: what reaches train, what is left out and why, and what to do."""

import dataclasses
import logging
import math
import random

import pytest

from beam_jobs.build import label_checks
from beam_jobs.config import SplitConfig
from beam_jobs.contracts import manifest
from beam_jobs.data_card import card, few_labels
from beam_jobs.data_card.contents import MAX_BLOCKS, Contents
from beam_jobs.judging import splits

SPLIT = {"block_size_km": 2.56, "eval_fraction": 0.15, "test_fraction": 0.15, "buffer_m": 0.0}


def built(train=13, rejected=None, **split):
    """The manifest of one scene of 64 patches of 640 m."""
    config = {"split": SPLIT | split}
    return manifest.Manifest(
        kind="labels",
        span=1,
        version=1,
        patch_size_px=64,
        pixel_size_m=10.0,
        s1_bands=(),
        s2_bands=(),
        s2_processing_level="L2A",
        label_schema="water",
        num_examples={"train": train, "eval": 6, "test": 4},
        num_pixels_per_class={},
        num_rejected={"in_buffer": 5, "straddles_splits": 36} if rejected is None else rejected,
        shards={},
        s1_statistics=(),
        s2_statistics=(),
        config=config,
        config_sha256="",
        source_sha256="",
        code_sha256="",
        code_version="",
    )


def with_blocks(num_train=3):
    contents = Contents()
    contents._add_blocks("train", [f"2.56km_0_{number}" for number in range(num_train)])
    return contents


def test_one_line_says_where_64_labelled_patches_went_and_what_to_do():
    # The scene without its radar partner is no patch; patches without labels are no loss.
    rejected = {"in_buffer": 5, "straddles_splits": 36, "unlabeled": 9, "no_s1_partner": 1}
    assert few_labels.advice(built(rejected=rejected, buffer_m=200.0), with_blocks()) == (
        "only 13 of 64 labelled patches, in 3 blocks, reach train (eval 6, test 4; left out: "
        "straddles_splits 36, in_buffer 5): try split.block_size_km 1.28 (two patches wide; now "
        "2.56), a smaller split.buffer_m (now 200), a smaller split.eval_fraction and "
        "split.test_fraction (now 0.15 and 0.15), split.folds with `terrapair cross-validate`, "
        "which trains on each block in turn, more labels, also weak ones (terrapair:label_kind)"
    )


@pytest.mark.parametrize(
    ("num_train", "num_blocks", "is_given"),
    [(99, 12, True), (100, 11, True), (100, 12, False), (850, 1, True)],
)
def test_few_patches_or_few_blocks_are_enough_for_it(num_train, num_blocks, is_given):
    assert bool(few_labels.advice(built(num_train), with_blocks(num_blocks))) == is_given


def test_pairs_need_none():
    pairs = dataclasses.replace(built(), kind="pairs", label_schema=None)
    assert few_labels.advice(pairs, with_blocks()) == ""


def test_what_is_set_already_is_not_advised():
    text = few_labels.advice(
        built(rejected={}, block_size_km=1.28, eval_fraction=0.1, test_fraction=0.1, folds=5),
        with_blocks(1),
    )
    assert text.endswith(
        "in 1 block, reach train (eval 6, test 4; left out: none): try more labels, also weak ones "
        "(terrapair:label_kind)"
    )


def test_terminal_and_card_say_it_and_say_nothing_where_there_is_enough(caplog):
    few, enough = (built(), with_blocks()), (built(500, {}), with_blocks(40))
    for found, contents in (few, enough):
        with caplog.at_level(logging.WARNING):
            label_checks.warn_of_few(["a.ndjson", "b.ndjson"], found, contents)
    text = few_labels.advice(*few)
    assert caplog.messages == [f"a.ndjson, b.ndjson: {text}"]
    assert card.make_card(*few)["few_labels"] == text
    # Not `card.write`, which draws pictures for a second.
    assert f"**Few labels:** {text}." in card._markdown(card.make_card(*few))
    assert not any("Few labels" in line for line in card._markdown(card.make_card(*enough)))


def test_blocks_are_told_apart_in_any_order_and_only_so_many():
    names = [f"{number:03d}" for number in range(MAX_BLOCKS + 20)]
    random.Random(0).shuffle(names)
    one, two = Contents(), Contents()
    one._add_blocks("train", names)
    for name in (*names, names[0]):
        part = Contents()
        part._add_blocks("train", [name])
        two.merge(part)
    assert one.blocks == two.blocks == {"train": sorted(names)[:MAX_BLOCKS]}


def patches_of_a_scene(config, lat, lon):
    """The splits of 8 x 8 patches of 640 m; None where a patch is left out."""
    height = 0.64 / splits.KM_PER_DEGREE
    width = height / math.cos(math.radians(lat))
    for row in range(8):
        for column in range(8):
            south, west = lat + row * height, lon + column * width
            yield splits.assign(
                [west + width / 2, west, west + width, west, west + width],
                [south + height / 2, south, south, south + height, south + height],
                config,
            ).split


def test_blocks_of_two_patches_leave_one_scene_to_all_splits_most_often():
    places = random.Random(0)
    where = [(places.uniform(-50, 50), places.uniform(-170, 170)) for _ in range(40)]

    def share(block_size_km):
        """Share of the scenes that have a patch in every split."""
        found = 0
        for seed, (lat, lon) in enumerate(where):
            config = SplitConfig(block_size_km=block_size_km, seed=seed)
            found += len({*patches_of_a_scene(config, lat, lon)} - {None}) == 3
        return found / len(where)

    # Measured for 150 scenes: 0.43, 0.88, 0.33; a standard error here is 0.08 at most.
    assert share(1.28) > 0.7
    assert share(0.96) < 0.65
    assert share(2.56) < 0.55
