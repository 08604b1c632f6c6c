from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contracts.bands import S2_L2A_BANDS
from models.augmentation.augmenter import (
    augment_geometry,
    augment_photometry,
    make_augmenter,
    random_band_drop,
)
from models.augmentation.config import (
    GeometryConfig,
    ImageAugmentConfig,
    OpticalConfig,
    PhotometryConfig,
    RadarConfig,
)

SEED = tf.constant([2, 9], tf.int64)
STRONG = PhotometryConfig(band_drop_probability=0.5)
STATISTICS = {
    "s1": [SimpleNamespace(band=band, mean=mean) for band, mean in (("VV", -11.5), ("VH", -18.5))],
    "s2": [SimpleNamespace(band=band, mean=0.01 * i) for i, band in enumerate(S2_L2A_BANDS)],
}
MANIFEST = SimpleNamespace(statistics=STATISTICS.__getitem__)


def patches(gap_share=0.2, num_patches=12, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        "s1": rng.normal(-12.0, 3.0, (num_patches, 16, 16, 2)),
        "s2": rng.uniform(0.0, 0.5, (num_patches, 16, 16, len(S2_L2A_BANDS))),
    }
    for image in batch.values():
        image[rng.random((num_patches, 16, 16)) < gap_share] = np.nan
        image[0] = np.nan
    return {sensor: tf.constant(image, tf.float32) for sensor, image in batch.items()}


@settings(max_examples=15, deadline=None)
@given(
    number=st.integers(0, 2**31),
    gap_share=st.sampled_from([0.0, 0.2, 0.9]),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    sensor=st.sampled_from(["s1", "s2"]),
)
def test_photometry_keeps_the_mask_and_repeats_itself(number, gap_share, probability, sensor):
    config = PhotometryConfig(
        s1=RadarConfig(speckle_probability=probability),
        s2=OpticalConfig(haze_probability=probability),
        blur_probability=probability,
        band_drop_probability=probability,
    )
    image, seed = patches(gap_share, seed=number % 5)[sensor], tf.constant([number, 1], tf.int64)
    after, again = (
        augment_photometry(
            image, sensor, statistics=STATISTICS[sensor], config=config, seed=seed
        ).numpy()
        for _ in range(2)
    )
    np.testing.assert_array_equal(np.isfinite(after), np.isfinite(image))
    np.testing.assert_array_equal(after, again)
    if sensor == "s2":
        assert np.nanmin(after) >= 0.0


def test_dropped_bands_become_the_train_mean_where_there_is_data():
    image = patches()["s1"].numpy()
    image = np.repeat(image, 50, axis=0)
    after = random_band_drop(tf.constant(image), [-11.5, -18.5], 0.3, SEED).numpy()
    np.testing.assert_array_equal(np.isnan(after), np.isnan(image))
    valid = np.isfinite(image).all(axis=-1)
    dropped = np.stack(
        [(after[..., band] == mean) | ~valid for band, mean in enumerate((-11.5, -18.5))], -1
    )
    dropped = dropped.all(axis=(1, 2))[50:]
    # Of two bands both would go in 9 % of the patches: one of them stays then.
    assert not dropped.all(axis=1).any()
    assert dropped.mean(axis=0) == pytest.approx([0.3 - 0.045] * 2, abs=0.06)
    kept = after[50:][~dropped.any(axis=1)]
    np.testing.assert_array_equal(kept, image[50:][~dropped.any(axis=1)])


def test_one_band_stays_even_at_certainty():
    image = tf.random.stateless_normal([40, 2, 2, 5], SEED)
    after = random_band_drop(image, [9.0] * 5, 1.0, SEED).numpy()
    np.testing.assert_array_equal((after != 9.0).all(axis=(1, 2)).sum(axis=1), np.ones(40))


def test_geometry_is_one_for_all_that_a_patch_holds():
    number = np.arange(256, dtype=np.float32).reshape(1, 16, 16) + np.zeros((20, 1, 1), np.float32)
    batch = {
        "s1": tf.constant(np.stack([number, 256.0 - number], -1)),
        "s2": tf.constant(np.stack([2 * number], -1)),
        "label": tf.constant(number, tf.uint8),
        "lon": tf.range(20.0),
    }
    after = augment_geometry(batch, GeometryConfig(min_crop_fraction=0.4), SEED)
    label = after["label"].numpy().astype(np.float32)
    # Radar and label come from one pixel.
    np.testing.assert_array_equal(after["s1"], np.stack([label, 256.0 - label], -1))
    # Sentinel-2 lies between pixels: half a pixel off at most, in rows (16) and
    # columns (1).
    assert 0.0 < np.abs(label - 0.5 * after["s2"].numpy()[..., 0]).max() <= 8.5 + 2e-3
    # Both the crop and the symmetry took place.
    assert len({patch.tobytes() for patch in after["label"].numpy()}) == 20
    assert (after["label"].numpy()[:, 0, 0] > after["label"].numpy()[:, -1, -1]).any()
    unchanged = augment_geometry(batch, GeometryConfig(symmetries=False), SEED)
    np.testing.assert_array_equal(unchanged["s1"], batch["s1"])


def test_photometry_is_an_option_and_each_sensor_has_its_own():
    batch = patches() | {"label": tf.zeros([12, 16, 16], tf.uint8)}
    still = GeometryConfig(symmetries=False)
    plain = make_augmenter(ImageAugmentConfig(geometry=still), MANIFEST)(batch, SEED)
    for name in batch:
        np.testing.assert_array_equal(plain[name], batch[name])
    changed = make_augmenter(ImageAugmentConfig(geometry=still, photometry=STRONG), MANIFEST)(
        batch, SEED
    )
    np.testing.assert_array_equal(changed["label"], batch["label"])
    for sensor in ("s1", "s2"):
        difference = np.abs(changed[sensor] - batch[sensor])
        assert (np.nanmax(difference[1:], axis=(1, 2, 3)) > 0).all()
    alone = make_augmenter(ImageAugmentConfig(geometry=still, photometry=STRONG), MANIFEST)(
        {"s2": batch["s2"]}, SEED
    )
    np.testing.assert_array_equal(alone["s2"], changed["s2"])


def test_strong_set_works_in_a_graph_with_sizes_that_are_not_known():
    augment = make_augmenter(
        ImageAugmentConfig(geometry=GeometryConfig(min_crop_fraction=0.3), photometry=STRONG),
        MANIFEST,
    )
    batch = patches()
    signature = {
        name: tf.TensorSpec([None, None, None, tensor.shape[-1]], tf.float32)
        for name, tensor in batch.items()
    }
    traced = tf.function(
        augment, autograph=False, input_signature=[signature, tf.TensorSpec([2], tf.int64)]
    )
    for name, tensor in traced(batch, SEED).items():
        np.testing.assert_allclose(tensor, augment(batch, SEED)[name], rtol=1e-4, atol=1e-4)
