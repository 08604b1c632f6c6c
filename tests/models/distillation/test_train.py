"""A student and its teacher on pairs: their inputs, the pixels that count, what is exported."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.published import read_card
from models import segment
from models.augmentation.config import ImageAugmentConfig, PhotometryConfig
from models.config import EncoderConfig, OptimizerConfig
from models.distillation import train
from models.distillation.config import DistillConfig, StudentConfig
from models.encoders import SensorEncoder
from models.published import export
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter
from models.training.scaffold import Folders, Shards
from tests.data.faults.watched_training import KilledError, Watch

SEGMENT = SegmentConfig(
    sensors=("s1",),
    label_schema="water",
    encoder=EncoderConfig(backbone="small", embedding_dim=32),
    num_steps=1,
    decoder_channels=(16, 8, 8, 8),
    global_batch_size=8,
    checkpoint_every=1,
)
DISTILL = DistillConfig(
    teacher="fused",
    num_steps=20,
    global_batch_size=8,
    optimizer=OptimizerConfig(learning_rate=3e-3),
)
# The student's own training may evaluate at steps that its distillation never reaches.
CONFIG = StudentConfig(
    segment=dataclasses.replace(SEGMENT, num_steps=90, keep="best", eval_every=80, patience=1),
    distill=DISTILL,
)


def make_segmenter(sensors, num_bands=2):
    encoders = {
        sensor: SensorEncoder(
            sensor=sensor,
            bands=tuple("abcdefghijklm"[:num_bands]),
            mean=[0.0] * num_bands,
            std=[1.0] * num_bands,
            backbone="small",
        )
        for sensor in sensors
    }
    return Segmenter(encoders=encoders, num_classes=2, decoder_channels=(8, 8, 8, 8), head="linear")


@pytest.fixture(scope="module")
def untrained():
    """(teacher of Sentinel-2, student of Sentinel-1), both as they begin."""
    keras.utils.set_random_seed(1)
    return make_segmenter(("s2",)), make_segmenter(("s1",))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = {
        name: rng.normal(size=(4, 32, 32, 2)).astype(np.float32) for name in ("s1", "teacher_s2")
    }
    return {**images, "weight": np.array([1.0, 0.5, 0.25, 1.0], np.float32)}


def loss_and_gradients(untrained, batch):
    teacher, student = untrained
    keras.utils.set_random_seed(0)
    start = student.get_weights()
    with tf.GradientTape() as tape:
        scalars = train._replica_loss(
            CONFIG, teacher, student, {k: tf.constant(v) for k, v in batch.items()}
        )
    gradients = tape.gradient(scalars["loss"], student.trainable_variables)
    # Batch statistics have moved.
    student.set_weights(start)
    return {name: float(value) for name, value in scalars.items()}, [
        gradient.numpy() for gradient in gradients
    ]


def test_patch_that_the_teacher_cannot_see_counts_for_nothing(untrained, batch):
    batch["teacher_s2"][1] = np.nan
    blind, blind_gradients = loss_and_gradients(untrained, batch)
    batch["teacher_s2"][1] = 0.5
    seen, _ = loss_and_gradients(untrained, batch)
    batch["weight"][1] = 0.0
    left_out, expected = loss_and_gradients(untrained, batch)
    assert blind["loss"] == pytest.approx(left_out["loss"], rel=1e-6)
    assert seen["loss"] != pytest.approx(blind["loss"], rel=1e-4)
    for one, two in zip(blind_gradients, expected, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert max(np.abs(gradient).max() for gradient in expected) > 1e-3


def test_nothing_to_see_is_a_loss_of_0_and_no_gradient(untrained, batch):
    batch["teacher_s2"][:] = np.nan
    scalars, gradients = loss_and_gradients(untrained, batch)
    assert scalars == {"loss": 0.0, "agreement": 0.0}
    assert all(not gradient.any() for gradient in gradients)


def test_what_the_student_cannot_see_teaches_nothing(untrained, batch):
    batch["s1"][2] = np.nan
    blind, _ = loss_and_gradients(untrained, batch)
    batch["teacher_s2"][2] = 3.0
    other, _ = loss_and_gradients(untrained, batch)
    assert other == pytest.approx(blind, rel=1e-6)


def test_weights_of_the_pairs_count_only_when_they_are_to(untrained, batch):
    weighted, _ = loss_and_gradients(untrained, batch)
    teacher, student = untrained
    alike = dataclasses.replace(CONFIG, segment=dataclasses.replace(SEGMENT, use_weights=False))
    start = student.get_weights()
    tensors = {name: tf.constant(values) for name, values in batch.items()}
    unweighted = float(train._replica_loss(alike, teacher, student, tensors)["loss"])
    student.set_weights(start)
    assert weighted["loss"] != pytest.approx(unweighted, rel=1e-4)


def test_photometry_is_the_students_alone_and_geometry_is_of_both(pairs):
    fused = make_segmenter(("s1", "s2"))
    augment = ImageAugmentConfig(photometry=PhotometryConfig())
    config = dataclasses.replace(CONFIG, segment=dataclasses.replace(SEGMENT, augment=augment))
    rng = np.random.default_rng(0)
    size = pairs.manifest.patch_size_px
    batch = {
        # Smooth, so that a blur leaves it recognizable.
        "s1": tf.constant(
            ndimage.gaussian_filter(rng.normal(size=(4, size, size, 2)), (0, 4, 4, 0)) * 60.0
            - 12.0,
            tf.float32,
        ),
        "s2": tf.constant(rng.uniform(0.0, 0.5, (4, size, size, 12)), tf.float32),
        "weight": tf.ones([4]),
    }
    changed = train._make_transform(config, fused, pairs.manifest)(
        batch, tf.constant([3, 5], tf.int64)
    )
    assert set(changed) == {"s1", "teacher_s1", "teacher_s2", "weight"}
    for sensor in ("s1", "s2"):
        for before, after in zip(
            batch[sensor].numpy(), changed[f"teacher_{sensor}"].numpy(), strict=True
        ):
            turned = [
                np.rot90(image, turns) for image in (before, before[:, ::-1]) for turns in range(4)
            ]
            assert any(np.array_equal(after, image) for image in turned)
    teachers, own = changed["teacher_s1"].numpy(), changed["s1"].numpy()
    assert not np.array_equal(teachers, own)
    # The same place: only looks differ.
    assert all(
        np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.5
        for one, two in zip(teachers, own, strict=True)
    )


def distill(pairs, teacher, encoder, path, config=CONFIG, checkpoints=None, **options):
    return train.run_distillation(
        config,
        Shards(manifest=pairs.manifest, train=tuple(pairs.files["train"])),
        Folders(output=str(path / "student"), logs=str(path / "logs"), checkpoints=checkpoints),
        sources=train.StudentSources(teacher=teacher.dir, encoder=encoder.dir),
        **options,
    )


@pytest.fixture(scope="module")
def student(pairs, segmented, pretrained, tmp_path_factory):
    """(folder, scalars of each step) of a student of `segmented`."""
    path = tmp_path_factory.mktemp("student")
    steps = []
    distill(
        pairs, segmented, pretrained, path, on_step=lambda step, num, scalars: steps.append(scalars)
    )
    return path / "student", steps


@pytest.mark.e2e
def test_student_comes_to_agree_with_its_teacher(student):
    folder, steps = student
    losses, agreements = ([scalars[name] for scalars in steps] for name in ("loss", "agreement"))
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])
    assert np.mean(agreements[-5:]) > 0.8
    kept = read_card(str(folder))
    assert kept["metrics"]["train_loss"] == pytest.approx(np.mean(losses[-10:]), rel=0.5)


@pytest.mark.e2e
def test_card_names_teacher_and_encoder(student, segmented, pretrained, pairs):
    kept = read_card(str(student[0]))
    assert (kept["task"], kept["teacher"], kept["started_from"]) == (
        "distillation",
        segmented.dir,
        {"s1": pretrained.dir},
    )
    assert kept["data_manifest_sha256"] == pairs.manifest.sha256
    assert kept["config"]["distill"]["teacher"] == "fused"


@pytest.mark.e2e
def test_segmenter_starts_from_all_weights_of_the_student_and_says_so(
    student, labels, pretrained, tmp_path
):
    folder = str(student[0])
    model = segment.build_segmenter(SEGMENT, labels.manifest, pretrained.dir, folder)
    for got, expected in zip(
        model.get_weights(), export.load_segmenter(folder).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    segment.run_segmentation(
        SEGMENT,
        labels.shards,
        Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs")),
        sources=segment.SegmenterSources(student=folder),
    )
    assert read_card(str(tmp_path / "model"))["started_from"] == {"s1": folder}
    for changes, message in (
        ({"head": "linear"}, r"head must be linear, got the student's unet"),
        (
            {"decoder_channels": (8, 8, 8, 8)},
            r"decoder_channels must be \(8, 8, 8, 8\), got .* \(16, 8, 8, 8\)",
        ),
        ({"border": "zeros"}, r"border must be zeros, got the student's mirror"),
        ({"sensors": ("s2",)}, r"sensors must be \('s2',\), got the student's \('s1',\)"),
    ):
        with pytest.raises(ValueError, match=message):
            segment.build_segmenter(
                dataclasses.replace(SEGMENT, **changes), labels.manifest, None, folder
            )


@pytest.mark.e2e
def test_killed_distillation_goes_on_and_ends_as_the_undisturbed_one(
    pairs, segmented, pretrained, tmp_path
):
    config = dataclasses.replace(CONFIG, distill=dataclasses.replace(DISTILL, num_steps=5))
    undisturbed, killed, resumed = Watch(), Watch(kill_at=3), Watch()
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    distill(pairs, segmented, pretrained, tmp_path / "undisturbed", config, on_step=undisturbed)
    kept = tmp_path / "kept"
    arguments = (pairs, segmented, pretrained, tmp_path / "killed", config)
    with pytest.raises(KilledError):
        distill(*arguments, on_step=killed, checkpoints=str(kept))
    distill(*arguments, on_step=resumed, checkpoints=str(kept))
    assert min(resumed.losses) in (3, 4)
    assert killed.losses | resumed.losses == pytest.approx(undisturbed.losses, rel=1e-3)
    one, two = (
        export.load_segmenter(str(tmp_path / name / "student"))
        for name in ("undisturbed", "killed")
    )
    for first, second in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-2, atol=1e-4, err_msg=first.path)
    assert not kept.exists() or not list(kept.iterdir())


@pytest.mark.e2e
def test_teacher_of_other_classes_or_bands_is_refused(pairs, segmented, tmp_path):
    teacher = train.load_teacher(segmented.dir, get_schema("water"), pairs.manifest)
    assert teacher.trainable_variables == []
    with pytest.raises(ValueError, match="the teacher must label 'dynamic_world', got 'water'"):
        train.load_teacher(segmented.dir, get_schema("dynamic_world"), pairs.manifest)
    swapped = dataclasses.replace(pairs.manifest, s1_bands=("VH", "VV"))
    with pytest.raises(
        ValueError,
        match=r"s1: the encoder knows bands \('VV', 'VH'\), the shards hold \('VH', 'VV'\)",
    ):
        train.load_teacher(segmented.dir, get_schema("water"), swapped)
    uneven = dataclasses.replace(pairs.manifest, patch_size_px=40)
    with pytest.raises(
        ValueError, match="patch size must be a multiple of the teacher's stride 16, got 40"
    ):
        train.load_teacher(segmented.dir, get_schema("water"), uneven)
    with pytest.raises(FileNotFoundError, match="no model card"):
        train.load_teacher(str(tmp_path), get_schema("water"), pairs.manifest)
