import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import records
from models import input_pipeline
from models.augmentation.symmetries import random_symmetry
from models.config import InputConfig
from models.reading import free_memory
from models.reading.epochs import EpochPlan
from models.reading.record_source import FileSource, load

NUM_BANDS = {"s1": 2, "s2": 12}


def decoded(files):
    serialized = itertools.chain.from_iterable(
        tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator() for path in files
    )
    return [records.decode(record) for record in serialized]


def make(labels, **changes):
    """Batches of the train split; `changes` are of the features, the plan or the reading."""
    plan = {"num_examples": 24, "batch_size": 5, "shuffle_buffer": 8, "seed": 3}
    features = {"num_bands": NUM_BANDS, "with_label": True}
    for options in (plan, features):
        options |= {name: changes.pop(name) for name in list(changes) if name in options}
    features |= {name: changes.pop(name) for name in list(changes) if name.startswith("with_")}
    return input_pipeline.train_dataset(
        labels.files["train"],
        input_pipeline.Features(**features),
        EpochPlan(**plan),
        **changes,
    )


def take(dataset, num_batches):
    return list(dataset.take(num_batches).as_numpy_iterator())


def test_eval_batches_are_the_records_of_the_codec_in_order(labels):
    dataset = input_pipeline.eval_dataset(
        labels.files["eval"],
        input_pipeline.Features(
            num_bands=NUM_BANDS,
            with_label=True,
        ),
        batch_size=3,
    )
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["label"]) for batch in batches] == [3, 3, 2]
    patches = decoded(labels.files["eval"])
    for name in ("s1", "s2", "label"):
        got = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(got, np.stack([getattr(patch, name) for patch in patches]))
    assert np.isnan(batches[0]["s1"]).any()


def test_sensor_that_is_not_asked_for_is_not_parsed(labels):
    dataset = input_pipeline.eval_dataset(
        labels.files["eval"],
        input_pipeline.Features(
            num_bands={"s2": 12},
        ),
        batch_size=3,
    )
    assert set(dataset.element_spec) == {"s2"}


def test_training_batches_are_full_endless_and_each_round_sees_a_patch_once(labels):
    batches = take(make(labels, batch_size=12), 6)
    assert all(batch["s1"].shape == (12, 32, 32, 2) for batch in batches)
    means = [np.nanmean(batch["s2"], axis=(1, 2, 3)) for batch in batches]
    for first, second in zip(means[::2], means[1::2], strict=True):
        assert len(np.unique(np.concatenate([first, second]))) == 24
    assert not np.array_equal(means[0], means[2])


def test_same_seed_gives_the_same_batches_and_another_seed_others(labels):
    one, two, other = (
        take(make(labels, transform=random_symmetry, seed=seed), 3) for seed in (3, 3, 4)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a["s2"], b["s2"])
    assert not np.array_equal(one[0]["label"], other[0]["label"])


def test_order_in_which_files_are_listed_changes_no_batch(labels):
    whole = take(make(labels, with_patch_id=True), 6)
    files = labels.files["train"]
    assert len(files) > 1
    listed = input_pipeline.train_dataset(
        files[::-1],
        input_pipeline.Features(num_bands=NUM_BANDS, with_patch_id=True),
        EpochPlan(num_examples=24, batch_size=5, shuffle_buffer=8, seed=3),
    )
    for got, expected in zip(take(listed, 6), whole, strict=True):
        np.testing.assert_array_equal(got["patch_id"], expected["patch_id"])


def test_resumed_batches_are_those_of_the_uninterrupted_run(labels):
    # 24 examples in batches of 5: an epoch has 4 steps and leaves 4 examples out.
    options = {"transform": random_symmetry, "with_patch_id": True}
    whole = take(make(labels, **options), 10)
    for first_step in (1, 4, 7):
        resumed = take(make(labels, first_step=first_step, **options), 3)
        for got, expected in zip(resumed, whole[first_step:], strict=False):
            for name in expected:
                np.testing.assert_array_equal(got[name], expected[name])


