import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts import layout, records
from beam_jobs.contracts.labels import DYNAMIC_WORLD
from beam_jobs.contracts.published import ASSETS_DIR
from models import metrics, segment
from models.config import EncoderConfig
from models.input_pipeline import parse_examples
from models.published import export
from models.scores import calibration
from models.scores.scoring import get_threshold, score_patches, tune_threshold
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def model(labels):
    """An untrained segmenter that is too fond of water: its best threshold is not a half."""
    keras.utils.set_random_seed(0)
    encoder = EncoderConfig(backbone="small", embedding_dim=32)
    config = SegmentConfig(
        sensors=("s1", "s2"),
        label_schema="water",
        encoder=encoder,
        num_steps=1,
        decoder_channels=(16, 8, 8, 8),
    )
    segmenter = segment.build_segmenter(config, labels.manifest, None)
    segmenter.get_layer("logits").bias.assign([0.0, 1.0])
    return segmenter


@pytest.fixture(scope="module")
def eval_records(labels):
    return list(tf.data.TFRecordDataset(labels.files["eval"], "GZIP").as_numpy_iterator())


def test_each_patch_has_its_own_counts_and_what_its_record_tells(model, labels, eval_records):
    scores = score_patches(model, labels.files["eval"], ("dry", "water"), batch_size=3)
    assert len(scores) == len(eval_records) == 8
    pixels = parse_examples(tf.constant(eval_records), {"s1": 2, "s2": 12})
    outputs = model({sensor: pixels[sensor] for sensor in ("s1", "s2")}, training=False)
    for row, serialized in enumerate(eval_records):
        patch = records.decode(serialized)
        label, prediction = patch.label, outputs["label"].numpy()[row]
        assert (prediction == 255).any() == (row % 4 == 3)
        np.testing.assert_array_equal(
            scores.confusion[row], metrics.confusion_matrix(label, prediction, 2)
        )
        counted = (label != 255) & (prediction != 255)
        truth_chance = np.take_along_axis(
            outputs["probabilities"].numpy()[row][counted], label[counted][:, None], 1
        )
        assert scores.loss[row] == pytest.approx(-np.log(truth_chance).sum(), rel=1e-4)
        assert (
            scores.probability_counts[row].sum()
            == scores.reliability[row, 0].sum()
            == counted.sum()
        )
        assert scores.patch_id[row] == patch.patch_id
        assert scores.block[row] == patch.block
        assert scores.s1_scene_id[row] == patch.s1_scene_id
        assert scores.orbit_state[row] == patch.orbit_state
        assert scores.event[row] == patch.event == ("Ghana", "", "Spain")[row % 3]
        assert scores.cloud_fraction[row] == np.float32(patch.cloud_fraction)
        assert scores.majority_label[row] == np.bincount(label[label != 255]).argmax()


def test_tuned_threshold_is_that_of_the_model_and_of_its_scores_and_outlives_saving(
    model, labels, tmp_path
):
    before = score_patches(model, labels.files["eval"], ("dry", "water"), batch_size=8)
    assert before.threshold == get_threshold(model) == 0.5
    tuned = tune_threshold(model, before)
    assert tuned.threshold == calibration.best_threshold(before.probability_counts[:, 0]) != 0.5
    iou = [metrics.iou_per_class(scores.confusion.sum(axis=0))[1] for scores in (before, tuned)]
    assert iou[1] > iou[0]
    model.save(tmp_path / "model.keras")
    export_dir = tmp_path / "published" / ASSETS_DIR
    export_dir.mkdir(parents=True)
    (tmp_path / "model.keras").rename(export_dir / "model.keras")
    reloaded = export.load_segmenter(str(tmp_path / "published"))
    again = score_patches(reloaded, labels.files["eval"], ("dry", "water"), batch_size=8)
    assert again.threshold == tuned.threshold
    np.testing.assert_array_equal(again.confusion, tuned.confusion)


def test_model_of_more_classes_has_no_threshold(model, tmp_path):
    version = make_shards.make_version(
        tmp_path, kind="labels", label_schema="dynamic_world", num_patches=6
    )
    many = Segmenter(encoders=model.encoders, num_classes=9, decoder_channels=(8, 8, 8, 8))
    files = [str(path) for path in layout.shard_paths(version, "eval")]
    scores = score_patches(many, files, DYNAMIC_WORLD.class_names, batch_size=2)
    assert get_threshold(many) is None
    assert tune_threshold(many, scores) is scores
    assert scores.confusion.shape == (2, 9, 9)
    with pytest.raises(
        ValueError,
        match=r"class_names must be 9, one for each class of the model, got \['dry', 'water'\]",
    ):
        score_patches(many, files, ("dry", "water"), batch_size=2)


def test_label_that_is_no_class_is_refused_with_its_id(model, tmp_path):
    version = make_shards.make_version(
        tmp_path, kind="labels", label_schema="dynamic_world", num_patches=6
    )
    files = [str(path) for path in layout.shard_paths(version, "eval")]
    with pytest.raises(ValueError, match=r"truth ids must be 0\.\.1 or 255"):
        score_patches(model, files, ("dry", "water"), batch_size=2)


def test_no_patch_is_refused(model):
    with pytest.raises(
        ValueError, match="files must hold at least one example, got none in 0 files"
    ):
        score_patches(model, [], ("dry", "water"), batch_size=2)
