"""Passes give what a plain loop gives, and leave no tuner behind that their end waits for."""

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import layout
from models.config import InputConfig
from models.reading import data_service, epochs, passes
from models.reading.data_service import Service
from models.reading.epochs import EpochPlan
from models.reading.record_source import open_source
from tests.data.shards import make_shards


def test_a_pass_is_in_order_and_takes_parts_of_a_tuple():
    numbers = tf.data.Dataset.range(40).batch(3).enumerate()
    found = passes.one_pass(numbers, lambda step, rows: {"x": rows * 10 + step})
    assert found.options().autotune.enabled is False
    steps = np.repeat(np.arange(14), 3)[:40]
    np.testing.assert_array_equal(
        np.concatenate([batch["x"] for batch in found.as_numpy_iterator()]),
        np.arange(40) * 10 + steps,
    )


def test_no_server_of_an_epoch_tunes(tmp_path, monkeypatch):
    version = make_shards.make_version(tmp_path, num_patches=6, size_px=8)
    files = [str(shard) for shard in layout.shard_paths(version, "train")]
    source = open_source(files, {"patch_id": tf.io.FixedLenFeature([], tf.string)}, InputConfig())
    plan = EpochPlan(num_examples=6, batch_size=2, shuffle_buffer=4, seed=0)
    served = []
    monkeypatch.setattr(data_service, "distribute", lambda batches, _: served.append(batches))
    service = Service(address="grpc://nobody:1")
    epochs.served_epoch(source, lambda _, keys: source.fetch(keys), plan, service)
    assert [one.options().autotune.enabled for one in served] == [False]


def test_only_the_tuner_is_turned_off():
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    untuned = passes.untuned(tf.data.Dataset.range(3).with_options(options))
    policy = untuned.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.OFF
    assert list(untuned.as_numpy_iterator()) == [0, 1, 2]
