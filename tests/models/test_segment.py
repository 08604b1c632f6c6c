import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts.published import read_card
from models import metrics, segment
from models.config import EncoderConfig, OptimizerConfig
from models.input_pipeline import Features, eval_dataset
from models.pixel_losses.config import LossConfig
from models.published import export
from models.scores import score_file
from models.segment_config import SegmentConfig
from models.training.scaffold import Folders

SMALL = EncoderConfig(backbone="small", embedding_dim=32)


def water(**changes):
    return SegmentConfig(
        **(
            {"sensors": ("s1",), "label_schema": "water", "encoder": SMALL, "num_steps": 1}
            | changes
        )
    )


@pytest.fixture(scope="module")
def chosen(labels, tmp_path_factory):
    """A training in half precision that stops after the second step, no better than the first."""
    root, steps = tmp_path_factory.mktemp("chosen"), []
    config = water(
        regime="scratch",
        head="linear",
        num_steps=4,
        global_batch_size=8,
        precision="mixed_bfloat16",
        optimizer=OptimizerConfig(learning_rate=0.05, warmup_fraction=0.0),
        keep="best",
        eval_every=1,
        patience=1,
    )
    found = segment.run_segmentation(
        config,
        labels.shards,
        Folders(output=str(root / "model"), logs=str(root / "logs")),
        on_step=lambda *step: steps.append(step),
    )
    return SimpleNamespace(dir=str(root / "model"), logs=root / "logs", metrics=found, steps=steps)


