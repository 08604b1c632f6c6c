"""A real dispatcher and two workers on loopback: each epoch has every pair once, in a new order."""

import socket
from itertools import zip_longest
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import layout
from models import input_pipeline
from models.augmentation.symmetries import random_symmetry
from models.config import InputConfig
from models.reading import data_service, epochs
from models.reading.data_service import Service
from models.reading.epochs import EpochPlan
from models.reading.record_source import open_source
from tests.data.shards import make_shards
from tests.models.reading.test_loopback import answers, other_address


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = make_shards.make_version(
        tmp_path_factory.mktemp("served"), num_patches=46, size_px=16, seed=4
    )
    return [str(shard) for shard in layout.shard_paths(path, "train")]


@pytest.fixture(scope="module")
def service():
    dispatcher = data_service.start_dispatcher(0)
    workers = [data_service.start_worker(dispatcher.target, "localhost", 0) for _ in range(2)]
    return SimpleNamespace(address=dispatcher.target, servers=[dispatcher, *workers])


def test_servers_answer_this_machine_only_unless_told():
    dispatcher = data_service.start_dispatcher(0)
    port = int(dispatcher.target.rpartition(":")[2])
    worker_port = data_service._free_port()
    worker = data_service.start_worker(dispatcher.target, "localhost", worker_port)
    told = data_service.start_dispatcher(0, socket.gethostname())
    remote = other_address(socket.AF_INET)
    for shut in (port, worker_port):
        assert answers("127.0.0.1", shut)
        assert not answers(remote, shut)
    assert answers(remote, int(told.target.rpartition(":")[2]))
    del worker, dispatcher, told


def batches(files, num_batches, **reading):
    dataset = input_pipeline.train_dataset(
        files,
        input_pipeline.Features(
            num_bands={"s1": 2, "s2": 12},
            with_patch_id=True,
        ),
        EpochPlan(
            num_examples=46,
            batch_size=5,
            shuffle_buffer=64,
            seed=0,
        ),
        transform=random_symmetry,
        reading=InputConfig(**reading),
    )
    return list(dataset.take(num_batches).as_numpy_iterator())


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_an_epoch_has_each_pair_once_whichever_worker_reads_it(shards, service, cache, tmp_path):
    # A training sets the global seed, 0 by default, which must neither stop the
    # shuffling nor make epochs alike.
    tf.random.set_seed(0)
    options = {"cache": cache, "cache_dir": str(tmp_path) if cache == "disk" else ""}
    found = batches(shards, 18, deterministic=False, data_service=service.address, **options)
    # 46 pairs: 9 full batches an epoch, 1 pair left out.
    epochs = [
        [name for batch in found[start : start + 9] for name in batch["patch_id"]]
        for start in (0, 9)
    ]
    for names in epochs:
        assert len(set(names)) == len(names) == 45
    assert epochs[0] != epochs[1]
    # The pixels are those that are read without a service, up to a flip or turn.
    plain = pixels_by_name(batches(shards, 18))
    for name, pixels in pixels_by_name(found).items():
        np.testing.assert_array_equal(pixels, plain[name])


def pixels_by_name(found):
    """Patch id -> sorted values of all bands of each sensor, one sensor after the other."""
    return {
        name: np.concatenate([np.sort(batch[sensor][row], axis=None) for sensor in ("s1", "s2")])
        for batch in found
        for row, name in enumerate(batch["patch_id"])
    }


PLAN = EpochPlan(num_examples=46, batch_size=4, shuffle_buffer=64, seed=0)


@pytest.fixture
def source(shards):
    return open_source(shards, {"patch_id": tf.io.FixedLenFeature([], tf.string)}, InputConfig())


@pytest.mark.parametrize("target", ["ANY", "LOCAL"])
def test_readers_of_one_training_share_an_epoch(source, service, target):
    sharing = Service(address=service.address, num_readers=2, job=f"by-{target}", target=target)
    readers = [
        epochs.served_epoch(source, lambda _, keys: source.fetch(keys), PLAN, sharing)
        for _ in range(2)
    ]
    # In turns, as workers that wait for each other at every step. A slow one may find
    # that the other has taken all of so short an epoch.
    in_turns = list(zip_longest(*(reader.as_numpy_iterator() for reader in readers)))
    found = [
        [name for batch in batches if batch for name in batch["patch_id"]]
        for batches in zip(*in_turns, strict=True)
    ]
    names = [name for rows in found for name in rows]
    assert len(set(names)) == len(names) == 46


def test_a_reader_that_gets_nothing_of_an_epoch_goes_on_with_the_next(source, service):
    sharing = Service(address=service.address, num_readers=2, job="hungry")
    endless = epochs.served_batches(source, lambda _, keys: source.fetch(keys), PLAN, sharing)
    # The other reader takes all of the first epoch.
    other = epochs.served_epoch(source, lambda _, keys: source.fetch(keys), PLAN, sharing)
    assert sum(len(batch["patch_id"]) for batch in other.as_numpy_iterator()) == 46
    batches = list(endless.take(22).as_numpy_iterator())
    assert {len(batch["patch_id"]) for batch in batches} == {4}
    # 46 pairs of the second epoch, and then those of the third.
    names = [name for batch in batches for name in batch["patch_id"]]
    assert len(set(names[:46])) == 46


def test_a_worker_without_a_shard_of_its_own_is_refused(source):
    many = Service(address="grpc://nobody:1", num_readers=source.num_shards + 1, job="x")
    with pytest.raises(ValueError, match=r"needs a shard .* of the \d+ workers, got \d+: build"):
        epochs.served_batches(source, lambda _, keys: source.fetch(keys), PLAN, many)


def test_a_training_of_one_process_serves_itself(shards):
    tf.random.set_seed(0)
    found = batches(shards, 9, deterministic=False, data_service="workers")
    assert len({name for batch in found for name in batch["patch_id"]}) == 45
