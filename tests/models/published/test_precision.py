"""SavedModels in bfloat16: what they store, compute and cost."""

import dataclasses
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts.published import read_card
from models import segment
from models.config import EncoderConfig
from models.published import export, parity, precision
from models.scores import score_file
from models.scores.summary import summarize
from models.segment_config import ExportConfig, SegmentConfig
from models.training.distribution import get_strategy
from tests.data.networks import make_scores


@pytest.fixture(scope="module")
def config():
    return SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=EncoderConfig(backbone="small", embedding_dim=8),
        num_steps=1,
        decoder_channels=(8, 8, 8, 8),
    )


@pytest.fixture(scope="module")
def model(config, labels):
    """An untrained segmenter whose vectors are not those of a new one."""
    keras.utils.set_random_seed(0)
    made = segment.build_segmenter(config, labels.manifest, None)
    rng = np.random.default_rng(0)
    for variable in made.weights:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.uniform(0.0, 0.3, variable.shape))
    return made


def weights_of(model):
    return {one.path: np.asarray(one.value) for one in model.weights}


def test_kernels_are_rounded_and_vectors_are_not(model):
    before, after = weights_of(model), weights_of(precision.as_served(model, "bfloat16"))
    assert [name.rpartition("/")[2] for name in before] == [
        name.rpartition("/")[2] for name in after
    ]
    for old, new in zip(before.values(), after.values(), strict=True):
        if old.ndim > 1:
            assert not np.array_equal(old, new)
            # bfloat16 has 8 bits, so a rounded number differs by at most 1 in 256.
            np.testing.assert_allclose(new, old, rtol=2.0**-8)
            assert (new.view(np.uint32) & 0xFFFF == 0).all()
        else:
            np.testing.assert_array_equal(new, old)


def test_a_served_copy_leaves_the_model_and_its_policy_alone(model):
    before = weights_of(model)
    served = precision.as_served(model, "mixed_bfloat16")
    assert (served.precision, model.precision) == ("mixed_bfloat16", "float32")
    assert precision.as_served(model, "bfloat16").precision == "float32"
    assert precision.as_served(model, "float32") is model
    for name, value in weights_of(model).items():
        np.testing.assert_array_equal(value, before[name])


def with_water_iou(correct, of=1000):
    """Scores with `correct` of `of` pixels of water found, and as much dry land."""
    scores = make_scores.make_scores(2, num_patches=4)
    confusion = np.zeros_like(scores.confusion)
    confusion[0] = [[of, 0], [of - correct, correct]]
    return dataclasses.replace(scores, confusion=confusion)


@pytest.mark.parametrize(
    ("correct", "is_accepted"), [(900, True), (896, True), (894, False), (950, True)]
)
def test_half_a_point_of_iou_is_the_limit(correct, is_accepted, caplog, monkeypatch):
    before, after = with_water_iou(900), with_water_iou(correct)
    assert summarize(before)["pooled_iou/class1"] == pytest.approx(0.9)
    monkeypatch.setattr(precision, "as_served", lambda model, wanted: f"{model} in {wanted}")
    with caplog.at_level(logging.WARNING, logger="terrapair.training"):
        found = precision.choose("model", "bfloat16", before, {"model in bfloat16": after}.get)
    assert found.precision == ("bfloat16" if is_accepted else "float32")
    assert found.scores is (after if is_accepted else before)
    assert found.iou_loss == pytest.approx(
        max(
            summarize(before)[name] - summarize(after)[name]
            for name in ("mean_iou", "pooled_iou/class0", "pooled_iou/class1")
        )
    )
    assert ("is published in float32" in caplog.text) == (not is_accepted)


def test_float32_is_not_scored_again():
    scores = with_water_iou(900)
    found = precision.choose("model", "float32", scores, lambda served: pytest.fail("scored"))
    assert (found.precision, found.scores) == ("float32", scores)
    assert np.isnan(found.iou_loss)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be float32, bfloat16 or mixed_bfloat16"):
        ExportConfig(precision="int8")


@pytest.fixture(scope="module", params=["bfloat16", "mixed_bfloat16"])
def published(request, config, model, labels, tmp_path_factory):
    """The folder of the segmenter as a training publishes it, and its metrics."""
    folder = str(tmp_path_factory.mktemp("published") / request.param)
    asked = dataclasses.replace(config, export=ExportConfig(precision=request.param))
    recipe = segment.SegmentRecipe(asked, labels.shards)
    with pytest.MonkeyPatch.context() as patch:
        # The model is untrained, so its IoU may change by more.
        patch.setattr(precision, "MAX_IOU_LOSS", 1.0)
        metrics = recipe.evaluate(model, 0.0, get_strategy())
    recipe.export(model, folder, metrics)
    return request.param, folder, metrics


@pytest.mark.e2e
def test_the_savedmodel_computes_what_its_precision_says(published, model):
    name, folder, metrics = published
    comparisons = parity.compare_with_keras(folder)
    assert {one.tolerance for one in comparisons} == {parity.TOLERANCES[name]}
    assert all(one.max_abs_difference <= one.tolerance for one in comparisons)
    card = read_card(folder)
    assert card["precision"] == name
    # Training further starts from all digits.
    kept = export.load_segmenter(folder)
    for value, expected in zip(kept.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    # The scores are those of what is served.
    scores = score_file.read_scores(f"{folder}/assets.extra/{score_file.SCORES_NAME}")
    assert metrics["mean_iou"] == summarize(scores)["mean_iou"]
    assert np.isfinite(metrics["export_iou_loss"])
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    assert signature.structured_input_signature[1]["s1"].dtype == tf.float32
    assert signature.structured_outputs["probabilities"].dtype == tf.float32


@pytest.mark.e2e
def test_each_weight_is_stored_once_in_its_precision(published, model):
    _, folder, _ = published
    weights = model.get_weights()
    expected = sum(one.nbytes // (2 if one.ndim > 1 else 1) for one in weights)
    stored = sum(path.stat().st_size for path in Path(folder, "variables").iterdir())
    # Beside the weights there is an index of some kilobytes.
    assert expected <= stored < expected + 64_000 < 1.9 * expected


@pytest.mark.e2e
@pytest.mark.parametrize("published", ["bfloat16"], indirect=True)
def test_parity_sees_weights_that_were_not_rounded(published, monkeypatch):
    _, folder, _ = published
    monkeypatch.setattr(parity, "as_served", lambda model, precision: model)
    assert max(one.max_abs_difference for one in parity.compare_with_keras(folder)) > 1e-4