def scalars(folder):
    """(tag, step) -> value of the events in a folder."""
    return {
        (value.tag, event.step): tf.make_ndarray(value.tensor).item()
        for path in folder.iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


@pytest.mark.e2e
def test_the_best_step_is_published_with_the_scores_that_it_was_chosen_by(chosen):
    found = read_card(chosen.dir)["evaluations"]
    assert [one["step"] for one in found["history"]] == [1, 2]
    assert found["kept_step"] == found["best_step"] == chosen.metrics["best_step"] == 1
    assert found["best_score"] == found["history"][0]["score"] == chosen.metrics["mean_iou"]
    # Measured in float32 and at the best threshold, so equal to the published ones.
    logged = scalars(chosen.logs / "train")
    for name, value in chosen.metrics.items():
        if name not in ("train_loss", "best_step") and np.isfinite(value):
            assert logged[f"eval_{name}", 1] == pytest.approx(value, rel=1e-5), name
    assert logged["eval_loss", 2] != pytest.approx(chosen.metrics["loss"], rel=1e-3)
    assert ("mean_iou", 1) in scalars(chosen.logs / "eval")
    assert [(step, "eval_mean_iou" in values) for step, _, values in chosen.steps] == [
        (1, False),
        (2, True),
    ]


def test_a_training_that_keeps_the_last_step_has_no_evaluations(segmented):
    assert read_card(segmented.dir)["evaluations"] is None
    assert "best_step" not in segmented.metrics


def test_a_plateau_counts_only_after_the_encoder_trains():
    config = water(num_steps=10, keep="best", patience=2, unfreeze_after=0.45)
    assert segment._eval_rule(config).patient_after == 5


def test_loss_falls_clearly(segmented):
    losses = [loss for _, _, loss in segmented.steps]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_metrics_equal_those_of_the_reloaded_model_by_the_numpy_oracle(segmented, labels):
    kept = score_file.read_scores(f"{segmented.dir}/assets.extra/{score_file.SCORES_NAME}")
    model = export.load_segmenter(segmented.dir)
    cm = np.zeros((2, 2), np.int64)
    for batch in eval_dataset(
        labels.files["eval"],
        Features(
            num_bands={"s1": 2, "s2": 12},
            with_label=True,
        ),
        batch_size=3,
    ):
        predicted = model({"s1": batch["s1"], "s2": batch["s2"]})["label"].numpy()
        cm += metrics.confusion_matrix(batch["label"].numpy(), predicted, 2)
    assert segmented.metrics["mean_iou"] == pytest.approx(metrics.mean_iou(cm), abs=1e-3)
    np.testing.assert_array_equal(kept.confusion.sum(axis=0), cm)
    assert segmented.metrics["pooled_iou/water"] == pytest.approx(
        metrics.iou_per_class(cm)[1], abs=1e-3
    )
    assert segmented.metrics["f1/dry"] == pytest.approx(metrics.f1_per_class(cm)[0], abs=1e-3)
    assert np.isfinite(segmented.metrics["loss"])


def test_published_label_is_cut_at_the_threshold_of_the_card(segmented, labels):
    threshold = read_card(segmented.dir)["threshold"]
    assert 0.0 < threshold < 1.0
    (serialized,) = tf.data.TFRecordDataset(labels.files["eval"], "GZIP").batch(99)
    outputs = tf.saved_model.load(segmented.dir).signatures["serve_examples"](examples=serialized)
    above = outputs["probabilities"].numpy()[..., 1] > np.float32(threshold)
    label = outputs["label"].numpy()
    np.testing.assert_array_equal(label[label != 255], above[label != 255])
    assert 0 < above[label != 255].sum() < (label != 255).sum()


def test_pretrained_encoder_keeps_its_weights_and_its_normalization(pretrained, labels):
    config = water()
    model = segment.build_segmenter(config, labels.manifest, pretrained.dir)
    encoder = export.load_encoders(pretrained.dir)["s1"]
    assert model.encoders["s1"].mean == encoder.mean
    assert encoder.mean != tuple(entry.mean for entry in labels.manifest.s1_statistics)
    for got, expected in zip(
        model.encoders["s1"].get_weights(), encoder.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_the_encoder_of_a_sensor_that_is_not_used_is_not_read(pretrained, labels, tmp_path):
    shutil.copytree(f"{pretrained.dir}/assets.extra", tmp_path / "assets.extra")
    (tmp_path / "assets.extra" / "s2_encoder.keras").write_bytes(b"damaged")
    model = segment.build_segmenter(water(), labels.manifest, str(tmp_path))
    expected = export.load_encoders(pretrained.dir, ["s1"])
    assert list(expected) == ["s1"]
    for got, one in zip(
        model.encoders["s1"].get_weights(), expected["s1"].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, one)


def test_encoder_from_scratch_takes_the_statistics_of_the_labelled_shards(labels):
    model = segment.build_segmenter(water(), labels.manifest, None)
    assert model.encoders["s1"].mean == tuple(entry.mean for entry in labels.manifest.s1_statistics)


def test_training_from_scratch_does_not_look_at_what_is_pretrained(pretrained, labels, tmp_path):
    config = water(regime="scratch", encoder_paths={"s1": str(tmp_path / "none")})
    model = segment.build_segmenter(config, labels.manifest, pretrained.dir)
    assert model.encoders["s1"].mean == tuple(entry.mean for entry in labels.manifest.s1_statistics)


@pytest.mark.parametrize(
    ("changes", "of_encoder", "of_head"),
    [
        ({}, "mirror", "mirror"),
        ({"regime": "scratch"}, "mirror", "mirror"),
        ({"border": "zeros"}, "zeros", "zeros"),
        # A frozen encoder stays as it was pretrained.
        ({"regime": "frozen"}, "zeros", "mirror"),
    ],
)
def test_border_is_mirrored_in_what_trains(pretrained, labels, changes, of_encoder, of_head):
    model = segment.build_segmenter(water(**changes), labels.manifest, pretrained.dir)
    assert (model.encoders["s1"].border, model.border) == (of_encoder, of_head)


def test_encoder_of_public_weights_keeps_zeros_beyond_the_border(labels):
    config = water(regime="scratch", encoder=EncoderConfig(backbone="torch_resnet18"))
    model = segment.build_segmenter(config, labels.manifest, None)
    assert (model.encoders["s1"].border, model.border) == ("zeros", "mirror")


def test_class_that_is_absent_cannot_be_balanced(labels, tmp_path):
    counts = {"train": {"0": 5}, "eval": {"1": 3}}
    config = water(loss=LossConfig(class_weights="balanced"), global_batch_size=8)
    with pytest.raises(ValueError, match=r"every class in the train split, got none of water$"):
        segment.run_segmentation(
            config,
            dataclasses.replace(
                labels.shards,
                manifest=dataclasses.replace(labels.manifest, num_pixels_per_class=counts),
            ),
            Folders(output=str(tmp_path), logs=str(tmp_path)),
        )


def test_encoder_of_other_bands_or_architecture_is_refused(pretrained, labels):
    swapped = dataclasses.replace(labels.manifest, s1_bands=("VH", "VV"))
    with pytest.raises(
        ValueError,
        match=r"s1: the encoder knows bands \('VV', 'VH'\), the shards hold \('VH', 'VV'\)",
    ):
        segment.build_segmenter(water(), swapped, pretrained.dir)
    with pytest.raises(ValueError, match=r"encoder\.backbone is 'resnet18', the encoder's 'small'"):
        segment.build_segmenter(
            water(encoder=EncoderConfig(backbone="resnet18")), labels.manifest, pretrained.dir
        )
    with pytest.raises(ValueError, match="multiple of the stride 16, got 40"):
        segment.build_segmenter(
            water(), dataclasses.replace(labels.manifest, patch_size_px=40), pretrained.dir
        )


def test_directory_without_an_encoder_is_refused(labels, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"s1_encoder\.keras"):
        segment.build_segmenter(water(), labels.manifest, str(tmp_path))


def test_shards_of_another_schema_are_refused(labels, tmp_path):
    config = water(label_schema="dynamic_world")
    with pytest.raises(
        ValueError, match="label_schema is 'dynamic_world', but the shards hold 'water'"
    ):
        segment.run_segmentation(
            config, labels.shards, Folders(output=str(tmp_path), logs=str(tmp_path))
        )


def test_label_is_ignored_where_no_input_sensor_has_data():
    label = np.array([[[0, 1], [255, 1]]], np.uint8)
    valid_mask = np.array([[[[1.0], [0.0]], [[1.0], [1.0]]]], np.float32)
    np.testing.assert_array_equal(segment.mask_label(label, valid_mask), [[[0, 255], [255, 1]]])
