import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import records
from models.health import embedded_split, embeddings


@pytest.fixture(scope="module")
def embedder(pretrained):
    return embeddings.Embedder(embeddings.load_dual_encoder(pretrained.dir))


def decoded(files):
    return [
        records.decode(item)
        for item in tf.data.TFRecordDataset(sorted(files), "GZIP").as_numpy_iterator()
    ]


def test_rows_are_what_the_published_signatures_and_the_records_say(embedder, pretrained, labels):
    files = labels.files["eval"]
    split = embedder.embed_split(labels.manifest, files, batch_size=3)
    patches = decoded(files)
    signatures = tf.saved_model.load(pretrained.dir).signatures
    for sensor in ("s1", "s2"):
        pixels = np.stack([getattr(patch, sensor) for patch in patches])
        expected = signatures[f"embed_{sensor}"](**{sensor: tf.constant(pixels)})["embedding"]
        np.testing.assert_allclose(split.embeddings[sensor], expected, atol=1e-5)
        assert split.features[sensor].shape == (len(patches), 128)
        np.testing.assert_allclose(
            split.valid_fraction[sensor],
            [records.valid_fraction(getattr(patch, sensor)) for patch in patches],
        )
        # Not closer: the record's means are of the pixels before they were rounded to
        # be stored.
        np.testing.assert_allclose(
            split.band_means[sensor],
            [records.band_moments(getattr(patch, sensor))[0] for patch in patches],
            rtol=1e-4,
        )
    assert split.orbit_state.tolist() == [patch.orbit_state for patch in patches]
    assert split.block.tolist() == [patch.block for patch in patches]
    np.testing.assert_allclose(split.lon, [patch.lon for patch in patches], rtol=1e-6)
    counts = [np.bincount(patch.label[patch.label != 255]) for patch in patches]
    assert split.label.tolist() == [int(count.argmax()) for count in counts]


def test_unlabelled_shards_have_no_label_and_the_number_can_be_limited(embedder, pairs):
    split = embedder.embed_split(pairs.manifest, pairs.files["train"], max_patches=5)
    assert len(split) == 5
    assert split.label is None
    # From both files, not from the first alone.
    assert len(set(split.block)) >= 2


def test_patch_without_data_in_one_sensor_is_left_out(embedder, pairs, tmp_path):
    patches = decoded(pairs.files["eval"])
    patches[2] = dataclasses.replace(patches[2], s2=np.full_like(patches[2].s2, np.nan))
    path = str(tmp_path / "part.tfrecord.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for patch in patches:
            writer.write(records.encode(patch))
    split = embedder.embed_split(pairs.manifest, [path])
    assert len(split) == len(patches) - 1
    assert patches[2].block in split.block
    np.testing.assert_allclose(split.lon, np.delete([patch.lon for patch in patches], 2), rtol=1e-6)


def test_selected_rows_stay_together(embedder, labels):
    split = embedder.embed_split(labels.manifest, labels.files["eval"])
    part = embedded_split.select(split, np.array([5, 1]))
    assert part.block.tolist() == [split.block[5], split.block[1]]
    np.testing.assert_array_equal(part.features["s2"], split.features["s2"][[5, 1]])
    np.testing.assert_array_equal(part.label, split.label[[5, 1]])


def test_shards_of_other_bands_and_empty_splits_are_refused(embedder, pairs):
    other = dataclasses.replace(pairs.manifest, s1_bands=("HH", "HV"))
    with pytest.raises(ValueError, match="it takes s1 bands VV, VH, but the patches hold HH, HV"):
        embedder.embed_split(other, pairs.files["eval"])
    with pytest.raises(ValueError, match="got none in 0 files"):
        embedder.embed_split(pairs.manifest, [])
