"""The spool: what is finished is found again, what is dropped leaves nothing."""

from collections import Counter

import numpy as np
import pytest

from beam_jobs.build import patches, spool, writers
from beam_jobs.contracts import records
from tests.data.shards.make_patches import make_patch


def patch_of(letter: str) -> records.PairedPatch:
    return make_patch(letter * 20, 8, np.random.default_rng(ord(letter)))


def test_a_finished_strip_is_given_back_and_nothing_of_an_abandoned_one(tmp_path, build_config):
    patch = patch_of("a")
    writer = spool.Writer(str(tmp_path), "task", build_config)
    writer.add(("train", patch))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    writer = spool.Writer(str(tmp_path), "task", build_config)
    writer.add(("train", patch))
    written = writer.finish()
    loaded = spool.load(str(tmp_path), "task")
    assert loaded is not None
    assert list(spool.read(loaded.refs)) == [records.encode(patch)]
    assert loaded.refs == written.refs
    assert spool.load(str(tmp_path), "other task") is None


def test_a_dropped_pair_of_a_bundle_leaves_neither_references_nor_sums(tmp_path, build_config):
    first, dropped, last = map(patch_of, "abc")
    results = []
    for kept, also in (((first, last), dropped), ((first, last), None)):
        folder = tmp_path / str(also is None)
        writer = spool.Writer(str(folder), "bundle", build_config, num_pairs=3)
        writer.add(("train", kept[0]))
        writer.commit()
        if also is not None:
            writer.add(("train", also))
            writer.drop()
        writer.add(("train", kept[1]))
        writer.finish()
        assert spool.count_finished(folder) == 3
        results.append(spool.load(str(folder), "bundle", 3))
    for found in results:
        assert list(spool.read(found.refs)) == [records.encode(first), records.encode(last)]
    assert [
        np.array_equal(a, b)
        for a, b in zip(*(vars(found.band_sums["s2"]).values() for found in results), strict=True)
    ] == [True] * 4
    # Taking a patch out again leaves the sums of the other.
    rest = spool.merge_sums(
        results[0].band_sums, spool.uncounted(results[0].refs[0], build_config).band_sums
    )["s1"]
    alone = spool.Writer(str(tmp_path / "alone"), "task", build_config)
    alone.add(("train", last))
    expected = alone.finish().band_sums["s1"]
    assert np.array_equal(rest.histogram, expected.histogram)
    assert rest.total == pytest.approx(expected.total)


def test_counts_of_values_out_of_range_travel_with_the_pairs_that_are_kept(tmp_path, build_config):
    writer = spool.Writer(str(tmp_path), "bundle", build_config, num_pairs=3)
    for number, keep in ((2, True), (40, False), (5, True)):
        writer.add(patches.OutOfRange(num_pixels=Counter({("s1", "VV"): number, ("s2", "B4"): 1})))
        writer.commit() if keep else writer.drop()
    writer.finish()
    found = spool.load(str(tmp_path), "bundle", 3)
    assert found is not None
    expected = {("s1", "VV"): 7, ("s2", "B4"): 2}
    assert found.num_out_of_range == expected
    merge = writers.MergeSummaries()
    merged = merge.add_input(merge.create_accumulator(), found)
    other = writers.Summary(num_out_of_range=Counter({("s1", "VV"): 1}))
    merged = merge.merge_accumulators([merged, merge.add_input(other, writers.Summary())])
    assert merged.num_out_of_range == {("s1", "VV"): 8, ("s2", "B4"): 2}
