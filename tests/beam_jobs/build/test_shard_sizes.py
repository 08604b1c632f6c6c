"""Shards have about the wanted size on disk, and no shard is held in memory."""

import hashlib
import random
import tracemalloc
import zlib

import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from beam_jobs import config as c
from beam_jobs.build import shard_sizes, spool, writers
from beam_jobs.build.shard_sizes import SumVolumes, Volume
from beam_jobs.build.spool import PatchRef
from beam_jobs.contracts import records
from tests.data.shards.make_patches import make_patch


def patch_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:20]


def patches(number: int, size: int) -> list[records.PairedPatch]:
    rng = np.random.default_rng(0)
    return [make_patch(patch_id(i), size, rng, s2_max=0.11) for i in range(number)]


@pytest.fixture(scope="module")
def refs(tmp_path_factory) -> list[PatchRef]:
    """400 patches of the spool, about 17 kB each."""
    writer = spool.Writer(str(tmp_path_factory.mktemp("spool")), "task", c.BuildConfig())
    for patch in patches(400, 24):
        writer.add(("eval", patch))
    return writer.finish().refs


def test_one_patch_in_32_is_measured_and_its_id_alone_decides(refs):
    sampled = [ref for ref in refs if ref.gzip_bytes is not None]
    assert 4 <= len(sampled) <= 30
    for ref, raw in zip(sampled, spool.read(sampled), strict=True):
        assert ref.gzip_bytes == len(zlib.compress(raw))
        assert int(ref.patch_id[-8:], 16) % 32 == 0


def test_sums_do_not_depend_on_order_or_bundles(refs):
    total = SumVolumes()

    def volume_of(some) -> Volume:
        summed = total.create_accumulator()
        for ref in some:
            summed = total.add_input(summed, ref.volume)
        return summed

    shuffled = random.Random(1).sample(refs, len(refs))
    merged = total.merge_accumulators(
        [volume_of(shuffled[:7]), volume_of(shuffled[7:]), volume_of([])]
    )
    assert merged == volume_of(refs)
    assert merged.num_examples == 400
    assert merged.num_bytes == sum(ref.num_bytes for ref in refs)


@pytest.mark.parametrize(
    ("volume", "target_mb", "per_shard", "expected"),
    [
        (
            Volume(num_examples=10, num_bytes=1_000_000, sampled_bytes=100, sampled_gzip_bytes=50),
            0.25,
            None,
            2,
        ),
        (
            Volume(num_examples=10, num_bytes=1_000_001, sampled_bytes=100, sampled_gzip_bytes=50),
            0.25,
            None,
            3,
        ),
        # Without a sample nothing shrinks: smaller shards, never larger ones.
        (Volume(num_examples=10, num_bytes=1_000_000), 0.25, None, 4),
        (Volume(num_examples=10, num_bytes=1_000_000), 128.0, None, 1),
        (Volume(num_examples=10, num_bytes=1_000_000), 128.0, 3, 4),
        (Volume(num_examples=10, num_bytes=1_000_000), 0.1, 3, 10),
    ],
)
def test_number_of_shards(volume, target_mb, per_shard, expected):
    assert volume.num_shards(target_mb, per_shard) == expected


def test_shards_have_about_the_size_that_was_asked_for_and_hold_every_patch_once(refs, tmp_path):
    config = c.ShardConfig(target_shard_mb=0.5)
    with TestPipeline() as pipeline:
        refs_in = pipeline | writers.beam.Create(refs, reshuffle=False)
        written = refs_in | writers.WriteShards(str(tmp_path), config)
        merged = written | writers.beam.CombineGlobally(writers.MergeSummaries())
        merged | writers.beam.Map(writers.write_summary, str(tmp_path))
    summary = writers.read_summary(tmp_path)
    sizes = [entry.num_bytes for entry in summary.shards.values()]
    assert len(sizes) >= 4
    # Patches go to shards by their hash, so one holds some more and another some fewer.
    assert np.mean(sizes) == pytest.approx(500_000, rel=0.2)
    assert max(sizes) < 750_000
    assert sum(entry.num_examples for entry in summary.shards.values()) == 400
    assert summary.contents.num_examples == {"eval": 400}


def test_writing_a_shard_holds_a_few_patches_not_all(refs, tmp_path):
    tracemalloc.start()
    summary = writers._write_shard(("eval/part-00000-of-00001.tfrecord.gz", refs), str(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (entry,) = summary.shards.values()
    assert entry.num_examples == 400
    # Two blocks of 1 MB, of which the hash of the file is made, and little else.
    assert peak < 2.5e6 < sum(ref.num_bytes for ref in refs) / 2


def test_the_measure_is_the_size_that_tfrecord_gives():
    # zlib's own default level, as TFRecordWriter takes it.
    raw = records.encode(patches(1, 24)[0])
    number = next(n for n in range(1000) if shard_sizes.sampled_gzip_bytes(patch_id(n), raw))
    assert shard_sizes.sampled_gzip_bytes(patch_id(number), raw) == len(zlib.compress(raw, 6))
