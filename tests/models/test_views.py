from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from models.augmentation.config import AugmentConfig
from models.augmentation.symmetries import random_symmetry
from models.config import EncoderConfig, PretrainConfig
from models.views import break_pairs, eval_views, make_views, train_views

SEED = tf.constant([3, 0], tf.int64)


def batch(num_pairs=6):
    rng = np.random.default_rng(0)
    return {
        "s1": tf.constant(rng.normal(size=(num_pairs, 4, 4, 2))),
        "s2": tf.constant(rng.normal(size=(num_pairs, 4, 4, 3))),
        "lon": tf.range(float(num_pairs)),
    }


def test_views_are_copies_each_with_its_own_seed():
    original = batch()
    made = make_views(original, ("s1", "s1_a", "s1_b"), random_symmetry, SEED)
    assert set(made) == {"lon", "s1", "s1_a", "s1_b"}
    np.testing.assert_array_equal(made["s1"], original["s1"])
    np.testing.assert_array_equal(made["lon"], original["lon"])
    assert not np.array_equal(made["s1_a"], made["s1_b"])
    for view in ("s1_a", "s1_b"):
        np.testing.assert_array_equal(
            np.sort(np.ravel(made[view][0])), np.sort(np.ravel(original["s1"][0]))
        )
    again = make_views(original, ("s1", "s1_a", "s1_b"), random_symmetry, SEED)
    np.testing.assert_array_equal(again["s1_b"], made["s1_b"])


def test_broken_pairs_are_in_any_order_equally_often():
    # If no pair could stay whole, the true partner would always be a negative, and a
    # model would learn the pairs with a negative sign.
    original = batch(4)
    num_draws, kept, orders = 600, 0, set()
    for step in range(num_draws):
        broken = break_pairs(original, tf.constant([1, step], tf.int64))
        np.testing.assert_array_equal(broken["s1"], original["s1"])
        same = np.all(broken["s2"].numpy()[:, None] == original["s2"].numpy()[None], axis=(2, 3, 4))
        # Each image is used once.
        np.testing.assert_array_equal(same.sum(axis=0), np.ones(4))
        kept += int(same.diagonal().sum())
        orders.add(tuple(same.argmax(axis=1)))
    assert len(orders) == 24
    # A uniform permutation has one fixed point on average, with variance 1.
    assert kept / num_draws == pytest.approx(1.0, abs=4 / num_draws**0.5)


def config(no_data, **changes):
    return PretrainConfig(
        encoder=EncoderConfig(backbone="small"),
        num_steps=1,
        augment=AugmentConfig(no_data=no_data),
        **changes,
    )


STATISTICS = {
    "s1": [SimpleNamespace(band="VV", mean=0.0)],
    "s2": [SimpleNamespace(band="B2", mean=0.0)],
}
MANIFEST = SimpleNamespace(statistics=STATISTICS.__getitem__)


def pairs_with_gaps(num_pairs=64, size=16):
    """Pixels hold their number in both sensors; each pair has its own gap, Sentinel-2 one more."""
    rng = np.random.default_rng(0)
    image = np.zeros((num_pairs, size, size, 1), np.float32) + np.arange(size * size).reshape(
        size, size, 1
    )
    gaps = np.zeros((num_pairs, size, size), bool)
    for gap, (north, south, west, east) in zip(
        gaps, rng.integers(0, 3, (num_pairs, 4)), strict=True
    ):
        gap[north : size - south, west : size - east] = True
    more = gaps.copy()
    more[:, 7] = False
    s1, s2 = (np.where(mask[..., None], image, np.nan) for mask in (gaps, more))
    return {"s1": tf.constant(s1, tf.float32), "s2": tf.constant(s2, tf.float32)}, gaps, more


def masks(views):
    return (np.isfinite(views[sensor]).all(-1) for sensor in ("s1", "s2"))


def test_no_data_is_kept_or_masked_jointly_when_asked():
    original, gaps, more = pairs_with_gaps()
    s1, s2 = masks(eval_views(config("keep"), ("s1", "s2"), MANIFEST)(original, SEED))
    np.testing.assert_array_equal(s1, gaps)
    np.testing.assert_array_equal(s2, more)
    for mask in masks(eval_views(config("mask"), ("s1", "s2"), MANIFEST)(original, SEED)):
        np.testing.assert_array_equal(mask, more)


def test_hidden_no_data_does_not_tell_the_pair():
    original, gaps, more = pairs_with_gaps()
    made = eval_views(config("hide"), ("s1", "s2"), MANIFEST)(original, SEED)
    s1, s2 = masks(made)
    # Both sensors keep gaps of their own kind, those of other patches.
    assert {mask.tobytes() for mask in s1} <= {mask.tobytes() for mask in gaps}
    assert {mask.tobytes() for mask in s2} <= {mask.tobytes() for mask in more}
    without_stripe = np.delete(s1, 7, axis=1), np.delete(s2, 7, axis=1)
    agreement = (without_stripe[0][:, None] == without_stripe[1][None]).mean(axis=(2, 3))
    # The own partner's gap is no more alike than that of anybody else.
    of_pairs, of_others = agreement.diagonal(), agreement[~np.eye(64, dtype=bool)]
    assert abs(of_pairs.mean() - of_others.mean()) < 3 * of_others.std() / 8
    kept = s1 & s2
    np.testing.assert_array_equal(made["s1"].numpy()[kept], made["s2"].numpy()[kept])


def test_augmented_views_of_one_sensor_get_gaps_each_on_its_own():
    original, _, _ = pairs_with_gaps()
    made = train_views(config("hide", objective="simclr_s1"), ("s1_a", "s1_b"), MANIFEST)(
        {"s1": original["s1"]}, SEED
    )
    a, b = (np.isfinite(made[view]).all(-1) for view in ("s1_a", "s1_b"))
    assert np.mean([np.array_equal(x, y) for x, y in zip(a, b, strict=True)]) < 0.2
    assert a.any(axis=(1, 2)).all()
    assert b.any(axis=(1, 2)).all()


def test_training_views_of_pairs_lie_on_one_grid_unless_pairs_are_broken():
    original, _, _ = pairs_with_gaps()
    original = {
        sensor: image + 1000.0 * np.arange(64).reshape(64, 1, 1, 1)
        for sensor, image in original.items()
    }
    for objective in ("multimodal", "shuffled"):
        made = train_views(config("mask", objective=objective), ("s1", "s2"), MANIFEST)(
            original, SEED
        )
        s1, s2 = made["s1"].numpy(), made["s2"].numpy()
        both = np.isfinite(s1) & np.isfinite(s2)
        np.testing.assert_array_equal(np.isfinite(s1), np.isfinite(s2))
        place = [np.unique(patch[seen] // 1000) for patch, seen in zip(s1, both, strict=True)]
        partner = [np.unique(patch[seen] // 1000) for patch, seen in zip(s2, both, strict=True)]
        assert all(len(numbers) == 1 for numbers in place + partner)
        is_own = np.array(place) == np.array(partner)
        assert is_own.all() if objective == "multimodal" else not is_own.any()
        if objective == "multimodal":
            np.testing.assert_array_equal(s1[both], s2[both])
            # Flipped and turned.
            assert len({(patch % 1000)[4:12, 4:12].tobytes() for patch in s1}) == 8
