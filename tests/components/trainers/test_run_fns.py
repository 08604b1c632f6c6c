import dataclasses
import json
import re
import shutil

import pytest

from beam_jobs.contracts import manifest
from components import artifacts
from components.trainers import attempts, pretrain, segment
from models.config import EncoderConfig, PretrainConfig
from models.published import export
from models.segment_config import SegmentConfig
from tests.data.runs.make_fn_args import make_fn_args

pytestmark = pytest.mark.e2e

ENCODER = EncoderConfig(backbone="small", embedding_dim=8)


@pytest.fixture(scope="module")
def pretrained(pairs_version, tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrain")
    config = PretrainConfig(encoder=ENCODER, num_steps=2, global_batch_size=4, num_eval_batches=1)
    # No encoder is published yet.
    custom = {
        "checkpoints_dir": str(root / "checkpoints"),
        "code": "abc",
        "published_dir": str(root / "serving"),
    }
    pretrain.run_fn(make_fn_args(pairs_version, root, config, **custom))
    return root


def test_pretrain_run_fn_writes_model_metrics_and_logs(pretrained, pairs_version):
    assert set(export.load_encoders(str(pretrained / "Format-Serving"))) == {"s1", "s2"}
    metrics = json.loads((pretrained / "model_run" / artifacts.METRICS_FILE).read_text())
    assert metrics["num_eval_pairs"] == min(4, manifest.read(pairs_version).num_examples["eval"])
    assert metrics["train_loss"] > 0
    assert list((pretrained / "model_run" / "train").glob("events*"))
    assert list((pretrained / "checkpoints").iterdir()) == []


def test_checkpoints_of_one_training_lie_where_each_attempt_at_it_looks(pairs_version, tmp_path):
    config = PretrainConfig(encoder=ENCODER, num_steps=2)
    custom = {"checkpoints_dir": "s3://run/checkpoints", "code": "abc"}
    first, second = (
        make_fn_args(pairs_version, tmp_path / name, config, **custom) for name in ("1", "2")
    )
    folder = attempts.checkpoint_dir(first, "pretrain", "")
    assert re.fullmatch("s3://run/checkpoints/pretrain-[0-9a-f]{16}", folder)
    assert attempts.checkpoint_dir(second, "pretrain", "") == folder
    others = [
        make_fn_args(pairs_version, tmp_path, dataclasses.replace(config, seed=1), **custom),
        make_fn_args(pairs_version, tmp_path, config, **custom | {"code": "abd"}),
        make_fn_args(pairs_version, tmp_path, config, **custom),
    ]
    others[2].hyperparameters = others[2].hyperparameters | {"span": 99}
    folders = {folder, *(attempts.checkpoint_dir(other, "pretrain", "") for other in others)}
    assert len({*folders, attempts.checkpoint_dir(first, "pretrain", "encoder-2")}) == 5
    assert (
        attempts.checkpoint_dir(make_fn_args(pairs_version, tmp_path, config), "pretrain", "")
        is None
    )


def test_another_model_at_the_same_path_is_another_training(pairs_version, tmp_path):
    """A root that is begun anew has other models under the paths of the old ones."""
    config = PretrainConfig(encoder=ENCODER, num_steps=2)
    model = tmp_path / "tfx" / "Trainer-pretrain" / "model" / "7"
    model.mkdir(parents=True)
    folders, encoders = [], []
    for weights in (b"one", b"two", b"one"):
        (model / "weights").write_bytes(weights)
        encoders.append(attempts.hash_encoders({"s1": str(model), "s2": "s3://b/k"}))
        assert encoders[-1]["s2"] == ""
        fn_args = make_fn_args(pairs_version, tmp_path, config, checkpoints_dir="c", code="abc")
        started = attempts.checkpoint_dir(fn_args, "flood", attempts.hash_models(str(model)))
        named = make_fn_args(
            pairs_version,
            tmp_path,
            config,
            checkpoints_dir="c",
            code="abc",
            encoders=encoders[-1],
        )
        folders.append((started, attempts.checkpoint_dir(named, "flood", "")))
    assert folders[0] == folders[2]
    assert len({*folders[0], *folders[1]}) == 4
    assert encoders[0] == encoders[2] != encoders[1]
    assert attempts.hash_models(None) == ""
    assert attempts.hash_encoders({"s1": str(tmp_path / "none")}) == {"s1": ""}


def test_pretrain_run_fn_starts_from_the_encoder_published_last(
    pretrained, pairs_version, tmp_path
):
    serving = tmp_path / "serving"
    config = PretrainConfig(
        encoder=ENCODER, num_steps=2, global_batch_size=4, num_eval_batches=1, seed=1
    )
    # Versions are numbers: 12 sorts before 7 as text.
    for version in ("7", "12"):
        shutil.copytree(pretrained / "Format-Serving", serving / "encoder" / version)
    fn_args = make_fn_args(
        pairs_version, tmp_path / "run", config, code="abc", published_dir=str(serving)
    )
    pretrain.run_fn(fn_args)
    first, second = (
        json.loads((run / "Format-Serving/assets.extra/model_card.json").read_text())[
            "started_from"
        ]
        for run in (pretrained, tmp_path / "run")
    )
    assert first == {}
    assert second == dict.fromkeys(("s1", "s2"), str(serving / "encoder" / "12"))


def test_segment_run_fn_starts_from_the_encoder(pretrained, water_version, tmp_path, caplog):
    config = SegmentConfig(
        sensors=("s1",), label_schema="water", encoder=ENCODER, num_steps=2, global_batch_size=4
    )
    fn_args = make_fn_args(water_version, tmp_path, config, name="flood")
    with pytest.raises(ValueError, match=r"fn_args\.base_model is empty"):
        segment.run_fn(fn_args)
    fn_args.base_model = str(pretrained / "Format-Serving")
    with caplog.at_level("INFO", logger="terrapair.training"):
        segment.run_fn(fn_args)
    assert export.load_segmenter(fn_args.serving_model_dir).sensors == ("s1",)
    steps = [
        (item.component, item.step, item.num_steps)
        for item in caplog.records
        if hasattr(item, "step")
    ]
    assert steps == [("flood", 1, 2), ("flood", 2, 2)]


def test_segment_run_fn_needs_no_pretraining_where_its_config_names_all_encoders(
    water_version, tmp_path
):
    config = SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=ENCODER,
        num_steps=2,
        global_batch_size=4,
        encoder_paths={"s1": str(tmp_path / "imported")},
    )
    # It looks for the encoder of the path, so the error names that and not base_model.
    with pytest.raises(
        FileNotFoundError, match=r"imported/assets\.extra/s1_encoder\.keras: no such Keras model"
    ):
        segment.run_fn(make_fn_args(water_version, tmp_path, config, name="flood"))
