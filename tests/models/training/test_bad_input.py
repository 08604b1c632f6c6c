"""Shards and manifests that do not fit: an error of one line each, before the first step."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from beam_jobs.contracts import layout, manifest, records
from models import pretrain, segment
from models.config import EncoderConfig, InputConfig, PretrainConfig
from models.reading import shard_checks
from models.segment_config import SegmentConfig
from models.training.scaffold import Folders, Shards
from tests.data.faults import damage
from tests.data.shards import make_shards

SMALL = EncoderConfig(backbone="small", embedding_dim=8)


@pytest.fixture
def version(pairs, tmp_path):
    """A copy of the pairs that may be changed."""
    return opened(shutil.copytree(pairs.path, tmp_path / "copy"))


def opened(path):
    files = {
        split: [str(shard) for shard in layout.shard_paths(path, split)] for split in layout.SPLITS
    }
    return SimpleNamespace(path=path, manifest=manifest.read(path), files=files)


def rewritten(path, folder, change):
    """A file with another name, as TFX copies shards, whose records went through `change`."""
    copy = folder / "data_tfrecord-00000-of-00001.gz"
    with tf.io.TFRecordWriter(str(copy), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for number, serialized in enumerate(
            tf.data.TFRecordDataset(path, "GZIP").as_numpy_iterator()
        ):
            writer.write(records.encode(change(number, records.decode(serialized))))
    return str(copy)


def refusal(tmp_path, data, train=None, evaluated=None, task=None, keep="last"):
    """The one line with which training refuses; nothing is published, no step was done."""
    shards = Shards(
        manifest=data.manifest,
        train=tuple(train or data.files["train"]),
        eval=tuple(data.files["eval"] if evaluated is None else evaluated),
    )
    steps = []
    if task is None:
        run, config = (
            pretrain.run_pretraining,
            PretrainConfig(encoder=SMALL, num_steps=1, global_batch_size=4),
        )
    else:
        run = segment.run_segmentation
        config = SegmentConfig(
            encoder=SMALL,
            num_steps=1,
            global_batch_size=4,
            sensors=task,
            label_schema="water",
            keep=keep,
        )
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        run(
            config,
            shards,
            Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs")),
            on_step=lambda *step: steps.append(step),
        )
    assert not steps
    assert not (tmp_path / "model").exists()
    return str(caught.value)


def test_shards_of_other_bands_than_the_manifest(version, tmp_path):
    changed = rewritten(
        version.files["train"][0],
        tmp_path,
        lambda _, patch: dataclasses.replace(patch, s2=patch.s2[..., :11]),
    )
    message = refusal(tmp_path, version, train=[version.files["train"][1], changed])
    assert message.startswith(f"{changed}: patch ")
    assert message.endswith(": s2 must hold 24576 bytes, 32x32 pixels of 12 bands, got 22528")


def test_patches_of_two_sizes_in_one_batch(version, tmp_path):
    def shrink(number, patch):
        return (
            dataclasses.replace(patch, s1=patch.s1[:16], s2=patch.s2[:16]) if number == 3 else patch
        )

    changed = rewritten(version.files["train"][0], tmp_path, shrink)
    message = refusal(tmp_path, version, train=[changed])
    assert message.endswith(" must be 32x32 pixels, as the manifest says, got 16x32")


def test_a_patch_size_that_the_encoder_cannot_halve(version, tmp_path):
    version.manifest = dataclasses.replace(version.manifest, patch_size_px=40)
    assert refusal(tmp_path, version) == (
        "manifest.patch_size_px must be a multiple of the stride 16 of 'small', got 40"
    )


def test_a_shard_that_is_not_the_one_the_manifest_names(version, tmp_path):
    first, second = version.files["train"]
    shutil.copy(second, first)
    sizes = [
        entry.num_bytes
        for name, entry in sorted(version.manifest.shards.items())
        if name.startswith("train/")
    ]
    assert (
        refusal(tmp_path, version)
        == f"{first}: must have the {sizes[0]} bytes that the manifest says, got {sizes[1]}"
    )


def test_a_shard_that_is_missing(version, tmp_path):
    first = version.files["train"][0]
    Path(first).unlink()
    assert (
        refusal(tmp_path, version) == f"{first}: the shard is missing, though the manifest names it"
    )


def test_a_file_that_is_cut_short(version, tmp_path):
    copy = tmp_path / "data_tfrecord-00000-of-00001.gz"
    with open(version.files["train"][0], "rb") as shard:
        copy.write_bytes(shard.read()[:1000])
    message = refusal(tmp_path, version, train=[str(copy)])
    assert message.startswith(f"{copy}: the shard is damaged: its gzip stream is broken")


def test_a_manifest_that_was_changed_by_hand(version):
    path = version.path / layout.MANIFEST_NAME
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(
        manifest.ManifestError,
        match=f"{path}: manifest.config_sha256: must be the hash of config, ",
    ):
        opened(version.path)


def test_an_eval_split_without_patches(version, tmp_path):
    empty = tmp_path / "empty.tfrecord.gz"
    tf.io.TFRecordWriter(str(empty), "GZIP").close()
    message = refusal(tmp_path, version, evaluated=[str(empty)])
    assert message.startswith(
        "eval split must hold at least one batch of 1 examples, got 0 in 1 files"
    )
    assert (
        refusal(tmp_path, version, evaluated=[])
        == "eval split must have at least one file, got none"
    )


def test_the_best_step_of_an_eval_split_without_labels(labels, tmp_path):
    cure = (
        "build the labels with a larger split.eval_fraction or another split.seed, or set "
        "segment.keep to last"
    )
    assert refusal(tmp_path, labels, evaluated=[], task=("s1",), keep="best") == (
        f"keep: best needs labelled patches in the eval split, got no file: {cure}"
    )
    counts = labels.manifest.num_pixels_per_class | {"eval": {"255": 7}}
    unlabelled = dataclasses.replace(labels.manifest, num_pixels_per_class=counts)
    data = SimpleNamespace(manifest=unlabelled, files=labels.files)
    assert refusal(tmp_path, data, task=("s1",), keep="best") == (
        f"keep: best needs labelled patches in the eval split, got no labelled pixel: {cure}"
    )


@pytest.mark.parametrize(
    ("mean", "std"), [(float("nan"), 1.0), (0.1, float("nan")), (0.1, float("inf")), (0.1, 0.0)]
)
def test_statistics_that_are_no_numbers(version, tmp_path, mean, std):
    first, *others = version.manifest.s2_statistics
    broken = (dataclasses.replace(first, mean=mean, std=std), *others)
    version.manifest = dataclasses.replace(version.manifest, s2_statistics=broken)
    assert refusal(tmp_path, version) == (
        "manifest.s2_statistics: band B1 needs valid pixels that differ to be normalized, "
        f"got {first.num_pixels} pixels with mean {mean} and std {std}"
    )


def test_unlabelled_shards_given_to_a_segmenter(pairs, labels, tmp_path):
    files = {
        split: [shutil.copy(paths[0], str(tmp_path / f"{split}.gz"))]
        for split, paths in pairs.files.items()
    }
    message = refusal(tmp_path, labels, train=files["train"], task=("s1", "s2"))
    assert message.endswith(": label must hold 1024 bytes, 32x32 labelled pixels, got 0")
    message = refusal(tmp_path, labels, evaluated=files["eval"], task=("s1",))
    assert message.endswith(": label must hold 1024 bytes, 32x32 labelled pixels, got 0")
    # With their own manifest, already the schema tells.
    assert (
        refusal(tmp_path, pairs, task=("s1",))
        == "label_schema is 'water', but the shards hold None"
    )


def test_patches_without_a_sensor_that_the_task_needs(labels, tmp_path):
    lacking = dataclasses.replace(labels.manifest, num_absent={"s2": {"train": 3, "test": 1}})
    data = SimpleNamespace(manifest=lacking, files=labels.files)
    message = refusal(tmp_path, data, task=("s1", "s2"))
    assert message.startswith(
        "every patch must have a scene of s2, got 4 without one in span 1, version 1; build with"
    )
    shard_checks.check_split(
        "train", labels.files["train"], lacking, sensors=("s1",), with_label=True
    )


def test_small_files_are_made_up_for_by_others(tmp_path):
    """A file of 2 records first or last: 10 of 12 records are needed, and are there."""
    made = opened(make_shards.make_version(tmp_path, num_patches=20, size_px=16))
    two = tmp_path / "two.gz"
    with tf.io.TFRecordWriter(str(two), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for serialized in (
            tf.data.TFRecordDataset(made.files["train"][0], "GZIP").take(2).as_numpy_iterator()
        ):
            writer.write(serialized)
    for files in ([str(two), made.files["train"][1]], [made.files["train"][1], str(two)]):
        shard_checks.check_split("train", files, made.manifest, sensors=("s1",), num_needed=12)
        with pytest.raises(
            ValueError,
            match="train split must hold at least one batch of 13 examples, got 12 in 2 files",
        ):
            shard_checks.check_split("train", files, made.manifest, sensors=("s1",), num_needed=13)


@pytest.mark.parametrize(("split", "cache"), [("train", "none"), ("eval", "memory")])
def test_a_shard_with_a_flipped_byte_is_named_by_the_training(version, tmp_path, split, cache):
    # Near its end: the check before the training reads only the first records.
    path = damage.flip(version.files[split][0], -40)
    shards = Shards(
        manifest=version.manifest,
        train=tuple(version.files["train"]),
        eval=tuple(version.files["eval"]),
    )
    config = PretrainConfig(
        encoder=SMALL,
        num_steps=9,
        global_batch_size=4,
        input=InputConfig(cache=cache),
    )
    folders = Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs"))
    with pytest.raises(ValueError, match="gzip") as caught:
        pretrain.run_pretraining(config, shards, folders)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
