import math

import numpy as np
import pytest

from models import pretrain
from models.config import EncoderConfig, PretrainConfig


def test_loss_falls_clearly_and_every_step_is_reported(pretrained):
    assert [step for step, _, _ in pretrained.steps] == list(range(1, 21))
    losses = [loss for _, _, loss in pretrained.steps]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_metrics_are_of_the_eval_split(pretrained):
    metrics = pretrained.metrics
    assert set(metrics) == {
        "train_loss",
        "eval_loss",
        "recall_at_1_s1_to_s2",
        "recall_at_1_s2_to_s1",
        "num_eval_pairs",
    }
    assert metrics["num_eval_pairs"] == 8
    assert metrics["eval_loss"] < math.log(8)
    assert max(metrics["recall_at_1_s1_to_s2"], metrics["recall_at_1_s2_to_s1"]) > 1 / 8
    assert metrics["train_loss"] == pytest.approx(np.mean([loss for _, _, loss in pretrained.steps[-10:]]))
    assert {path.name for path in pretrained.logs.iterdir()} == {"train", "eval"}


def test_recall_counts_partners_that_are_nearest():
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    keys = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.8]])
    assert pretrain.recall_at_1(queries, keys) == pytest.approx(2 / 3)


def test_collapsed_embeddings_do_not_count_as_found():
    same = np.ones((4, 3))
    assert pretrain.recall_at_1(same, same) == pytest.approx(1 / 4)


def test_batch_larger_than_the_train_split_is_refused(pairs, tmp_path):
    config = PretrainConfig(encoder=EncoderConfig(backbone="small"), num_steps=1, global_batch_size=64)
    with pytest.raises(ValueError, match="one batch of 64 examples, got 24"):
        pretrain.run_pretraining(
            config, pairs.manifest, pairs.files["train"], pairs.files["eval"], str(tmp_path / "m"), str(tmp_path / "l")
        )
    assert not (tmp_path / "m").exists()
