import numpy as np
import tensorflow as tf

from models.augmentation.sensor_dropout import drop_sensor

NUM_PATCHES = 4000


def batch_of(rng):
    """Patches 0-9 have no Sentinel-1 data, 10-19 no Sentinel-2 data; all have gaps."""
    s1 = rng.normal(size=(NUM_PATCHES, 2, 2, 2)).astype(np.float32)
    s2 = rng.uniform(size=(NUM_PATCHES, 2, 2, 3)).astype(np.float32)
    s1[:, 0, 0], s2[:, 1, 1, 0] = np.nan, np.nan
    s1[:10], s2[10:20] = np.nan, np.nan
    return {"s1": s1, "s2": s2, "label": rng.integers(0, 2, (NUM_PATCHES, 2, 2)).astype(np.uint8)}


def test_some_patches_lose_one_sensor_and_both_sensors_are_lost_equally_often():
    batch = batch_of(np.random.default_rng(0))
    dropped = {
        name: np.asarray(t)
        for name, t in drop_sensor(batch, 0.4, tf.constant([3, 7], tf.int64)).items()
    }
    lost = {}
    for sensor in ("s1", "s2"):
        lost[sensor] = np.isnan(dropped[sensor]).all(axis=(1, 2, 3))
        kept = ~lost[sensor]
        np.testing.assert_array_equal(dropped[sensor][kept], batch[sensor][kept])
    assert not (lost["s1"] & lost["s2"]).any()
    np.testing.assert_array_equal(lost["s1"][:20], [True] * 10 + [False] * 10)
    np.testing.assert_array_equal(lost["s2"][:20], [False] * 10 + [True] * 10)
    for sensor in ("s1", "s2"):
        assert abs(lost[sensor][20:].mean() - 0.2) < 0.03
    np.testing.assert_array_equal(dropped["label"], batch["label"])


def test_equal_seeds_drop_the_same_and_probability_0_and_1_drop_none_and_all():
    batch = batch_of(np.random.default_rng(1))
    one, same, other = (
        drop_sensor(batch, 0.5, tf.constant([3, step], tf.int64))["s1"].numpy()
        for step in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(np.isnan(one), np.isnan(other))
    never, always = (drop_sensor(batch, p, tf.constant([0, 0], tf.int64)) for p in (0.0, 1.0))
    np.testing.assert_array_equal(never["s2"], batch["s2"])
    gone = [np.isnan(always[sensor].numpy()).all(axis=(1, 2, 3)) for sensor in ("s1", "s2")]
    assert (gone[0] ^ gone[1]).all()