def test_epochs_leave_out_other_examples_each_and_know_their_length(labels):
    batches = take(make(labels, with_patch_id=True), 8)
    first, second = (
        {name for batch in part for name in batch["patch_id"]}
        for part in (batches[:4], batches[4:])
    )
    assert len(first) == len(second) == 20
    assert first != second
    with pytest.raises(
        tf.errors.FailedPreconditionError,
        match="expected to contain 6 elements but contained only 4",
    ):
        take(make(labels, num_examples=30), 5)
    with pytest.raises(ValueError, match="num_examples must be at least one batch of 5, got 4"):
        make(labels, num_examples=4)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_changes_no_batch(labels, cache, tmp_path):
    reading = InputConfig(cache=cache, cache_dir=str(tmp_path) if cache == "disk" else "")
    options = {"transform": random_symmetry, "with_patch_id": True, "with_weight": True}
    plain = take(make(labels, **options), 9)
    for first_step in (0, 6):
        cached = take(
            make(labels, first_step=first_step, reading=reading, **options), 9 - first_step
        )
        for got, expected in zip(cached, plain[first_step:], strict=True):
            assert set(got) == set(expected)
            for name in expected:
                np.testing.assert_array_equal(got[name], expected[name])
    features = input_pipeline.Features(num_bands=NUM_BANDS, with_label=True)
    for got, expected in zip(
        input_pipeline.eval_dataset(
            labels.files["eval"], features, batch_size=3, reading=reading
        ).as_numpy_iterator(),
        input_pipeline.eval_dataset(
            labels.files["eval"], features, batch_size=3
        ).as_numpy_iterator(),
        strict=True,
    ):
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])


def test_memory_that_does_not_suffice_is_refused_before_it_is_filled(labels):
    source = FileSource(
        files=tuple(labels.files["train"]),
        compression="GZIP",
        spec={
            "s1": tf.io.FixedLenFeature([], tf.string),
            "weight": tf.io.FixedLenFeature([], tf.float32),
        },
    )
    num_bytes = 24 * (32 * 32 * 2 * 2 + 4)
    assert load(source, int(1.1 * num_bytes)).columns["s1"].shape == (24,)
    message = (
        r"input\.cache: memory must fit into 0\.1 MiB, 80% of what is free, "
        r"got 2 files of about 0\.1 MiB"
    )
    with pytest.raises(ValueError, match=message):
        load(source, int(0.9 * num_bytes))
    assert 0 < free_memory.count_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_batches_without_a_fixed_order_hold_each_patch_once_an_epoch(labels):
    reading = InputConfig(deterministic=False)
    for batches in (
        take(make(labels, batch_size=8, with_patch_id=True, reading=reading), 3) for _ in range(2)
    ):
        assert len({name for batch in batches for name in batch["patch_id"]}) == 24


def test_weights_stay_with_their_patches_through_shuffling_and_augmentation(labels):
    weight_of = {
        round(float(np.nanmean(patch.s2)), 5): patch.weight
        for patch in decoded(labels.files["train"])
    }
    assert set(weight_of.values()) == {1.0, 0.75, 0.5, 0.25}
    for batch in take(make(labels, transform=random_symmetry, with_weight=True), 3):
        means = [round(float(np.nanmean(pixels)), 5) for pixels in batch["s2"]]
        assert [weight_of[mean] for mean in means] == batch["weight"].tolist()


def test_locations_are_those_of_the_records_and_transforms_come_last(labels):
    def transform(batch, seed):
        return {"seed": seed, "mean": tf.reduce_mean(batch["lon"]), **batch}

    dataset = input_pipeline.eval_dataset(
        labels.files["eval"],
        input_pipeline.Features(
            num_bands=NUM_BANDS,
            with_location=True,
            with_patch_id=True,
        ),
        batch_size=5,
        transform=transform,
    )
    batches = list(dataset.as_numpy_iterator())
    patches = decoded(labels.files["eval"])
    assert [name.decode() for batch in batches for name in batch["patch_id"]] == [
        patch.patch_id for patch in patches
    ]
    for name in ("lon", "lat"):
        expected = np.array([getattr(patch, name) for patch in patches], np.float32)
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), expected)
    assert [batch["seed"].tolist() for batch in batches] == [[0, 0], [0, 1]]
    assert batches[1]["mean"] == pytest.approx(
        np.mean([patch.lon for patch in patches[5:]]), rel=1e-6
    )
